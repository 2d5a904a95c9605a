//! Serializes changes of the capture: one task at a time, and none after the last turn.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Mutex as Gate, OwnedMutexGuard};

/// Nothing joins or leaves while it is held.
pub type Turn = OwnedMutexGuard<()>;

/// The turns of a node.
#[derive(Default)]
pub(super) struct Turns {
    /// Held by the task that changes the capture, and by a successor that takes over.
    gate: Arc<Gate<()>>,
    /// The turn of a node that has been retired or released, which never ends.
    last: Mutex<Option<Turn>>,
}

impl Turns {
    pub(super) async fn take(&self) -> Turn {
        self.gate.clone().lock_owned().await
    }

    /// For threads that may wait.
    pub(super) fn take_blocking(&self) -> Turn {
        self.gate.clone().blocking_lock_owned()
    }

    /// This is the last turn.
    pub(super) fn end_with(&self, turn: Turn) {
        *self.last.lock() = Some(turn);
    }

    pub(super) fn have_ended(&self) -> bool {
        self.last.lock().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_has_a_turn_at_a_time_and_nobody_after_the_last() {
        let turns = Turns::default();
        let next = || timeout(Duration::from_secs(1), turns.take());
        let turn = next().await.unwrap();
        assert!(next().await.is_err() && !turns.have_ended());
        drop(turn);
        turns.end_with(next().await.unwrap());
        assert!(next().await.is_err() && turns.have_ended());
    }
}
