//! The agent's connection to the controller: only while a limit is shared by pods of this node. While there is none, or it
//! cannot be made, each node has its part of each limit, and the reason is told in the log, in `isthmus status` and by metrics.

mod in_force;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::ROUND;
use super::messages::{EXCHANGE, MAX_MESSAGE, Orders, Report};
use super::rounds::{Rounds, Tally};
use crate::base::{Backoff, ObjectKey, Seldom, Str};
use crate::identity::ControllerLink;
use crate::telemetry::SharedLimitMetrics;
use crate::world::WorldStore;

/// Between attempts to connect. Some fail because the replica that was reached does not lead; the next one may.
const RETRY: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5)).spread(0.5..=1.5);
/// How long the controller may take to answer a connection: it asks the API server who that is.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between looks at keys that lack nothing at the moment.
const SELDOM: Duration = Duration::from_secs(1);
/// How long changes of the mesh are gathered: each takes a look at all services.
const SETTLE: Duration = Duration::from_millis(250);
/// Messages that wait to be sent; what comes on top is lost, and asked for again.
const QUEUE: usize = 64;
/// For so long a connection may be away before the log tells: a new leader is found within seconds.
const TELL_AFTER: Duration = Duration::from_secs(15);

/// The state of the exchange, for operators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub link: Link,
    /// Limits that are shared by pods of this node.
    pub limits: usize,
    /// Of these, limits whose nodes exchange tokens. For the others each node has its part.
    pub exchanged: usize,
    pub tally: Tally,
    /// Policies with these limits.
    pub policies: BTreeSet<ObjectKey>,
}

/// The connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// No limit is shared by pods of this node.
    #[default]
    Unneeded,
    /// There is no controller to talk to: agents have another issuer of certificates.
    None,
    Up,
    /// Since then, and why.
    Away(Instant, String),
}

/// The exchange of one agent.
pub struct Exchange {
    world: Arc<WorldStore>,
    node: Str,
    /// `None` where no controller signs for the agent.
    link: Option<ControllerLink>,
    state: Arc<Mutex<State>>,
    metrics: SharedLimitMetrics,
    trouble: Seldom,
}

/// A connection that the controller has accepted.
struct Talk {
    to: mpsc::Sender<Report>,
    from: Streaming<Orders>,
}

impl Exchange {
    pub fn new(
        world: Arc<WorldStore>,
        node: Str,
        link: Option<ControllerLink>,
        metrics: SharedLimitMetrics,
    ) -> Self {
        Self { world, node, link, state: Arc::default(), metrics, trouble: Seldom::new() }
    }

