//! One worker: a thread, a runtime, budgets, and the connections it was handed.

pub(in crate::l7) mod labels;
pub(in crate::l7) mod serve;

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Response;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::{Reason, Str, caught};
use crate::l7::Dependencies;
use crate::l7::budget::client::Client;
use crate::l7::budget::seats::{self, Seated, Seats};
use crate::l7::budget::{Full, Kind, QUEUE, Reserved, Scope, Share};
use crate::l7::destination::gates::Arrival;
use crate::l7::destination::kept::Arrivals;
use crate::l7::exchange::answer::Answer;
use crate::l7::message::detect::Version;
use crate::l7::message::{framing, refused};
use crate::l7::upstream::{self, Upstreams};
use crate::l7::{client, destination};
use crate::reach::Reach;
use crate::telemetry::WorkerHealth;
use crate::tunnel::{GuardedConnection, RoutedConnection};
use labels::Peers;

/// A connection that was handed over.
pub(in crate::l7) enum Job {
    Route(Box<RoutedConnection>),
    Guard(Box<GuardedConnection>),
}

/// A job with its place among the worker's connections.
struct Admitted {
    job: Job,
    seat: Seated,
    _waiting: Reserved,
}

/// A running worker, as the rest of the agent sees it.
pub(in crate::l7) struct Worker {
    context: Arc<Context>,
    jobs: mpsc::Sender<Admitted>,
    /// Ends everything at once.
    stop: CancellationToken,
    /// Cancelled when the thread has ended.
    finished: CancellationToken,
}

/// What the tasks of one worker share.
pub(in crate::l7) struct Context {
    pub(in crate::l7) namespace: Str,
    pub(in crate::l7) dependencies: Dependencies,
    pub(in crate::l7) seats: Arc<Seats>,
    pub(in crate::l7) upstreams: Upstreams,
    pub(in crate::l7) peers: Peers,
    /// The way to endpoints.
    pub(in crate::l7) reach: Reach,
    pub(in crate::l7) arrivals: Arrivals,
    pub(in crate::l7) drain: CancellationToken,
    /// Downstream connections, and what they turned into. The worker lives as long as these.
    connections: TaskTracker,
    /// Drivers of upstream connections, which end with the runtime at the latest.
    drivers: TaskTracker,
}

impl Job {
    fn client(&self) -> Client {
        match self {
            Job::Route(it) => Client::new(Some(&it.client.identity), it.client_address.ip()),
            Job::Guard(it) => Client::new(it.client.as_ref(), it.client_address.ip()),
        }
    }

    /// Closes the connection and records why.
    pub(in crate::l7) fn refuse(self, dependencies: &Dependencies, reason: Reason, why: &str) {
        let start = match &self {
            Job::Route(connection) => labels::routed(connection, &dependencies.cluster),
            Job::Guard(connection) => {
                let arrival = Arrival::of(connection);
                labels::arrived(&arrival, &dependencies.world.load(), &dependencies.cluster)
            }
        };
        dependencies.telemetry.refused(start, reason, why);
    }
}

impl Worker {
    pub(in crate::l7) fn start(namespace: Str, dependencies: Dependencies) -> io::Result<Self> {
        let context = Arc::new(Context::new(namespace, dependencies));
        let runtime = context.runtime()?;
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let (stop, finished) = (CancellationToken::new(), CancellationToken::new());
        let run = {
            let (context, stop) = (context.clone(), stop.clone());
            let finished = finished.clone().drop_guard();
            move || {
                tracing::info!(namespace = %context.namespace, "waypoint worker started");
                runtime.block_on(context.clone().run(inbox, stop));
                runtime.shutdown_background();
                tracing::info!(namespace = %context.namespace, "waypoint worker stopped");
                drop(finished);
            }
        };
        std::thread::Builder::new().name(thread_name(&context.namespace)).spawn(run)?;
        Ok(Self { context, jobs, stop, finished })
    }

    /// Hands a connection over, or gives it back with the reason.
    pub(in crate::l7) fn offer(&self, job: Job) -> Result<(), (Job, Reason, Cow<'static, str>)> {
        if self.context.drain.is_cancelled() {
            return Err((job, Reason::Draining, "the worker is shutting down".into()));
        }
        let seat = match self.context.seats.admit(job.client()) {
            Ok(seat) => seat,
            Err(why) => return Err((job, Reason::Overflow, why.into())),
        };
        let waiting = match seat.share().reserve(Kind::Waiting, 1) {
            Ok(waiting) => waiting,
            Err(full) => return Err((job, Reason::Overflow, seat.share().why(full).into())),
        };
        self.jobs.try_send(Admitted { job, seat, _waiting: waiting }).map_err(|error| {
            let why = "the namespace's worker does not keep up with new connections";
            (error.into_inner().job, Reason::Overflow, why.into())
        })
    }

    /// Takes connections: it neither drains nor has ended.
    pub(in crate::l7) fn is_open(&self) -> bool {
        !self.jobs.is_closed() && !self.context.drain.is_cancelled()
    }

    pub(in crate::l7) fn health(&self) -> WorkerHealth {
        WorkerHealth {
            namespace: self.context.namespace.to_string(),
            waiting: QUEUE - self.jobs.capacity(),
            ..self.context.seats.health()
        }
    }

    pub(in crate::l7) fn is_finished(&self) -> bool {
        self.finished.is_cancelled()
    }

    pub(in crate::l7) async fn finished(&self) {
        self.finished.cancelled().await;
    }

    /// Ends with the last connection.
    pub(in crate::l7) fn drain(&self) {
        self.context.drain.cancel();
    }

