//! The agent's connection to the broker: only while a limit is shared by pods of this node. With a controller there is one for all
//! limits, without one a connection for each Service ([`peers`](super::peers)). While it cannot be made, each node has its part of each
//! limit, and the reason is told in the log, in `isthmus status` and by metrics.

mod in_force;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::sink::SinkExt;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::ROUND;
use super::messages::{EXCHANGE, MAX_MESSAGE, Orders, Report};
use super::peers::Peers;
use super::rounds::{Rounds, Tally};
use crate::base::{Backoff, ObjectKey, Seldom, Str};
use crate::identity::ControllerLink;
use crate::telemetry::SharedLimitMetrics;
use crate::world::WorldStore;

/// Between attempts to connect. Some fail because the replica that was reached does not lead; the next one may.
const RETRY: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5)).spread(0.5..=1.5);
/// How long a broker may take to answer a connection: the controller asks the API server who that is.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nodes meet where they should not before they try again.
const ELSEWHERE: Duration = Duration::from_secs(5);
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
    Up,
    /// Since then, and why.
    Away(Instant, String),
}

/// Where brokers are.
pub enum Brokers {
    /// At the controller that signs for the agents.
    Controller(Box<ControllerLink>),
    /// At the pods of each Service.
    Peers(Arc<Peers>),
}

/// The exchange of one agent.
pub struct Exchange {
    world: Arc<WorldStore>,
    node: Str,
    brokers: Brokers,
    /// By connection.
    states: Mutex<BTreeMap<Scope, State>>,
    metrics: SharedLimitMetrics,
    trouble: Seldom,
}

/// The limits of one connection: those of a Service; `None`: all.
type Scope = Option<ObjectKey>;

/// A connection that a broker has accepted.
struct Talk {
    to: mpsc::Sender<Report>,
    from: BoxStream<'static, Result<Orders, Status>>,
    /// When it is left for another one, where the nodes should meet.
    until: Option<Instant>,
}

impl State {
    /// Of several connections.
    fn merged<'a>(states: impl Iterator<Item = &'a Self>) -> Self {
        states.fold(Self::default(), |mut all, state| {
            let Self { link, limits, exchanged, tally, policies } = state;
            all.limits += limits;
            all.exchanged += exchanged;
            all.tally.add(*tally);
            all.policies.extend(policies.iter().cloned());
            all.link = match (&all.link, link) {
                (Link::Away(since, _), Link::Away(later, _)) if later >= since => return all,
                (Link::Away(..), Link::Up | Link::Unneeded) => return all,
                (Link::Up, Link::Unneeded) => Link::Up,
                _ => link.clone(),
            };
            all
        })
    }
}

impl Exchange {
    pub fn new(
        world: Arc<WorldStore>,
        node: Str,
        brokers: Brokers,
        metrics: SharedLimitMetrics,
    ) -> Self {
        Self { world, node, brokers, states: Mutex::default(), metrics, trouble: Seldom::new() }
    }

