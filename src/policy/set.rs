//! The policies that are enforced together, sorted by what they do.

use std::sync::Arc;

use super::list::PolicyList;
use super::looks::{looks_at_destination, looks_at_http, looks_at_server_name};
use super::tokens::TokenPolicies;
use crate::model::{Action, AuthorizationPolicy};

/// The policies that apply to one workload, or to one service or waypoint, by action. They decide in the order of
/// [`PolicySet::asks`] and [`PolicySet::decide`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySet {
    pub custom: PolicyList,
    pub deny: PolicyList,
    pub allow: PolicyList,
    pub audit: PolicyList,
    /// RequestAuthentications.
    pub authenticate: TokenPolicies,
    /// CUSTOM policies whose provider cannot be asked; each denies everything.
    pub unasked: Vec<Arc<AuthorizationPolicy>>,
    /// Invalid policies; each denies everything.
    pub broken: Vec<Arc<AuthorizationPolicy>>,
    /// Some rule reads HTTP fields: requests must be parsed, even if the rule is not enforced (dry-run, AUDIT).
    pub needs_http: bool,
    /// Some rule reads the port or the address of the destination.
    pub(super) looks_at_destination: bool,
    /// Those that are enforced and have a rule about the server that is asked for in TLS.
    pub(super) by_server_name: Vec<Arc<AuthorizationPolicy>>,
    /// There are AUDIT or dry-run policies.
    pub(super) has_notes: bool,
}

impl PolicySet {
    pub fn is_empty(&self) -> bool {
        self.custom.is_empty()
            && self.deny.is_empty()
            && self.allow.is_empty()
            && self.audit.is_empty()
            && self.authenticate.is_empty()
            && self.unasked.is_empty()
            && self.broken.is_empty()
    }

    /// Indexes the policies, where there are many. Whoever is about to judge by the set calls it; only the first call takes
    /// time. Decisions are the same without it.
    pub fn prepare(&self) {
        self.lists().into_iter().for_each(PolicyList::prepare);
        self.authenticate.prepare();
    }

    /// Takes the indexes of an older set, as far as the policies are the same.
    pub fn inherit(&mut self, before: &Self) {
        let Self { custom, deny, allow, audit, authenticate, .. } = self;
        authenticate.inherit(&before.authenticate);
        let lists = [custom, deny, allow, audit].into_iter();
        lists.zip(before.lists()).for_each(|(list, before)| list.inherit(before));
    }

    fn lists(&self) -> [&PolicyList; 4] {
        [&self.custom, &self.deny, &self.allow, &self.audit]
    }

    fn add(&mut self, policy: Arc<AuthorizationPolicy>) {
        match policy.action {
            Action::Custom if policy.broken.is_some() || policy.provider.is_none() => {
                return self.unasked.push(policy);
            }
            _ if policy.broken.is_some() => return self.broken.push(policy),
            // A provider is asked about requests, whatever the rules look at.
            Action::Custom => self.needs_http = true,
            _ => {}
        }
        self.has_notes |= policy.dry_run || policy.action == Action::Audit;
        self.needs_http |= policy.rules.iter().any(looks_at_http);
        self.looks_at_destination |= policy.rules.iter().any(looks_at_destination);
        let is_enforced = !policy.dry_run && policy.action != Action::Audit;
        if is_enforced && policy.rules.iter().any(looks_at_server_name) {
            self.by_server_name.push(policy.clone());
        }
        match policy.action {
            Action::Custom => self.custom.push(policy),
            Action::Deny => self.deny.push(policy),
            Action::Allow => self.allow.push(policy),
            Action::Audit => self.audit.push(policy),
            Action::Authenticate => self.authenticate.push(policy),
        }
    }
}

/// Policies add up: none takes the place of another.
impl FromIterator<Arc<AuthorizationPolicy>> for PolicySet {
    fn from_iter<I: IntoIterator<Item = Arc<AuthorizationPolicy>>>(policies: I) -> Self {
        let mut set = Self::default();
        policies.into_iter().for_each(|policy| set.add(policy));
        set
    }
}
