//! When a write may go out. Two controllers that disagree, a server that changes what is written, or one that rejects
//! it must not cause a flood of writes.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Subject;
use crate::base::Backoff;

/// After a failure, and while too many writes are due.
const PAUSE: Duration = Duration::from_millis(500);
/// Only the leader writes, so that no two clients come at once.
const RETRY: Backoff = Backoff::new(PAUSE, Duration::from_secs(60));
/// The object changed during the write: retry soon, with its new state.
const AGAIN: Duration = Duration::from_millis(100);
/// How often the same status may be written within [`TRUCE`] before another writer is suspected.
const QUARREL: usize = 3;
const TRUCE: Duration = Duration::from_secs(600);
/// The rate limit of writes per second over all objects, and the burst.
const RATE: f64 = 50.0;
const BURST: f64 = 100.0;

/// The identity of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// `metadata.uid` of the object: one that was deleted and recreated is another object, without writes so far. Empty
    /// for an object that is still to be created.
    pub(super) uid: String,
    /// The version of the object that it starts from.
    pub(super) version: String,
    /// A hash of the content, without times.
    pub(super) what: u64,
}

impl Attempt {
    /// Creates the object itself.
    pub(super) fn to_make() -> Self {
        Self { uid: String::new(), version: String::new(), what: 0 }
    }
}

/// When an attempt may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Now,
    Later(Instant),
    /// Not until the object or the desired status changes.
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Written,
    /// The object has changed.
    Outdated,
    /// Another manager has the fields, and keeps them.
    Owned,
    Failed,
}

impl Outcome {
    /// As the metrics show it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Outcome::Written => "written",
            Outcome::Outdated => "outdated",
            Outcome::Owned => "owned",
            Outcome::Failed => "failed",
        }
    }
}

/// One object.
struct Past {
    last: Attempt,
    /// Retrying the same is pointless.
    settled: bool,
    failures: u32,
    until: Instant,
    /// When the same was written, within [`TRUCE`].
    written: Vec<Instant>,
}

impl Past {
    fn new(attempt: &Attempt, now: Instant) -> Self {
        Self { last: attempt.clone(), settled: false, failures: 0, until: now, written: Vec::new() }
    }
}

/// The history of all writes.
pub(super) struct Pace {
    past: HashMap<Subject, Past>,
    tokens: f64,
    refilled: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { past: HashMap::new(), tokens: BURST, refilled: now }
    }

    /// Whether to proceed; `Now` counts.
    pub(super) fn ask(&mut self, subject: &Subject, attempt: &Attempt, now: Instant) -> When {
        if let Some(past) = self.past.get(subject).filter(|past| past.last.uid == attempt.uid) {
            if past.settled && past.last == *attempt {
                return When::Never;
            }
            if now < past.until && (past.last == *attempt || past.failures > 0) {
                return When::Later(past.until);
            }
            if past.last.what == attempt.what && past.written.len() >= QUARREL {
                let end = past.written[past.written.len() - QUARREL] + TRUCE;
                if now < end {
                    return When::Later(end);
                }
            }
        }
        self.tokens = (self.tokens + RATE * (now - self.refilled).as_secs_f64()).min(BURST);
        self.refilled = now;
        if self.tokens < 1.0 {
            return When::Later(now + PAUSE);
        }
        self.tokens -= 1.0;
        When::Now
    }

    /// Records the outcome of a write. Returns whether the same status was written so often that another writer must be
    /// active.
    pub(super) fn note(
        &mut self,
        subject: &Subject,
        attempt: Attempt,
        outcome: Outcome,
        now: Instant,
    ) -> bool {
        let past = self.past.entry(subject.clone()).or_insert_with(|| Past::new(&attempt, now));
        if past.last.uid != attempt.uid {
            *past = Past::new(&attempt, now);
        }
        if past.last.what != attempt.what {
            past.written.clear();
        }
        past.last = attempt;
        past.settled = matches!(outcome, Outcome::Written | Outcome::Owned);
        past.failures = match outcome {
            Outcome::Failed => past.failures.saturating_add(1),
            _ => 0,
        };
        past.until = match outcome {
            Outcome::Failed => now + RETRY.after(past.failures),
            Outcome::Outdated => now + AGAIN,
            _ => now,
        };
        past.written.retain(|at| now < *at + TRUCE);
        if outcome == Outcome::Written {
            past.written.push(now);
        }
        outcome == Outcome::Written && past.written.len() == QUARREL
    }

    /// Forgets objects that are gone.
    pub(super) fn keep(&mut self, exists: impl Fn(&Subject) -> bool) {
        self.past.retain(|subject, _| exists(subject));
    }
}

