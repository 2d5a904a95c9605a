//! The rounds of comparison between desired and actual captures, and the tasks that wait for one.

use tokio::sync::{Notify, watch};

/// The counts of rounds.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    begun: u64,
    ended: u64,
}

/// The rounds of a node.
pub(super) struct Rounds {
    count: watch::Sender<Count>,
    asked: Notify,
}

impl Default for Rounds {
    fn default() -> Self {
        Self { count: watch::Sender::new(Count::default()), asked: Notify::new() }
    }
}

impl Rounds {
    pub(super) fn begin(&self) {
        self.count.send_modify(|count| count.begun += 1);
    }

    pub(super) fn end(&self) {
        self.count.send_modify(|count| count.ended = count.begun);
    }

    /// Requests a round.
    pub(super) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Waits for a request.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Waits for the end of a round that begins after this call.
    pub(super) async fn next(&self) {
        let mut count = self.count.subscribe();
        let next = count.borrow_and_update().begun + 1;
        self.ask();
        if count.wait_for(|count| count.ended >= next).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// The current round may have read the state before the change.
    #[tokio::test(start_paused = true)]
    async fn a_round_under_way_is_not_the_next() {
        let rounds = Rounds::default();
        rounds.begin();
        let mut waiting = std::pin::pin!(rounds.next());
        assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err());
        rounds.asked().await;
        rounds.end();
        assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err());
        rounds.begin();
        rounds.end();
        assert!(timeout(Duration::from_secs(1), waiting).await.is_ok());
    }
}
