//! The reasons why workloads of this node are not captured although they should be.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use crate::base::Str;
use crate::workloads::Refusal;

/// The workloads that are not captured, each for one reason or more.
#[derive(Default)]
pub(super) struct Uncaptured(Mutex<Reasons>);

#[derive(Default)]
struct Reasons {
    /// A failed attempt, which is retried.
    failed: BTreeMap<Str, String>,
    /// Pods that are not found.
    lost: BTreeSet<Str>,
    /// Workloads whose namespace another workload also claims.
    refused: BTreeMap<Str, Refusal>,
}

impl Uncaptured {
    pub(super) fn failed(&self, uid: &Str, why: String) {
        self.0.lock().failed.insert(uid.clone(), why);
    }

    /// An attempt succeeded, or is not retried.
    pub(super) fn succeeded(&self, uid: &Str) {
        self.0.lock().failed.remove(uid);
    }

    /// Why the last attempt failed.
    pub(super) fn failure(&self, uid: &Str) -> Option<String> {
        self.0.lock().failed.get(uid).cloned()
    }

    /// Forgets the failures of workloads that should no longer be captured.
    pub(super) fn retain_failed(&self, wanted: impl Fn(&Str) -> bool) {
        self.0.lock().failed.retain(|uid, _| wanted(uid));
    }

    /// Whether an attempt has failed.
    pub(super) fn has_failed(&self) -> bool {
        !self.0.lock().failed.is_empty()
    }

    /// Whether a retry without a change may succeed: pods may be found meanwhile.
    pub(super) fn is_worth_another_attempt(&self) -> bool {
        let reasons = self.0.lock();
        !reasons.failed.is_empty() || !reasons.lost.is_empty()
    }

    /// Replaces the lost workloads. Returns the new ones.
    pub(super) fn set_lost(&self, lost: BTreeSet<Str>) -> Vec<Str> {
        let mut reasons = self.0.lock();
        let new = lost.difference(&reasons.lost).cloned().collect();
        reasons.lost = lost;
        new
    }

    /// Replaces the rejected workloads. Returns those that are new, or rejected for another reason.
    pub(super) fn set_refused(&self, refused: BTreeMap<Str, Refusal>) -> Vec<(Str, Refusal)> {
        let mut reasons = self.0.lock();
        let new = refused.iter().filter(|(uid, why)| reasons.refused.get(*uid) != Some(*why));
        let new = new.map(|(uid, why)| (uid.clone(), why.clone())).collect();
        reasons.refused = refused;
        new
    }

    pub(super) fn is_refused(&self, uid: &Str) -> bool {
        self.0.lock().refused.contains_key(uid)
    }

    /// All reasons, for the status. `lost`: why a lost one is not captured.
    pub(super) fn all(&self, lost: &str) -> Vec<(Str, String)> {
        let reasons = self.0.lock();
        let failed = reasons.failed.iter().map(|(uid, why)| (uid.clone(), why.clone()));
        let lost = reasons.lost.iter().map(|uid| (uid.clone(), lost.to_owned()));
        let refused = reasons.refused.iter().map(|(uid, why)| (uid.clone(), why.to_string()));
        failed.chain(lost).chain(refused).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told() {
        let uncaptured = Uncaptured::default();
        let lost = |uids: &[&str]| uids.iter().map(|uid| Str::from(*uid)).collect();
        assert_eq!(uncaptured.set_lost(lost(&["a", "b"])), ["a", "b"]);
        assert_eq!(uncaptured.set_lost(lost(&["b", "c"])), ["c"]);
        let refused = |uid: &str| BTreeMap::from([(Str::from(uid), Refusal::Host)]);
        assert_eq!(uncaptured.set_refused(refused("d")), [("d".into(), Refusal::Host)]);
        assert!(uncaptured.set_refused(refused("d")).is_empty());
        assert!(uncaptured.is_refused(&"d".into()) && !uncaptured.is_refused(&"c".into()));
    }

    /// A rejected workload stays rejected until the other claim ends, which causes an event.
    #[test]
    fn another_attempt_is_made_for_what_failed_or_is_lost() {
        let uncaptured = Uncaptured::default();
        uncaptured.set_refused(BTreeMap::from([("d".into(), Refusal::Host)]));
        assert!(!uncaptured.is_worth_another_attempt() && !uncaptured.has_failed());
        uncaptured.set_lost(BTreeSet::from(["a".into()]));
        assert!(uncaptured.is_worth_another_attempt() && !uncaptured.has_failed());
        uncaptured.failed(&"b".into(), "no memory".to_owned());
        assert!(uncaptured.has_failed());
        assert_eq!(uncaptured.failure(&"b".into()).as_deref(), Some("no memory"));
        assert_eq!(uncaptured.all("lost").len(), 3);
        uncaptured.retain_failed(|_| false);
        assert!(!uncaptured.has_failed());
    }
}
