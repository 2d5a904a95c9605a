//! The RequestAuthentications of a set, filed by what requests and tokens have: the places where tokens may be, and the issuer.
//! A request costs the same whether there is one rule or a thousand of other issuers.

use std::collections::{BTreeSet, HashSet};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use http::HeaderName;

use crate::base::{FastMap, Str};
use crate::model::{AuthorizationPolicy, Condition, TokenPlace, TokenRule};

/// The RequestAuthentications of a set.
#[derive(Clone, Debug, Default)]
pub struct TokenPolicies {
    policies: Vec<Arc<AuthorizationPolicy>>,
    /// Made when the first request is about to be judged.
    index: OnceLock<Arc<Index>>,
}

#[derive(Debug, Default)]
struct Index {
    /// Each once, with the first policy that looks there.
    places: Vec<(TokenPlace, usize)>,
    by_issuer: FastMap<Str, Vec<At>>,
    /// Headers that tell the application of claims, each once.
    told: Vec<HeaderName>,
    /// Headers that tokens may be in, each once.
    token_headers: Vec<HeaderName>,
}

/// A rule, by its place.
#[derive(Clone, Copy, Debug)]
struct At {
    policy: usize,
    rule: usize,
    condition: usize,
}

impl TokenPolicies {
    /// Before a request is judged.
    pub(super) fn push(&mut self, policy: Arc<AuthorizationPolicy>) {
        self.policies.push(policy);
    }

    /// Makes the index; only the first call takes time.
    pub(super) fn prepare(&self) {
        if !self.policies.is_empty() {
            self.index();
        }
    }

    /// Takes the index of the very same policies.
    pub(super) fn inherit(&mut self, before: &Self) {
        let same = |(one, two): (&Arc<_>, &Arc<_>)| Arc::ptr_eq(one, two);
        if self.policies.len() == before.policies.len()
            && self.policies.iter().zip(&before.policies).all(same)
        {
            self.index = before.index.clone();
        }
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| Arc::new(Index::of(&self.policies)))
    }

    /// Where tokens may be, each place once, with the first policy that looks there.
    pub(super) fn places(&self) -> impl Iterator<Item = (&TokenPlace, &AuthorizationPolicy)> {
        let places = self.index().places.iter();
        places.filter_map(|(place, policy)| Some((place, &**self.policies.get(*policy)?)))
    }

    /// Headers that tell the application of claims, which nobody but an agent may send.
    pub(super) fn told(&self) -> &[HeaderName] {
        &self.index().told
    }

    /// Headers that tokens may be in.
    pub(super) fn token_headers(&self) -> &[HeaderName] {
        &self.index().token_headers
    }

    /// The rules for tokens of an issuer, in the order of the policies.
    pub(super) fn rules_of(
        &self,
        issuer: &str,
    ) -> impl Iterator<Item = (&AuthorizationPolicy, &TokenRule)> {
        let rules = self.index().by_issuer.get(issuer).into_iter().flatten();
        rules.filter_map(|at| {
            let policy = self.policies.get(at.policy)?;
            match policy.rules.get(at.rule)?.when.get(at.condition)? {
                Condition::Token(rule) => Some((&**policy, &**rule)),
                _ => None,
            }
        })
    }
}

impl Index {
    fn of(policies: &[Arc<AuthorizationPolicy>]) -> Self {
        let mut index = Self::default();
        let mut known = BTreeSet::new();
        let mut told = HashSet::new();
        for (policy, of) in policies.iter().enumerate() {
            for (rule, content) in of.rules.iter().enumerate() {
                for (condition, one) in content.when.iter().enumerate() {
                    let Condition::Token(token) = one else { continue };
                    let at = At { policy, rule, condition };
                    index.by_issuer.entry(token.issuer.clone()).or_default().push(at);
                    let places = token.places.iter().filter(|place| known.insert(*place));
                    index.places.extend(places.map(|place| (place.clone(), policy)));
                    let names = token.told().filter(|name| told.insert(*name));
                    index.told.extend(names.cloned());
                }
            }
        }
        for (place, _) in &index.places {
            if let TokenPlace::Header { name, .. } = place
                && let Ok(name) = name.parse()
                && !index.token_headers.contains(&name)
            {
                index.token_headers.push(name);
            }
        }
        index
    }
}

impl Deref for TokenPolicies {
    type Target = [Arc<AuthorizationPolicy>];

    fn deref(&self) -> &Self::Target {
        &self.policies
    }
}

/// The index is derived from the policies.
impl PartialEq for TokenPolicies {
    fn eq(&self, other: &Self) -> bool {
        self.policies == other.policies
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::*;
    use crate::base::ObjectKey;
    use crate::model::{IssuerKeys, Scope};
    use crate::policy::{fixture, token_rules};

    fn a_rule() -> impl Strategy<Value = TokenRule> {
        let places = [
            TokenPlace::Header { name: "authorization".into(), prefix: "Bearer ".into() },
            TokenPlace::Parameter("t".into()),
            TokenPlace::Cookie("t".into()),
        ];
        let told = prop::option::of(select(&["x-user", "x-claims"][..]));
        (select(&["a", "b", "c"][..]), subsequence(places.to_vec(), 0..=3), told).prop_map(
            |(issuer, places, told)| TokenRule {
                issuer: issuer.into(),
                audiences: Vec::new(),
                keys: IssuerKeys::Unknown,
                places,
                forwards: false,
                payload_header: told.map(HeaderName::from_static),
                claim_headers: Vec::new(),
                spaced: Vec::new(),
            },
        )
    }

    /// The first of each that are alike.
    fn once<T: PartialEq>(all: impl IntoIterator<Item = T>) -> Vec<T> {
        let mut known = Vec::new();
        for one in all {
            if !known.contains(&one) {
                known.push(one);
            }
        }
        known
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_scan_finds(
            rules in prop::collection::vec(prop::collection::vec(a_rule(), 0..4), 0..6),
        ) {
            let mut policies = TokenPolicies::default();
            for (number, rules) in rules.into_iter().enumerate() {
                let key = ObjectKey::new("shop", format!("p{number}"));
                policies.push(Arc::new(fixture::tokens(&key, Scope::Namespace, rules)));
            }
            let all = || policies.iter().flat_map(|by| token_rules(by).map(move |it| (&**by, it)));
            for issuer in ["a", "b", "c", "d", ""] {
                let found: Vec<_> = policies.rules_of(issuer).collect();
                let scanned: Vec<_> = all().filter(|(_, rule)| *rule.issuer == *issuer).collect();
                prop_assert_eq!(found, scanned);
            }
            let places: Vec<_> = policies.places().map(|(place, _)| place).collect();
            prop_assert_eq!(&places, &once(all().flat_map(|(_, rule)| &rule.places)));
            for (place, by) in policies.places() {
                let first = all().find(|(_, rule)| rule.places.contains(place)).map(|(by, _)| by);
                prop_assert_eq!(Some(by), first);
            }
            let told: Vec<_> = policies.told().iter().collect();
            prop_assert_eq!(told, once(all().flat_map(|(_, rule)| rule.told())));
        }
    }
}
