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

    /// To be called every few seconds: notes that nothing is missed, when nothing is.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        let recovered: Vec<_> = (self.failing.iter())
            .filter(|(_, at)| now.duration_since(**at) >= RECOVERED)
            .map(|(what, _)| *what)
            .collect();
        for what in recovered {
            self.succeeded(what);
        }
        if self.failing.is_empty() {
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
