//! CA rotation: a pure function from the Secret's content and the time to the next step.
//!
//! 1. The next CA exists: its roots are published, so that every agent trusts both.
//! 2. After the overlap it signs. The previous roots stay, for the certificates that they have signed.
//! 3. When the last of those has expired, the previous roots are removed.
//!
//! The controller creates a next CA when an operator requests it, or in the last tenth of the lifetime of a root that
//! it created; or an operator puts one into the Secret beside the present one.

use std::time::{Duration, SystemTime};

use super::CaError;
use super::state::{Material, Next, Old, State};
use crate::identity::{Authority, CLOCK_SKEW};

/// The last part of a root's lifetime, in which it is replaced: one year of ten, so that a failure is not urgent.
const LAST_PART: u32 = 10;

/// How long each phase takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// From the publication of a root to the first certificate that it signs.
    pub(super) overlap: Duration,
    /// The lifetime of signed certificates.
    pub(super) lifetime: Duration,
}

/// The leader's next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing before this time; without one, until the Secret changes.
    Rest(Option<SystemTime>),
    /// Creates the next CA.
    Make(Why),
    /// The next CA's roots are published: the overlap begins.
    Announce,
    /// The next CA signs from now on.
    Switch,
    /// Sets the expiry of old roots that have none.
    Date,
    /// The previous roots are no longer trusted.
    Forget,
    /// The request is not possible: an operator brought the CA, so the operator must bring its successor.
    Refuse,
}

/// Why a CA is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Asked,
    EndsSoon,
}

/// Called only once the roots that must be trusted now are published.
pub(super) fn step(state: &State, authority: &Authority, times: Times, now: SystemTime) -> Step {
    match (&state.next, &state.old) {
        (Some(Next { announced: None, .. }), _) => Step::Announce,
        (Some(Next { announced: Some(at), .. }), _) => due(*at + times.overlap, now, Step::Switch),
        (None, Some(Old { until: None, .. })) => Step::Date,
        (None, Some(Old { until: Some(at), .. })) => due(*at, now, Step::Forget),
        (None, None) if state.asked && state.signing.is_own(authority) => Step::Make(Why::Asked),
        (None, None) if state.asked => Step::Refuse,
        (None, None) if state.signing.is_own(authority) => {
            let (start, end) = authority.validity();
            let life = end.duration_since(start).unwrap_or_default();
            due(end - life / LAST_PART, now, Step::Make(Why::EndsSoon))
        }
        (None, None) => Step::Rest(None),
    }
}

fn due(time: SystemTime, now: SystemTime, step: Step) -> Step {
    if now >= time { step } else { Step::Rest(Some(time)) }
}

impl State {
    /// The state after a step other than resting.
    ///
    /// # Errors
    /// A new CA cannot be created.
    pub(super) fn after(
        &self,
        step: Step,
        times: Times,
        now: SystemTime,
        make: impl FnOnce() -> Result<Material, CaError>,
    ) -> Result<Self, CaError> {
        let mut state = self.clone();
        match step {
            Step::Rest(_) => {}
            Step::Make(_) => {
                state.next = Some(Next { material: make()?, announced: None });
                state.asked = false;
            }
            Step::Announce => {
                state.next = state.next.map(|next| Next { announced: Some(now), ..next });
            }
            Step::Switch => {
                if let Some(next) = state.next.take() {
                    let mut roots = std::mem::replace(&mut state.signing, next.material).roots;
                    if let Some(older) = state.old {
                        roots = format!("{}\n{}", roots.trim_end(), older.roots);
                    }
                    state.old = Some(Old { roots, until: Some(last_end(times, now)) });
                }
            }
            Step::Date => {
                let until = Some(last_end(times, now));
                state.old = state.old.map(|old| Old { until, ..old });
            }
            Step::Forget => state.old = None,
            Step::Refuse => state.asked = false,
        }
        Ok(state)
    }
}

/// When the last certificate expires that was signed before now: the other replica may sign a little longer.
fn last_end(times: Times, now: SystemTime) -> SystemTime {
    now + times.lifetime + CLOCK_SKEW
}