    /// For operators.
    pub fn state(&self) -> State {
        State::merged(self.states.lock().values())
    }

    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let exchanging = async {
            match &self.brokers {
                Brokers::Controller(_) => self.exchange(None).await,
                Brokers::Peers(_) => self.exchange_each().await,
            }
        };
        cancel.run_until_cancelled(exchanging).await;
    }

    /// Keeps a connection for each Service.
    async fn exchange_each(self: &Arc<Self>) {
        let mut changes = self.world.subscribe();
        let mut running: HashMap<ObjectKey, AbortOnDropHandle<()>> = HashMap::new();
        loop {
            changes.mark_unchanged();
            let limits = in_force::limits(&self.world.load(), &self.node, None);
            let services: BTreeSet<_> = limits.into_iter().map(|it| it.id.service).collect();
            running.retain(|service, _| services.contains(service));
            let is_running = |scope: &Scope| scope.as_ref().is_some_and(|it| services.contains(it));
            self.states.lock().retain(|scope, _| is_running(scope));
            for service in services {
                running.entry(service.clone()).or_insert_with(|| {
                    let exchange = self.clone();
                    let exchanging = async move { exchange.exchange(Some(service)).await };
                    AbortOnDropHandle::new(tokio::spawn(exchanging))
                });
            }
            if changes.changed().await.is_err() {
                return;
            }
            sleep(SETTLE).await;
        }
    }

    async fn exchange(&self, scope: Scope) {
        let (mut rounds, wake) = (Rounds::default(), Arc::new(Notify::new()));
        let mut changes = self.world.subscribe();
        let mut failures = 0;
        loop {
            self.follow(&scope, &mut rounds, &wake, &mut changes);
            if rounds.is_empty() {
                failures = 0;
                if changes.changed().await.is_err() {
                    return;
                }
                sleep(SETTLE).await;
                continue;
            }
            let why = match self.connect(&scope, failures).await {
                Ok(talk) => {
                    let begun = Instant::now();
                    let ended = self.talk(&scope, &mut rounds, talk, &wake, &mut changes).await;
                    // A connection that lasted is no failure.
                    failures = if begun.elapsed() > PATIENCE { 0 } else { failures };
                    match ended {
                        Ok(()) => {
                            failures = 0;
                            continue;
                        }
                        Err(why) => why,
                    }
                }
                Err(why) => why,
            };
            if rounds.is_empty() {
                continue;
            }
            failures += 1;
            self.away(&scope, why);
            self.count(&scope, &rounds);
            sleep(RETRY.after(failures)).await;
        }
    }

    /// Carries messages both ways until the connection is not wanted any more. An error is why it ended before.
    async fn talk(
        &self,
        scope: &Scope,
        rounds: &mut Rounds,
        mut talk: Talk,
        wake: &Arc<Notify>,
        changes: &mut watch::Receiver<u64>,
    ) -> Result<(), String> {
        rounds.begin();
        self.change(scope, |state| state.link = Link::Up);
        let mut next = Instant::now();
        let mut looked = next;
        let mut sleeps = false;
        let mut settled: Option<Instant> = None;
        loop {
            tokio::select! {
                heard = talk.from.next() => match heard {
                    Some(Ok(orders)) => {
                        let answer = rounds.hear(&orders, Instant::now());
                        talk.send(answer);
                        if !orders.refused.is_empty() {
                            self.count(scope, rounds);
                        }
                    }
                    None => return Err("the broker ended the connection".to_owned()),
                    Some(Err(status)) => return Err(told(&status)),
                },
                () = sleep_until(talk.until.unwrap_or(next)), if talk.until.is_some() => return Ok(()),
                () = wake.notified(), if sleeps => {
                    (next, sleeps) = (looked + ROUND, false);
                }
                () = sleep_until(next) => {
                    looked = Instant::now();
                    let report = rounds.look(looked);
                    talk.send(report);
                    self.count(scope, rounds);
                    sleeps = !rounds.is_active();
                    next = looked + if sleeps { SELDOM } else { ROUND };
                }
                changed = changes.changed(), if settled.is_none() => {
                    if changed.is_err() {
                        return Err("the agent ends".to_owned());
                    }
                    settled = Some(Instant::now() + SETTLE);
                }
                () = sleep_until(settled.unwrap_or(next)), if settled.is_some() => {
                    settled = None;
                    self.follow(scope, rounds, wake, changes);
                    if rounds.is_empty() {
                        return Ok(());
                    }
                    (next, sleeps) = (looked + ROUND, false);
                }
            }
        }
    }

    fn follow(
        &self,
        scope: &Scope,
        rounds: &mut Rounds,
        wake: &Arc<Notify>,
        changes: &mut watch::Receiver<u64>,
    ) {
        changes.mark_unchanged();
        let limits = in_force::limits(&self.world.load(), &self.node, scope.as_ref());
        self.change(scope, |state| {
            state.limits = limits.len();
            state.policies = limits.iter().map(|limit| limit.id.policy.clone()).collect();
            if limits.is_empty() {
                state.link = Link::Unneeded;
            }
        });
        rounds.follow(limits, wake);
        self.count(scope, rounds);
    }

    fn change<T>(&self, scope: &Scope, change: impl FnOnce(&mut State) -> T) -> T {
        change(self.states.lock().entry(scope.clone()).or_default())
    }

    fn count(&self, scope: &Scope, rounds: &Rounds) {
        let now = rounds.tally;
        let before = self.change(scope, |state| {
            state.exchanged = if state.link == Link::Up { rounds.exchanged() } else { 0 };
            std::mem::replace(&mut state.tally, now)
        });
        self.metrics.tokens("received", now.received - before.received);
        self.metrics.tokens("given", now.given - before.given);
        self.metrics.tokens("discarded", now.discarded - before.discarded);
    }

    fn away(&self, scope: &Scope, why: String) {
        let since = self.change(scope, |state| {
            let since = match &state.link {
                Link::Away(since, _) => *since,
                _ => Instant::now(),
            };
            state.link = Link::Away(since, why.clone());
            since
        });
        if since.elapsed() > TELL_AFTER && self.trouble.is_due() {
            let check = match self.brokers {
                Brokers::Controller(_) => "the controller runs and this node reaches its Service",
                Brokers::Peers(_) => "nodes reach each other's pods on port 15008",
            };
            tracing::warn!(
                why,
                "shared rate limits: this node cannot exchange tokens with others, so that each node has its part of each \
                 limit; check that {check}"
            );
        }
    }

    async fn connect(&self, scope: &Scope, failed: u32) -> Result<Talk, String> {
        match (&self.brokers, scope) {
            (Brokers::Controller(link), _) => connect_to_controller(link).await,
            (Brokers::Peers(peers), Some(service)) => {
                let (stream, is_first) = peers.dial(service, failed).await?;
                let until = (!is_first).then(|| Instant::now() + ELSEWHERE);
                let (mut orders, frames) = stream.split::<Bytes>();
                let (to, mut reports) = mpsc::channel::<Report>(QUEUE);
                // It ends with the sender, and takes its half of the connection with it.
                tokio::spawn(async move {
                    while let Some(report) = reports.recv().await {
                        if orders.send(Bytes::from(report.encode_to_vec())).await.is_err() {
                            return;
                        }
                    }
                });
                Ok(Talk { to, from: frames.map(read).boxed(), until })
            }
            (Brokers::Peers(_), None) => Err("a connection is for one Service".to_owned()),
        }
    }
}

