//! Watches, decides and writes, as long as this replica leads.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::Client;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::cache::Cache;
use super::feed::{Feeds, Heard, feeds};
use super::pace::{Attempt, Outcome, Pace, When};
use super::trouble::troubles;
use super::write::{self, Made, Written};
use super::{Desired, Desires, Subject, SubjectKind, View, desired, plan};
use crate::base::{Seldom, Str};
use crate::controller::Context;
use crate::controller::events::{self, Told, Trouble};
use crate::source::{TranslateSettings, translate};
use crate::telemetry::Telemetry;

/// The quiet time before statuses are computed: several changes are one.
const QUIET: Duration = Duration::from_millis(50);
/// The longest time that changes are collected if it never becomes quiet.
const GATHER_AT_MOST: Duration = Duration::from_millis(500);
/// The interval of full passes without a change: reminders, waiting Events.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// The interval while Events wait.
const NEXT_PORTION: Duration = Duration::from_secs(4);
/// The time after which the log names the kinds that are still awaited.
const PATIENCE: Duration = Duration::from_secs(15);
/// Concurrent writes.
const AT_ONCE: usize = 32;

/// Keeps all statuses current until `cancel` is cancelled. Only one replica may do this at a time.
pub async fn run(context: &Context, cancel: CancellationToken) {
    let mut runner = Runner::new(context);
    loop {
        let due = runner.changes.unwrap_or(runner.due).min(runner.due);
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = sleep_until(due) => runner.reconcile(),
            Some(done) = runner.running.next() => runner.finish(done),
            Some((watched, heard)) = runner.feeds.next() => runner.hear(watched, heard),
        }
    }
}

struct Runner {
    client: Client,
    settings: TranslateSettings,
    replica: Str,
    telemetry: Telemetry,
    feeds: Feeds,
    cache: Cache,
    pace: Pace,
    told: Told,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// The objects whose status is being written.
    writing: BTreeSet<Subject>,
    /// When the next full pass is due.
    due: Instant,
    /// When the changes are due, and when the first of them arrived.
    changes: Option<Instant>,
    begun: Option<Instant>,
    started: Instant,
    failing: Seldom,
    impatient: Seldom,
}

/// What ended.
enum Done {
    Status { subject: Subject, attempt: Attempt, written: Written },
    Object(Subject, Made),
    Event(Trouble, kube::Result<()>),
}

impl Runner {
    fn new(context: &Context) -> Self {
        let now = Instant::now();
        Self {
            feeds: feeds(&context.client, &context.translate.root_namespace),
            client: context.client.clone(),
            settings: context.translate.clone(),
            replica: context.replica.clone(),
            telemetry: context.telemetry.clone(),
            cache: Cache::default(),
            pace: Pace::new(now),
            told: Told::default(),
            running: FuturesUnordered::new(),
            writing: BTreeSet::new(),
            due: now + PATIENCE,
            changes: None,
            begun: None,
            started: now,
            failing: Seldom::new(),
            impatient: Seldom::new(),
        }
    }

    fn hear(&mut self, watched: SubjectKind, heard: Heard) {
        if let Heard::Failed(error) = &heard {
            if self.failing.is_due() {
                let kind = watched.name();
                tracing::warn!(
                    kind,
                    error,
                    "statuses: a watch failed; will retry; check that the API server is reachable, and that \
                     the controller's service account may list and watch the kind"
                );
            }
        } else if self.cache.hear(watched, heard) {
            self.gather();
        }
    }

    fn gather(&mut self) {
        let now = Instant::now();
        let begun = *self.begun.get_or_insert(now);
        self.changes = Some((now + QUIET).min(begun + GATHER_AT_MOST));
    }

    fn reconcile(&mut self) {
        let now = Instant::now();
        self.changes = None;
        self.begun = None;
        self.due = now + LOOK_AGAIN;
        if !self.cache.is_complete() {
            if now >= self.started + PATIENCE && self.impatient.is_due() {
                let missing: Vec<_> = self.cache.missing().map(SubjectKind::name).collect();
                tracing::warn!(
                    missing = missing.join(", "),
                    "statuses: still waiting for the initial lists; check that the controller's service \
                     account may list and watch these kinds"
                );
            }
            return;
        }
        let served = self.cache.served();
        let objects = self.cache.objects();
        let translation = translate(objects, &self.settings);
        let objects = self.cache.in_force();
        let view = View {
            objects,
            translation: &translation,
            settings: &self.settings,
            stored: self.cache.stored(),
            served: &served,
        };
        let desires = desired(&view);
        let due = self.told.due(troubles(&view, &desires), now);
        if !due.is_empty() {
            self.due = now + NEXT_PORTION;
        }
        for trouble in due {
            self.tell(trouble);
        }
        self.act(&desires, now);
    }

