//! The policies of one action, with an index of their rules.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::index::Index;
use super::looks::looks_at_http;
use crate::model::{Action, AuthorizationPolicy};

/// The number of rules from which an index is worth its memory.
const INDEXED_FROM: usize = 8;

/// Policies in the order of their scopes.
#[derive(Clone, Debug, Default)]
pub struct PolicyList {
    policies: Vec<Arc<AuthorizationPolicy>>,
    dry_run: Vec<Arc<AuthorizationPolicy>>,
    /// Some enforced policy does.
    looks_at_http: bool,
    /// Made when the first connection is about to be judged: most sets belong to workloads of other nodes. `None` in it: there
    /// are few rules.
    index: OnceLock<Option<Arc<Index>>>,
}

impl PolicyList {
    /// Before the list is prepared.
    pub(super) fn push(&mut self, policy: Arc<AuthorizationPolicy>) {
        self.dry_run.extend(policy.dry_run.then(|| policy.clone()));
        self.looks_at_http |= !policy.dry_run && policy.rules.iter().any(looks_at_http);
        self.policies.push(policy);
    }

    /// Makes the index, if it is worth it. Until then all rules are evaluated.
    pub(super) fn prepare(&self) {
        self.index.get_or_init(|| {
            let rules: usize = self.policies.iter().map(|policy| policy.rules.len()).sum();
            let worth = rules >= INDEXED_FROM;
            worth.then(|| Arc::new(Index::of(&self.policies, self.refuses())))
        });
    }

    /// Takes the index of a list of the very same policies.
    pub(super) fn inherit(&mut self, before: &Self) {
        let same = |(one, two): (&Arc<_>, &Arc<_>)| Arc::ptr_eq(one, two);
        if self.policies.len() == before.policies.len()
            && self.policies.iter().zip(&before.policies).all(same)
        {
            self.index = before.index.clone();
        }
    }

    pub(super) fn index(&self) -> Option<&Index> {
        self.index.get()?.as_deref()
    }

    /// A match of these policies is to be read towards refusing. Asking a provider once too often refuses nobody whom it
    /// permits; asking too rarely lets past it.
    pub(super) fn refuses(&self) -> bool {
        let action = self.policies.first().map(|policy| policy.action);
        matches!(action, Some(Action::Deny | Action::Custom))
    }

    /// The policies that only say what they would do.
    pub(super) fn in_dry_run(&self) -> &[Arc<AuthorizationPolicy>] {
        &self.dry_run
    }

    /// Some rule of an enforced policy reads HTTP fields.
    pub(super) fn looks_at_http(&self) -> bool {
        self.looks_at_http
    }

    /// How many policies are enforced.
    pub(super) fn enforced(&self) -> usize {
        self.policies.len() - self.dry_run.len()
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