    /// For operators; kept current while it runs.
    pub fn state(&self) -> Arc<Mutex<State>> {
        self.state.clone()
    }

    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        cancel.run_until_cancelled(self.exchange()).await;
    }

    async fn exchange(&self) {
        let (mut rounds, wake) = (Rounds::default(), Arc::new(Notify::new()));
        let mut changes = self.world.subscribe();
        let mut failures = 0;
        loop {
            self.follow(&mut rounds, &wake, &mut changes);
            let Some(link) = self.link.as_ref().filter(|_| !rounds.is_empty()) else {
                failures = 0;
                if changes.changed().await.is_err() {
                    return;
                }
                sleep(SETTLE).await;
                continue;
            };
            let why = match connect(link).await {
                Ok(talk) => {
                    let begun = Instant::now();
                    let ended = self.talk(&mut rounds, talk, &wake, &mut changes).await;
                    // A connection that lasted is no failure.
                    failures = if begun.elapsed() > PATIENCE { 0 } else { failures };
                    ended
                }
                Err(why) => why,
            };
            if rounds.is_empty() {
                continue;
            }
            failures += 1;
            self.away(why);
            self.count(&rounds);
            sleep(RETRY.after(failures)).await;
        }
    }

    /// Carries messages both ways until the connection ends; returns why it did.
    async fn talk(
        &self,
        rounds: &mut Rounds,
        mut talk: Talk,
        wake: &Arc<Notify>,
        changes: &mut watch::Receiver<u64>,
    ) -> String {
        rounds.begin();
        self.state.lock().link = Link::Up;
        let mut next = Instant::now();
        let mut looked = next;
        let mut sleeps = false;
        let mut settled: Option<Instant> = None;
        loop {
            tokio::select! {
                heard = talk.from.message() => match heard {
                    Ok(Some(orders)) => {
                        let answer = rounds.hear(&orders, Instant::now());
                        talk.send(answer);
                        if !orders.refused.is_empty() {
                            self.count(rounds);
                        }
                    }
                    Ok(None) => return "the controller ended the connection".to_owned(),
                    Err(status) => return told(&status),
                },
                () = wake.notified(), if sleeps => {
                    (next, sleeps) = (looked + ROUND, false);
                }
                () = sleep_until(next) => {
                    looked = Instant::now();
                    let report = rounds.look(looked);
                    talk.send(report);
                    self.count(rounds);
                    sleeps = !rounds.is_active();
                    next = looked + if sleeps { SELDOM } else { ROUND };
                }
                changed = changes.changed(), if settled.is_none() => {
                    if changed.is_err() {
                        return "the agent ends".to_owned();
                    }
                    settled = Some(Instant::now() + SETTLE);
                }
                () = sleep_until(settled.unwrap_or(next)), if settled.is_some() => {
                    settled = None;
                    self.follow(rounds, wake, changes);
                    if rounds.is_empty() {
                        return String::new();
                    }
                    (next, sleeps) = (looked + ROUND, false);
                }
            }
        }
    }

    fn follow(&self, rounds: &mut Rounds, wake: &Arc<Notify>, changes: &mut watch::Receiver<u64>) {
        changes.mark_unchanged();
        let limits = in_force::limits(&self.world.load(), &self.node);
        {
            let mut state = self.state.lock();
            state.limits = limits.len();
            state.policies = limits.iter().map(|limit| limit.id.policy.clone()).collect();
            if limits.is_empty() {
                state.link = Link::Unneeded;
            } else if self.link.is_none() {
                state.link = Link::None;
                return;
            }
        }
        rounds.follow(limits, wake);
        self.count(rounds);
    }

    fn count(&self, rounds: &Rounds) {
        let mut state = self.state.lock();
        state.exchanged = if state.link == Link::Up { rounds.exchanged() } else { 0 };
        let (before, now) = (state.tally, rounds.tally);
        self.metrics.tokens("received", now.received - before.received);
        self.metrics.tokens("given", now.given - before.given);
        self.metrics.tokens("discarded", now.discarded - before.discarded);
        state.tally = now;
    }

    fn away(&self, why: String) {
        let mut state = self.state.lock();
        let since = match &state.link {
            Link::Away(since, _) => *since,
            _ => Instant::now(),
        };
        if since.elapsed() > TELL_AFTER && self.trouble.is_due() {
            tracing::warn!(
                why,
                "shared rate limits: this node cannot exchange tokens with others, so that each node has its part of each \
                 limit; check that the controller runs and that this node reaches its Service"
            );
        }
        state.link = Link::Away(since, why);
    }
}

impl Talk {
    fn send(&self, report: Option<Report>) {
        if let Some(report) = report {
            _ = self.to.try_send(report);
        }
    }
}

async fn connect(link: &ControllerLink) -> Result<Talk, String> {
    let (channel, bearer) = link.open().await?;
    let mut client = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let (to, reports) = mpsc::channel(QUEUE);
    let reports = unfold(reports, |mut reports| async move {
        let report = reports.recv().await?;
        Some((report, reports))
    });
    let mut request = Request::new(reports);
    request.metadata_mut().insert("authorization", bearer);
    let answered = async {
        client.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let codec = ProstCodec::<Report, Orders>::default();
        client.streaming(request, PathAndQuery::from_static(EXCHANGE), codec).await
    };
    match timeout(PATIENCE, answered).await {
        Ok(Ok(answer)) => Ok(Talk { to, from: answer.into_inner() }),
        Ok(Err(status)) => Err(told(&status)),
        Err(_) => Err(format!("the controller does not answer within {PATIENCE:?}")),
    }
}

/// In one line.
fn told(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => "the controller is of a version that exchanges no tokens".to_owned(),
        code => format!("{}: {:?}", code.description(), status.message()),
    }
}
