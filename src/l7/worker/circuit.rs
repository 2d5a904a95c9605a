//! How many checks a provider of external authorization has at once, and that one which is away is not waited for each time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::base::Str;

/// Checks of one provider at once in one worker: Envoy's limit on the requests of a cluster.
const MOST: usize = 1024;
/// After so many calls in a row that reached nobody, the provider counts as away.
const FAILURES: u32 = 5;
/// How long nobody else is sent there then; after that, one at a time finds out whether it is back.
const AWAY: Duration = Duration::from_secs(1);

/// The circuits of one worker, by provider.
#[derive(Default)]
pub(in crate::l7) struct Circuits(Mutex<HashMap<Str, Arc<Circuit>>>);

/// The circuit of one provider.
pub(in crate::l7) struct Circuit {
    calls: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failures: u32,
    away_until: Option<Instant>,
}

/// The place of one check.
pub(in crate::l7) struct Call {
    circuit: Arc<Circuit>,
    _place: OwnedSemaphorePermit,
}

impl Circuits {
    pub(in crate::l7) fn of(&self, provider: &Str) -> Arc<Circuit> {
        self.0.lock().entry(provider.clone()).or_default().clone()
    }
}

impl Default for Circuit {
    fn default() -> Self {
        Self { calls: Arc::new(Semaphore::new(MOST)), state: Mutex::default() }
    }
}

impl Circuit {
    /// A place for one check, or why there is none now.
    pub(in crate::l7) fn enter(self: &Arc<Self>) -> Result<Call, String> {
        let mut state = self.state.lock();
        if let Some(until) = state.away_until {
            let now = Instant::now();
            if now < until {
                return Err("nobody was reached there just now".to_owned());
            }
            // This one finds out.
            state.away_until = Some(now + AWAY);
        }
        drop(state);
        let place = self.calls.clone().try_acquire_owned();
        let place = place.map_err(|_| format!("{MOST} requests wait for its answer already"))?;
        Ok(Call { circuit: self.clone(), _place: place })
    }
}

impl Call {
    /// Somebody was reached, whatever the answer is.
    pub(in crate::l7) fn reached(&self) {
        let mut state = self.circuit.state.lock();
        *state = State::default();
    }

    pub(in crate::l7) fn reached_nobody(&self) {
        let mut state = self.circuit.state.lock();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES {
            state.away_until = Some(Instant::now() + AWAY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_away_is_tried_by_one_at_a_time() {
        let circuit = Circuits::default().of(&"provider".into());
        for _ in 0..FAILURES {
            circuit.enter().ok().unwrap().reached_nobody();
        }
        assert!(circuit.enter().is_err());
        tokio::time::advance(AWAY).await;
        let probe = circuit.enter().ok().unwrap();
        assert!(circuit.enter().is_err(), "one finds out");
        probe.reached();
        assert!(circuit.enter().is_ok());
    }

    #[tokio::test]
    async fn calls_are_bounded() {
        let circuit = Circuits::default().of(&"provider".into());
        let mut calls: Vec<Call> = (0..MOST).map(|_| circuit.enter().ok().unwrap()).collect();
        assert!(circuit.enter().is_err());
        calls.pop();
        assert!(circuit.enter().is_ok());
    }
}
