//! The schedule of searches for pods that this agent was not told of.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::base::Str;
use crate::workloads::Sought;

/// The pause after a container runtime did not answer: no workload joins while the agent waits for it.
pub(super) const REST: Duration = Duration::from_secs(30);

/// The last search, and the next one.
#[derive(Default)]
pub(super) struct Search(Mutex<State>);

#[derive(Default)]
struct State {
    /// Generations of pods that were searched.
    looked_for: BTreeSet<(Str, Str)>,
    /// When the next search is due, if there is something to search.
    again: Option<Instant>,
    /// The end of the pause after the container runtime did not answer.
    rests: Option<Instant>,
}

impl Search {
    /// Forgets generations that no longer exist.
    pub(super) fn retain(&self, is_here: impl Fn(&Str, &Str) -> bool) {
        self.0.lock().looked_for.retain(|(uid, pod)| is_here(uid, pod));
    }

    /// Whether one of these must be searched: pods that should be captured always, the others once.
    pub(super) fn is_due(&self, missing: &[(bool, Sought)]) -> bool {
        let state = self.0.lock();
        missing.iter().any(|(enrolled, it)| {
            let was_looked_for = state.looked_for.contains(&(it.uid.clone(), it.pod.clone()));
            (*enrolled && !it.addresses.is_empty()) || !was_looked_for
        })
    }

    pub(super) fn looked_for(&self, sought: &[Sought]) {
        let these = sought.iter().map(|it| (it.uid.clone(), it.pod.clone()));
        self.0.lock().looked_for.extend(these);
    }

    /// The time of the next search; `None` if none is needed.
    pub(super) fn set_next(&self, again: Option<Instant>) {
        self.0.lock().again = again;
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.lock().again
    }

    /// The container runtime did not answer.
    pub(super) fn rest(&self) {
        self.0.lock().rests = Some(Instant::now() + REST);
    }

    pub(super) fn rests(&self) -> bool {
        self.0.lock().rests.is_some_and(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sought(uid: &str, addresses: &[&str]) -> Sought {
        Sought {
            uid: uid.into(),
            pod: "pod".into(),
            namespace: "default".into(),
            name: uid.into(),
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn what_should_be_captured_is_looked_for_again_and_the_rest_once() {
        let search = Search::default();
        let rows =
            [(true, &["10.0.0.1"][..], true), (true, &[], false), (false, &["10.0.0.1"], false)];
        for (index, (enrolled, addresses, again)) in rows.into_iter().enumerate() {
            let one = sought(&index.to_string(), addresses);
            let missing = [(enrolled, one)];
            assert!(search.is_due(&missing), "{index}");
            search.looked_for(&[missing[0].1.clone()]);
            assert_eq!(search.is_due(&missing), again, "{index}");
            search.retain(|_, _| false);
            assert!(search.is_due(&missing), "{index}: another generation");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_did_not_answer_rests() {
        let search = Search::default();
        assert!(!search.rests());
        search.rest();
        assert!(search.rests());
        tokio::time::advance(REST).await;
        assert!(!search.rests());
    }
}