/// A message of a broker at a pod.
fn read(frame: std::io::Result<BytesMut>) -> Result<Orders, Status> {
    let frame = frame.map_err(|error| Status::unavailable(error.to_string()))?;
    Orders::decode(frame).map_err(|error| Status::internal(error.to_string()))
}

impl Talk {
    fn send(&self, report: Option<Report>) {
        if let Some(report) = report {
            _ = self.to.try_send(report);
        }
    }
}

async fn connect_to_controller(link: &ControllerLink) -> Result<Talk, String> {
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
        Ok(Ok(answer)) => Ok(Talk { to, from: answer.into_inner().boxed(), until: None }),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn operators_hear_of_the_connection_that_is_away() {
        let up = State { link: Link::Up, limits: 2, exchanged: 2, ..State::default() };
        let since = Instant::now();
        let away = |after: u64, why: &str| State {
            link: Link::Away(since + Duration::from_secs(after), why.to_owned()),
            limits: 1,
            policies: [ObjectKey::new("shop", why)].into(),
            ..State::default()
        };
        let states = [up.clone(), away(2, "two"), away(1, "one"), State::default(), up.clone()];
        let merged = State::merged(states.iter());
        assert_eq!((merged.limits, merged.exchanged, merged.policies.len()), (6, 4, 2));
        assert_eq!(merged.link, away(1, "one").link);
        assert_eq!(State::merged([State::default(), up, State::default()].iter()).link, Link::Up);
        assert_eq!(State::merged([].iter()).link, Link::Unneeded);
    }
}