#[cfg(test)]
mod tests {
    use super::super::SubjectKind;
    use super::*;
    use crate::base::ObjectKey;
    use crate::source::objects::Kind;

    fn subject(name: &str) -> Subject {
        Subject::new(SubjectKind::Of(Kind::Service), ObjectKey::new("bookinfo", name))
    }

    fn attempt(version: &str, what: u64) -> Attempt {
        Attempt { uid: "one".into(), version: version.into(), what }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_server_made_nothing_of_is_not_tried_again() {
        let it = subject("it");
        for outcome in [Outcome::Written, Outcome::Owned] {
            let mut pace = Pace::new(Instant::now());
            assert_eq!(pace.ask(&it, &attempt("1", 1), Instant::now()), When::Now);
            pace.note(&it, attempt("1", 1), outcome, Instant::now());
            assert_eq!(pace.ask(&it, &attempt("1", 1), Instant::now()), When::Never);
            assert_eq!(pace.ask(&it, &attempt("2", 1), Instant::now()), When::Now);
            assert_eq!(pace.ask(&it, &attempt("1", 2), Instant::now()), When::Now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_with_growing_pauses_and_conflicts_at_once() {
        let mut pace = Pace::new(Instant::now());
        let it = subject("it");
        for pause in [PAUSE, PAUSE * 2, PAUSE * 4] {
            assert_eq!(pace.ask(&it, &attempt("1", 1), Instant::now()), When::Now);
            pace.note(&it, attempt("1", 1), Outcome::Failed, Instant::now());
            let again = When::Later(Instant::now() + pause);
            assert_eq!(pace.ask(&it, &attempt("1", 1), Instant::now()), again);
            // Something else to say is no reason to bother a server that fails.
            assert_eq!(pace.ask(&it, &attempt("2", 2), Instant::now()), again);
            tokio::time::advance(pause).await;
        }
        pace.note(&it, attempt("2", 1), Outcome::Outdated, Instant::now());
        assert_eq!(pace.ask(&it, &attempt("3", 1), Instant::now()), When::Now);
    }

    #[tokio::test(start_paused = true)]
    async fn two_writers_come_to_a_truce() {
        let mut pace = Pace::new(Instant::now());
        let it = subject("it");
        let told: Vec<bool> = (1..=3)
            .map(|version: u32| {
                let attempt = attempt(&version.to_string(), 1);
                assert_eq!(pace.ask(&it, &attempt, Instant::now()), When::Now);
                pace.note(&it, attempt, Outcome::Written, Instant::now())
            })
            .collect();
        assert_eq!(told, [false, false, true]);
        let end = When::Later(Instant::now() + TRUCE);
        assert_eq!(pace.ask(&it, &attempt("4", 1), Instant::now()), end);
        assert_eq!(pace.ask(&it, &attempt("4", 2), Instant::now()), When::Now);
        tokio::time::advance(TRUCE).await;
        assert_eq!(pace.ask(&it, &attempt("4", 1), Instant::now()), When::Now);
    }

    /// As by `kubectl replace --force`: the name stays, the object does not.
    #[tokio::test(start_paused = true)]
    async fn an_object_that_is_created_again_has_no_past() {
        let mut pace = Pace::new(Instant::now());
        let it = subject("it");
        for version in 1..=10 {
            let uid = format!("uid-{version}");
            let attempt = Attempt { uid, ..attempt(&version.to_string(), 1) };
            assert_eq!(pace.ask(&it, &attempt, Instant::now()), When::Now, "{version}");
            assert!(!pace.note(&it, attempt, Outcome::Written, Instant::now()), "{version}");
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        let failed = Attempt { uid: "failing".into(), ..attempt("11", 1) };
        pace.note(&it, failed.clone(), Outcome::Failed, Instant::now());
        assert_ne!(pace.ask(&it, &failed, Instant::now()), When::Now);
        assert_eq!(pace.ask(&it, &attempt("12", 1), Instant::now()), When::Now);
    }

    #[tokio::test(start_paused = true)]
    async fn all_writes_together_have_a_rate() {
        let mut pace = Pace::new(Instant::now());
        let mut now = 0;
        for index in 0..300 {
            let when = pace.ask(&subject(&index.to_string()), &attempt("1", 1), Instant::now());
            now += usize::from(when == When::Now);
        }
        assert_eq!(now, 100);
        tokio::time::advance(Duration::from_secs(1)).await;
        let again = (0..300).filter(|index| {
            let it = subject(&index.to_string());
            pace.ask(&it, &attempt("1", 1), Instant::now()) == When::Now
        });
        assert_eq!(again.count(), 50);
    }
}
