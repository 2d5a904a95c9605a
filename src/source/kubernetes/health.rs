//! Whether the watches are well, and what the log says of it: once when one fails, and once when all are well again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::watch::PAUSE_AT_MOST;
use crate::source::LastRead;

/// How long a connection to the API server may take.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// A watch that failed and says nothing more for so long is well again: one that still fails says so after every try.
const RECOVERED: Duration = Duration::from_secs(PAUSE_AT_MOST.as_secs() + CONNECT.as_secs() + 2);

/// What failed last, by what it was.
pub(super) struct Health {
    failing: BTreeMap<&'static str, Instant>,
    last_read: LastRead,
}

impl Health {
    pub(super) fn new(last_read: LastRead) -> Self {
        Self { failing: BTreeMap::new(), last_read }
    }

    /// `cause` is told when `what` was well before.
    pub(super) fn failed(&mut self, what: &'static str, cause: &dyn std::error::Error) {
        let before = self.failing.insert(what, Instant::now());
        if before.is_none() {
            let cause = chain(cause);
            tracing::error!(
                what,
                cause,
                "the API server does not answer as it should; the last state stays in force. Check that it is up, \
                 and that the agent's service account may list and watch this"
            );
        } else {
            tracing::debug!(what, cause = chain(cause), "the API server still does not answer");
        }
    }

    pub(super) fn succeeded(&mut self, what: &'static str) {
        if self.failing.remove(what).is_some() {
            tracing::info!(what, "the API server answers again");
        }
    }

    /// `what` is not asked for any more.
    pub(super) fn forget(&mut self, what: &'static str) {
        self.failing.remove(what);
    }

    /// To be called every few seconds: notes that nothing is missed, when nothing is. `complete`: everything was read
    /// once.
    pub(super) fn tick(&mut self, complete: bool) {
        let now = Instant::now();
        let recovered: Vec<_> = (self.failing.iter())
            .filter(|(_, at)| now.duration_since(**at) >= RECOVERED)
            .map(|(what, _)| *what)
            .collect();
        for what in recovered {
            self.succeeded(what);
        }
        if complete && self.failing.is_empty() {
            self.last_read.now();
        }
    }
}

/// An error with its causes, each once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_and_falls_silent_is_well_again() {
        let last_read = LastRead::default();
        let mut health = Health::new(last_read.clone());
        let error = std::io::Error::other("refused");
        health.failed("Pod", &error);
        for _ in 0..10 {
            advance(PAUSE_AT_MOST + CONNECT).await;
            health.tick(true);
            assert!(last_read.get().is_zero(), "it may fail again this late");
            health.failed("Pod", &error);
        }
        advance(RECOVERED).await;
        health.tick(false);
        assert!(last_read.get().is_zero(), "nothing is known yet");
        health.tick(true);
        assert!(!last_read.get().is_zero());
    }

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot list: {0}")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(chain(&Outer(std::io::Error::other("refused"))), "cannot list: refused");
    }
}