    /// Ends now.
    pub(in crate::l7) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Context {
    pub(in crate::l7) fn new(namespace: Str, dependencies: Dependencies) -> Self {
        Self {
            namespace,
            seats: Seats::new(&dependencies.settings, dependencies.telemetry.clone()),
            upstreams: Upstreams::default(),
            peers: Peers::new(dependencies.cluster.clone()),
            reach: dependencies.reach(),
            arrivals: Arrivals::new(dependencies.world.clone()),
            drain: CancellationToken::new(),
            connections: TaskTracker::new(),
            drivers: TaskTracker::new(),
            dependencies,
        }
    }

    /// What a connection may buffer, of either side, or why it cannot have it. Then others that rest give way.
    pub(in crate::l7) fn buffers(
        &self,
        share: &Arc<Share>,
        version: Version,
    ) -> Result<Reserved, String> {
        let reserved = share.connection(version).or_else(|full| {
            self.make_room(share, full);
            share.connection(version)
        });
        reserved.map_err(|full| share.why(full))
    }

    /// Why a response cannot be passed on.
    pub(in crate::l7) fn check_response<B>(&self, response: &Response<B>) -> Result<(), String> {
        framing::check_response(response, self.dependencies.settings.max_headers)
    }

    /// The answer where a request got no response from `address`: it left, or what it sent is none.
    pub(in crate::l7) fn broken(&self, address: SocketAddr, error: &hyper::Error) -> Answer {
        if !refused::breaks_rules(error) {
            return Answer::unreachable(Reason::PeerReset, format!("{address}: {error}"));
        }
        let found = refused::told(error, self.dependencies.settings.max_headers);
        Answer::bad_gateway(format!("{address}: the application's response: {found}"))
    }

    /// Has what rests give way: the client's own connections to applications at once, all of them when there is nothing
    /// left for anybody, and a connection of a client's.
    fn make_room(&self, share: &Arc<Share>, full: Full) {
        if share.may_make_room() {
            let client = (full.scope == Scope::Client).then_some(&share.client);
            if self.upstreams.make_room(client) == 0 {
                share.has_no_room();
            }
            self.seats.make_room(share, full);
        }
    }

    /// With one thread, all runs on the worker's own; with more, that one only takes what is handed over.
    fn runtime(&self) -> io::Result<Runtime> {
        let mut builder = match self.dependencies.settings.threads {
            0 | 1 => Builder::new_current_thread(),
            threads => {
                let mut builder = Builder::new_multi_thread();
                builder.worker_threads(threads).thread_name(thread_name(&self.namespace));
                builder
            }
        };
        builder.enable_all().build()
    }

    async fn run(self: Arc<Self>, mut inbox: mpsc::Receiver<Admitted>, stop: CancellationToken) {
        let mut sweep = tokio::time::interval(upstream::SWEEP);
        let mut rounds = tokio::time::interval(seats::ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let pool = self.seats.pool().clone();
        self.drive("heads that were read", async move { pool.unseen().forget().await });
        let pool = self.seats.pool().clone();
        self.drive("rounds of requests", async move { pool.rounds().turn().await });
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.drain.cancelled() => break,
                _ = sweep.tick() => {
                    self.upstreams.sweep();
                    self.arrivals.sweep();
                }
                _ = rounds.tick(), if !self.seats.is_empty() => self.seats.round(),
                admitted = inbox.recv() => match admitted {
                    Some(admitted) => self.begin(admitted),
                    None => break,
                },
            }
        }
        // What was handed over before the drain is served; it is asked to leave at once.
        inbox.close();
        while let Ok(admitted) = inbox.try_recv() {
            self.begin(admitted);
        }
        self.connections.close();
        loop {
            tokio::select! {
                () = self.connections.wait() => return,
                () = stop.cancelled() => return,
                _ = rounds.tick() => self.seats.round(),
            }
        }
    }

    fn begin(self: &Arc<Self>, Admitted { job, seat, .. }: Admitted) {
        let context = self.clone();
        match job {
            Job::Route(connection) => {
                self.spawn(
                    "outbound connection",
                    client::session::serve(context, connection, seat),
                );
            }
            Job::Guard(connection) => {
                self.spawn(
                    "inbound connection",
                    destination::session::serve(context, connection, seat),
                );
            }
        }
    }

    /// Runs a task that the worker waits for before it ends. A panic ends this task only.
    pub(in crate::l7) fn spawn(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.connections.spawn(isolated(self.namespace.clone(), what, task));
    }

    /// Runs a task that ends with the worker at the latest.
    pub(in crate::l7) fn drive(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.drivers.spawn(isolated(self.namespace.clone(), what, task));
    }
}

/// Turns a panic into a line in the log.
async fn isolated(namespace: Str, what: &'static str, task: impl Future<Output = ()>) {
    if let Err(text) = caught(task).await {
        tracing::error!(%namespace, "a task of the waypoint worker ({what}) panicked and was ended: {text}");
    }
}

/// The kernel keeps 15 bytes of a thread's name.
fn thread_name(namespace: &str) -> String {
    format!("l7-{namespace}").chars().take(15).collect()
}

/// Spawns what hyper needs for HTTP/2: the streams of a server's connection, the parts of a client's.
#[derive(Clone)]
pub(in crate::l7) enum Executor {
    Streams(Arc<Context>),
    Drivers(Arc<Context>),
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        match self {
            Executor::Streams(context) => context.spawn("HTTP/2 stream", future),
            Executor::Drivers(context) => context.drive("upstream HTTP/2 connection", future),
        }
    }
}
