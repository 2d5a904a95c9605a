//! Counters of AUDIT and dry-run policies.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::budget::{Budget, Charged};
use super::clamp::{OTHER, fits};
use super::exposition::{Family, Pairs, WriteLabels};
use super::series::{Fold, SeriesLabels, SeriesMap};
use crate::base::{PolicyNote, Str};

/// Matches of policies that do not enforce, by policy.
pub(super) struct Notes(SeriesMap<NoteLabels, NoteCounts>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct NoteLabels {
    namespace: Str,
    name: Str,
    effect: &'static str,
}

counts! {
    pub(super) struct NoteCounts {
        /// Connections and requests that AUDIT and dry-run AuthorizationPolicies matched, and rate limits in shadow mode
        /// would have refused, by what they would have done.
        matches: AtomicU64 = "isthmus_policy_notes";
    }
}

impl Notes {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self(SeriesMap::new(budget))
    }

    pub(super) fn note(&self, notes: &[PolicyNote]) {
        for PolicyNote { policy, effect } in notes {
            let (namespace, name) = (policy.namespace.clone(), policy.name.clone());
            let labels = NoteLabels { namespace, name, effect: effect.as_str() };
            self.0.get(&labels).counts.matches.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn sweep(&self) {
        self.0.sweep();
    }

    pub(super) fn families(&self) -> Vec<Family> {
        NoteCounts::families(self.0.all())
    }
}

impl SeriesLabels for NoteLabels {
    type Owned = Self;

    fn own(&self) -> Self {
        self.clone()
    }

    fn charged(&self) -> Charged<'_> {
        Charged { owner: &self.namespace, other: &self.namespace }
    }

    fn fit(&self) -> bool {
        fits(&self.namespace) && fits(&self.name)
    }

    fn folded(&self, fold: Fold) -> Self {
        let other = Str::from(OTHER);
        let namespace = if fold == Fold::All { other.clone() } else { self.namespace.clone() };
        Self { namespace, name: other, effect: self.effect }
    }
}

impl WriteLabels for NoteLabels {
    fn write(&self, pairs: &mut Pairs<'_>) {
        pairs.put("policy_namespace", &self.namespace);
        pairs.put("policy_name", &self.name);
        pairs.put("effect", self.effect);
    }
}