    fn act(&mut self, desires: &Desires, now: Instant) {
        let stored = self.cache.stored();
        self.pace.keep(|subject| {
            stored.contains_key(subject) || desires.missing.iter().any(|(it, _)| it == subject)
        });
        for (subject, object) in &desires.missing {
            let attempt = Attempt::to_make();
            if self.may_write(subject, &attempt, now) {
                let made = write::make(self.client.clone(), subject.clone(), object.clone());
                let subject = subject.clone();
                self.running.push(Box::pin(async { Done::Object(subject, made.await) }));
            }
        }
        for (subject, desired) in &desires.statuses {
            let Some(stored) = self.cache.stored().get(subject) else { continue };
            let Some(write) = plan(subject, stored, desired, &time()) else { continue };
            let (uid, version) = (stored.uid().to_owned(), stored.resource_version().to_owned());
            let attempt = Attempt { uid, version, what: hash(desired) };
            if self.may_write(subject, &attempt, now) {
                let written = write::status(self.client.clone(), subject.clone(), write);
                let subject = subject.clone();
                self.running.push(Box::pin(async {
                    let written = written.await;
                    Done::Status { subject, attempt, written }
                }));
            }
        }
    }

    /// Whether to write now; otherwise schedules another pass for when it is time.
    fn may_write(&mut self, subject: &Subject, attempt: &Attempt, now: Instant) -> bool {
        if self.writing.contains(subject) || self.writing.len() >= AT_ONCE {
            // Another pass follows when one ends.
            return false;
        }
        match self.pace.ask(subject, attempt, now) {
            When::Now => self.writing.insert(subject.clone()),
            When::Later(at) => {
                self.due = self.due.min(at);
                false
            }
            When::Never => false,
        }
    }

    fn tell(&self, trouble: Trouble) {
        let (client, replica) = (self.client.clone(), self.replica.clone());
        self.running.push(Box::pin(async move {
            let published = events::publish(&client, &replica, &trouble).await;
            Done::Event(trouble, published)
        }));
    }

    fn finish(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Event(_, Ok(())) => return,
            Done::Event(trouble, Err(error)) => {
                self.told.failed(&trouble);
                if self.failing.is_due() {
                    let error = error.to_string();
                    tracing::warn!(
                        error,
                        "cannot write an Event; check that the controller's service account may create, get \
                         and patch events.events.k8s.io"
                    );
                }
                return;
            }
            Done::Object(subject, made) => {
                self.writing.remove(&subject);
                let outcome = self.report_made(&subject, made);
                let attempt = Attempt::to_make();
                self.pace.note(&subject, attempt, outcome, now);
            }
            Done::Status { subject, attempt, written } => {
                self.writing.remove(&subject);
                self.finish_status(&subject, attempt, written, now);
            }
        }
        // Everything else that waits to be written.
        let soon = if self.writing.is_empty() { QUIET } else { GATHER_AT_MOST };
        self.due = self.due.min(now + soon);
    }

    fn finish_status(
        &mut self,
        subject: &Subject,
        attempt: Attempt,
        written: Written,
        now: Instant,
    ) {
        let outcome = match written {
            Written::Done(object) => {
                tracing::debug!(%subject, "status written");
                self.cache.written(subject, &attempt.version, object);
                Outcome::Written
            }
            Written::Outdated => Outcome::Outdated,
            Written::Owned(by) => {
                tracing::warn!(
                    %subject, by,
                    "leaving the status alone: another controller has written the same condition; check whether two \
                     meshes serve this object"
                );
                Outcome::Owned
            }
            Written::Failed(error) => {
                if self.failing.is_due() {
                    tracing::warn!(%subject, error, "cannot write a status; will retry");
                }
                Outcome::Failed
            }
        };
        self.telemetry.controller().write(outcome.name());
        if self.pace.note(subject, attempt, outcome, now) {
            tracing::warn!(
                %subject,
                "another writer keeps replacing this status; backing off for ten minutes; check for another controller \
                 with the same conditions"
            );
        }
    }

    fn report_made(&self, subject: &Subject, made: Made) -> Outcome {
        match made {
            // If the watch does not deliver it, it is created again.
            Made::Done => {
                tracing::info!(%subject, "created");
                Outcome::Outdated
            }
            Made::Failed(error) => {
                if self.failing.is_due() {
                    tracing::warn!(%subject, error, "object is missing and could not be created; will retry");
                }
                Outcome::Failed
            }
        }
    }
}

/// In the API's format, to the second.
fn time() -> String {
    let now = Timestamp::now();
    now.round(Unit::Second).unwrap_or(now).to_string()
}

fn hash(desired: &Desired) -> u64 {
    let mut hasher = DefaultHasher::new();
    desired.status.to_string().hash(&mut hasher);
    hasher.finish()
}
