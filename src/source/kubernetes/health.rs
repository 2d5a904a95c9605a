//! Whether the watches are well, and what the log says of it: while any fails one line a minute, with all that is concerned,
//! and one when all are well again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::PATIENCE;
use super::followed::PAUSE_AT_MOST;
use crate::base::Seldom;
use crate::source::LastRead;

/// How long a connection to the API server may take.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// A watch that failed and says nothing more for so long is well again: one that still fails says so after every try.
const RECOVERED: Duration = Duration::from_secs(PAUSE_AT_MOST.as_secs() + PATIENCE.as_secs() + 2);

/// How long something must fail before the log says so: then all that fails for one reason is in one line.
const GRACE: Duration = Duration::from_secs(2);

/// What fails, by what it is.
pub(super) struct Health {
    failing: BTreeMap<&'static str, Failing>,
    last_read: LastRead,
    seldom: Seldom,
    /// The log has said that something fails, and not yet that all is well.
    told: bool,
}

struct Failing {
    since: Instant,
    last: Instant,
    cause: String,
}

/// One line of the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Failing { what: String, since: Duration, cause: String },
    Well,
}

impl Health {
    pub(super) fn new(last_read: LastRead) -> Self {
        Self { failing: BTreeMap::new(), last_read, seldom: Seldom::new(), told: false }
    }

    pub(super) fn failed(&mut self, what: &'static str, cause: &dyn std::error::Error) {
        let (now, cause) = (Instant::now(), chain(cause));
        tracing::debug!(what, cause, "the API server does not answer as it should");
        let since = self.failing.get(what).map_or(now, |known| known.since);
        self.failing.insert(what, Failing { since, last: now, cause });
    }

    pub(super) fn succeeded(&mut self, what: &'static str) {
        self.failing.remove(what);
    }

    /// `what` is not asked for any more.
    pub(super) fn forget(&mut self, what: &'static str) {
        self.failing.remove(what);
    }

    /// What the log has to say now, if anything.
    fn telling(&mut self) -> Option<Told> {
        let Some(first) = self.failing.values().min_by_key(|failing| failing.since) else {
            return std::mem::take(&mut self.told).then_some(Told::Well);
        };
        if first.since.elapsed() < GRACE || !self.seldom.is_due() {
            return None;
        }
        self.told = true;
        let what: Vec<&str> = self.failing.keys().copied().collect();
        let (since, cause) = (first.since.elapsed(), first.cause.clone());
        Some(Told::Failing { what: what.join(", "), since, cause })
    }

    /// Says it.
    fn tell(&mut self) {
        match self.telling() {
            None => {}
            Some(Told::Well) => tracing::info!("the API server answers again"),
            Some(Told::Failing { what, since, cause }) => tracing::error!(
                what,
                since = format!("{} s", since.as_secs()),
                cause,
                "the API server does not answer as it should; the last state stays in force. Check that it is up, and that \
                 the agent's service account may list and watch these"
            ),
        }
    }

    /// To be called every few seconds: notes that nothing is missed, when nothing is. `complete`: everything was read
    /// once.
    pub(super) fn tick(&mut self, complete: bool) {
        let now = Instant::now();
        let recovered: Vec<_> = (self.failing.iter())
            .filter(|(_, failing)| now.duration_since(failing.last) >= RECOVERED)
            .map(|(what, _)| *what)
            .collect();
        for what in recovered {
            self.succeeded(what);
        }
        self.tell();
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
            advance(PAUSE_AT_MOST + PATIENCE).await;
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

    /// Twenty watches that try again every few seconds are one line a minute, which names them all.
    #[tokio::test(start_paused = true)]
    async fn an_absence_is_told_once_a_minute_with_all_that_it_concerns() {
        const KINDS: [&str; 20] = [
            "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q",
            "r", "s", "t",
        ];
        let mut health = Health::new(LastRead::default());
        let error = std::io::Error::other("refused");
        let mut told = Vec::new();
        for _ in 0..60 {
            KINDS.iter().for_each(|what| health.failed(what, &error));
            for _ in 0..5 {
                told.extend(health.telling());
                advance(Duration::from_secs(1)).await;
            }
        }
        assert_eq!(told.len(), 5, "in five minutes: {told:?}");
        let what = KINDS.join(", ");
        for (minute, told) in (0..).zip(told) {
            let since = GRACE + Duration::from_secs(60 * minute);
            let cause = "refused".to_owned();
            assert_eq!(told, Told::Failing { what: what.clone(), since, cause });
        }
        KINDS.iter().for_each(|what| health.succeeded(what));
        assert_eq!((health.telling(), health.telling()), (Some(Told::Well), None));
    }

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot list: {0}")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(chain(&Outer(std::io::Error::other("refused"))), "cannot list: refused");
    }
}
