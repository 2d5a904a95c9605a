//! One worker: a thread, a runtime, budgets, and the connections it was handed.

pub(in crate::l7) mod authorizer;
mod circuit;
pub(in crate::l7) mod context;
pub(in crate::l7) mod guards;
pub(in crate::l7) mod labels;
mod limiter;
pub(in crate::l7) mod serve;

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::base::{Reason, Str};
use crate::l7::budget::client::Client;
use crate::l7::budget::seats::{self, Seated};
use crate::l7::budget::{Kind, QUEUE, Reserved};
use crate::l7::{Dependencies, upstream};
use crate::telemetry::WorkerHealth;
use crate::tunnel::{GuardedConnection, Home, RoutedConnection};
use crate::world::World;
use context::Context;

/// What serves a worker's connections: the two halves of a waypoint, which stand above the worker. One table for each worker,
/// asked once for each connection.
pub(in crate::l7) trait Serve: Send + 'static {
    /// Begins to serve a connection, in a task of the worker.
    fn begin(&self, context: &Arc<Context>, job: Job, seat: Seated);

    /// Forgets what is kept for connections that are gone.
    fn sweep(&self);
}

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
    runtime: Handle,
    jobs: mpsc::Sender<Admitted>,
    /// Ends everything at once.
    stop: CancellationToken,
    /// Cancelled when the thread has ended.
    finished: CancellationToken,
}

/// What the worker's own thread runs.
struct Running<S> {
    context: Arc<Context>,
    halves: S,
    inbox: mpsc::Receiver<Admitted>,
    stop: CancellationToken,
}

impl Job {
    fn client(&self, world: &World) -> Client {
        match self {
            Job::Route(it) => Client::local(&it.client, it.client_address.ip()),
            Job::Guard(it) => Client::arrived(world, it.client.as_ref(), it.client_address.ip()),
        }
    }
}

impl Worker {
    pub(in crate::l7) fn start(
        namespace: Str,
        dependencies: Dependencies,
        halves: impl Serve,
    ) -> io::Result<Self> {
        let runtime = runtime(&namespace, dependencies.settings.threads)?;
        let pool = dependencies.pool.on(runtime.handle().clone());
        let context = Arc::new(Context::new(namespace, Dependencies { pool, ..dependencies }));
        let handle = runtime.handle().clone();
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let (stop, finished) = (CancellationToken::new(), CancellationToken::new());
        let run = {
            let running = Running { context: context.clone(), halves, inbox, stop: stop.clone() };
            let (namespace, finished) =
                (context.namespace().clone(), finished.clone().drop_guard());
            move || {
                tracing::info!(%namespace, "waypoint worker started");
                runtime.block_on(running.run());
                runtime.shutdown_background();
                tracing::info!(%namespace, "waypoint worker stopped");
                drop(finished);
            }
        };
        std::thread::Builder::new().name(thread_name(context.namespace())).spawn(run)?;
        Ok(Self { context, runtime: handle, jobs, stop, finished })
    }

    /// One that takes nothing before the future is polled, in the runtime of a test.
    #[cfg(test)]
    pub(in crate::l7) fn idle(
        namespace: Str,
        dependencies: Dependencies,
        halves: impl Serve,
    ) -> (Self, impl Future<Output = ()>) {
        let context = Arc::new(Context::new(namespace, dependencies));
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let (stop, finished) = (CancellationToken::new(), CancellationToken::new());
        let running = Running { context: context.clone(), halves, inbox, stop: stop.clone() };
        (Self { context, runtime: Handle::current(), jobs, stop, finished }, running.run())
    }

    /// Hands a connection over, or gives it back with the reason.
    pub(in crate::l7) fn offer(&self, job: Job) -> Result<(), (Job, Reason, Cow<'static, str>)> {
        if self.context.drain.is_cancelled() {
            return Err((job, Reason::Draining, "the worker is shutting down".into()));
        }
        let client = job.client(&self.context.dependencies.world.load());
        let seat = match self.context.seats.admit(client) {
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

    /// Where tunnels are served that lead here.
    pub(in crate::l7) fn home(&self) -> Home {
        let (runtime, drain) = (self.runtime.clone(), self.context.drain.clone());
        Home { runtime, drain, held: self.context.tasks.token() }
    }

    /// Takes connections: it neither drains nor has ended.
    pub(in crate::l7) fn is_open(&self) -> bool {
        !self.jobs.is_closed() && !self.context.drain.is_cancelled()
    }

    pub(in crate::l7) fn health(&self) -> WorkerHealth {
        WorkerHealth {
            namespace: self.context.namespace().to_string(),
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

impl<S: Serve> Running<S> {
    async fn run(mut self) {
        let context = self.context.clone();
        let mut sweep = tokio::time::interval(upstream::SWEEP);
        let mut rounds = tokio::time::interval(seats::ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (seats, tasks) = (&context.seats, &context.tasks);
        let pool = seats.pool().clone();
        tasks.drive("heads that were read", async move { pool.unseen().forget().await });
        let pool = seats.pool().clone();
        tasks.drive("rounds of requests", async move { pool.rounds().turn().await });
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = context.drain.cancelled() => break,
                _ = sweep.tick() => {
                    let world = context.dependencies.world.load();
                    context.upstreams.sweep(&world.mesh.observation);
                    self.halves.sweep();
                }
                _ = rounds.tick(), if !seats.is_empty() => seats.round(),
                admitted = self.inbox.recv() => match admitted {
                    Some(admitted) => self.begin(admitted),
                    None => break,
                },
            }
        }
        // What was handed over before the drain is served; it is asked to leave at once.
        self.inbox.close();
        while let Ok(admitted) = self.inbox.try_recv() {
            self.begin(admitted);
        }
        tasks.close();
        loop {
            tokio::select! {
                () = tasks.ended() => return,
                () = self.stop.cancelled() => return,
                _ = rounds.tick() => seats.round(),
            }
        }
    }

    fn begin(&self, Admitted { job, seat, .. }: Admitted) {
        self.halves.begin(&self.context, job, seat);
    }
}

/// With one thread, all runs on the worker's own; with more, that one only takes what is handed over.
fn runtime(namespace: &str, threads: usize) -> io::Result<Runtime> {
    let mut builder = match threads {
        0 | 1 => Builder::new_current_thread(),
        threads => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads).thread_name(thread_name(namespace));
            builder
        }
    };
    builder.enable_all().build()
}

/// The kernel keeps 15 bytes of a thread's name.
fn thread_name(namespace: &str) -> String {
    format!("l7-{namespace}").chars().take(15).collect()
}
