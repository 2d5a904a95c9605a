//! The policies of one action, and which of them can match a client at all.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use crate::base::{Identity, ObjectKey, Str};
use crate::model::{AuthorizationPolicy, Rule, Source, StringMatch};

/// The number of policies from which an index is worth its memory.
const INDEXED_FROM: usize = 8;

/// Policies in the order of their scopes, with an index by client: of a thousand policies that each name a few service
/// accounts, only those that name the client's are evaluated.
#[derive(Clone, Debug, Default)]
pub struct PolicyList {
    policies: Vec<Arc<AuthorizationPolicy>>,
    index: Option<Index>,
}

#[derive(Clone, Debug, Default)]
struct Index {
    /// By namespace and service account: policies whose rules all name accounts.
    by_account: HashMap<ObjectKey, Vec<u32>>,
    /// All others, which are always evaluated.
    others: Vec<u32>,
}

impl PolicyList {
    pub(super) fn push(&mut self, policy: Arc<AuthorizationPolicy>) {
        self.policies.push(policy);
        self.index = None;
    }

    /// Call it once, when all are added.
    pub(super) fn finish(&mut self) {
        self.index = (self.policies.len() >= INDEXED_FROM).then(|| Index::of(&self.policies));
    }

    /// The policies that may match one of these clients (without one: plaintext), in no particular order. One may occur
    /// twice, if both clients are named.
    pub fn candidates<'a, 'c>(
        &'a self,
        clients: impl Iterator<Item = &'c Identity>,
    ) -> impl Iterator<Item = &'a AuthorizationPolicy> {
        let all = if self.index.is_none() { &self.policies[..] } else { &[] };
        let indexed = self.index.iter().flat_map(|index| index.others.iter());
        let named = self.index.as_ref().map(|index| {
            clients.filter_map(|client| index.by_account.get(&account(client))).flatten()
        });
        let indexed = indexed.chain(named.into_iter().flatten());
        let indexed = indexed.filter_map(|at| self.policies.get(*at as usize));
        all.iter().chain(indexed).map(|policy| &**policy)
    }
}

impl Deref for PolicyList {
    type Target = [Arc<AuthorizationPolicy>];

    fn deref(&self) -> &Self::Target {
        &self.policies
    }
}

/// The index is derived from the policies.
impl PartialEq for PolicyList {
    fn eq(&self, other: &Self) -> bool {
        self.policies == other.policies
    }
}

impl Index {
    fn of(policies: &[Arc<AuthorizationPolicy>]) -> Self {
        let mut index = Index::default();
        for (at, policy) in (0u32..).zip(policies) {
            let accounts: Option<Vec<ObjectKey>> =
                policy.rules.iter().try_fold(Vec::new(), |mut all, rule| {
                    all.extend(accounts_of_rule(rule)?);
                    Some(all)
                });
            match accounts {
                Some(accounts) if !accounts.is_empty() => {
                    for account in accounts {
                        let known = index.by_account.entry(account).or_default();
                        if known.last() != Some(&at) {
                            known.push(at);
                        }
                    }
                }
                // Without rules it never matches, but it must be known that it exists.
                _ => index.others.push(at),
            }
        }
        index
    }
}

/// The accounts one of which must be the client's for the rule to match; `None`: accounts do not determine that.
fn accounts_of_rule(rule: &Rule) -> Option<Vec<ObjectKey>> {
    if rule.from.is_empty() {
        return None;
    }
    let mut all = Vec::new();
    for source in &rule.from {
        all.extend(accounts_of_source(source)?);
    }
    Some(all)
}

/// One of the two fields is enough: all fields of a source must match.
fn accounts_of_source(source: &Source) -> Option<Vec<ObjectKey>> {
    if !source.service_accounts.any.is_empty() {
        return Some(source.service_accounts.any.clone());
    }
    let principals = &source.principals.any;
    if principals.is_empty() {
        return None;
    }
    principals.iter().map(account_of_principal).collect()
}

/// The comparison itself checks the trust domain.
fn account_of_principal(value: &StringMatch) -> Option<ObjectKey> {
    let StringMatch::Exact(principal) = value else { return None };
    let identity: Identity = format!("spiffe://{principal}").parse().ok()?;
    Some(account(&identity))
}

fn account(identity: &Identity) -> ObjectKey {
    let (namespace, name): (&Str, &Str) = (&identity.namespace, &identity.service_account);
    ObjectKey { namespace: namespace.clone(), name: name.clone() }
}
