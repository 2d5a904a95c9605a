//! Waypoint workers: layer 7 in the agent's own process.
//!
//! There is one worker per namespace, on its own thread with its own runtime, tunnels and budgets (connections, requests in
//! flight, buffered bytes). A request stays on that thread, from the client's connection to the tunnel, and at the destination
//! from the tunnel to the application. A namespace whose worker is saturated, leaks or panics slows neither layer 4 nor another
//! namespace: the kernel divides the CPU between the threads. Each client has a share of every budget, so that no
//! client takes a worker from the others (`l7/budget.rs`), and clients start connections and requests in turn (`l7/budget/fair.rs`). A
//! worker starts with the first connection and stops when `node` says that its namespace needs none any more.
//!
//! A waypoint has two halves. The client's half (`l7/client.rs`) takes a [`RoutedConnection`] and routes its requests: it
//! selects rule, backend and endpoint, applies filters, retries requests that were certainly not processed, and
//! records. The destination's half (`l7/destination.rs`) takes a [`GuardedConnection`] and authorizes each request on its own
//! facts; it trusts nobody. Both see plain HTTP/1.1 or HTTP/2; anything else is forwarded as bytes.
//!
//! The folders are a stack: `budget` < `message` (heads, bodies of requests) < `upstream` (connections to applications) <
//! `exchange` (a request until its response has ended, answers, filters) < `worker` (thread, connections) < `client` and
//! `destination`, which do not know each other. The worker does not know them either: [`Halves`] hands them to it.
//!
//! Layer 4 calls through [`Waypoints`]; neither call blocks. This room does not listen, capture or speak TLS. It
//! retries a request that may have reached an application only if the route configures it.

#[doc(hidden)]
pub mod bench;
mod budget;
mod client;
mod destination;
mod exchange;
pub mod explained;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod http1;
mod message;
mod tasks;
mod upstream;
mod version;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::base::{Reason, Str};
pub use crate::config::Layer7Settings as WorkerSettings;
use crate::pool::Pool;
use crate::reach::{Reach, ReachSettings};
use crate::resolver::Resolver;
use crate::telemetry::{Telemetry, WorkerHealth};
use crate::tunnel::{GuardedConnection, Home, RoutedConnection, Waypoints};
use crate::world::WorldStore;
use budget::seats::Seated;
use destination::gates::Inbound;
use destination::kept::Arrivals;
use worker::context::Context;
use worker::{Job, Serve, Worker};

/// What the workers use of the rooms below.
#[derive(Clone)]
pub struct Dependencies {
    pub world: Arc<WorldStore>,
    pub pool: Pool,
    pub resolver: Arc<Resolver>,
    pub telemetry: Telemetry,
    /// The cluster's name, for labels and baggage.
    pub cluster: Str,
    pub settings: WorkerSettings,
    /// Of a connection to an application or an endpoint.
    pub connect_timeout: Duration,
}

impl Dependencies {
    fn reach(&self) -> Reach {
        let (connect_timeout, cluster) = (self.connect_timeout, self.cluster.clone());
        let settings = ReachSettings { connect_timeout, cluster };
        Reach::new(&self.world, &self.pool, &self.resolver, settings)
    }
}

/// All workers of the agent.
pub struct Workers {
    dependencies: Dependencies,
    /// By namespace. Read for each connection, so without a lock.
    current: ArcSwap<HashMap<Str, Arc<Worker>>>,
    changing: Mutex<Changing>,
}

/// What only changes under the lock.
#[derive(Default)]
struct Changing {
    /// Workers that are not wanted any more and end with their last connection.
    leaving: Vec<Arc<Worker>>,
    draining: bool,
}

impl Workers {
    pub fn new(dependencies: Dependencies) -> Arc<Self> {
        Arc::new(Self { dependencies, current: ArcSwap::default(), changing: Mutex::default() })
    }

    /// Stops the workers of the namespaces that are not `wanted`; each ends with its last connection. For every
    /// change of the world: a namespace is wanted while it has a waypoint, or a local workload with HTTP policies.
    pub fn retain(&self, wanted: &dyn Fn(&str) -> bool) {
        let mut changing = self.changing.lock();
        changing.leaving.retain(|worker| !worker.is_finished());
        let current = self.current.load();
        if current.keys().all(|namespace| wanted(namespace)) {
            return;
        }
        let (stay, leave): (HashMap<_, _>, HashMap<_, _>) = current
            .iter()
            .map(|(namespace, worker)| (namespace.clone(), worker.clone()))
            .partition(|(namespace, _)| wanted(namespace));
        self.current.store(Arc::new(stay));
        for worker in leave.into_values() {
            worker.drain();
            changing.leaving.push(worker);
        }
    }

    /// Takes no connection any more, and asks the clients of those that exist to leave (`connection: close`,
    /// GOAWAY).
    pub fn drain(&self) {
        let mut changing = self.changing.lock();
        changing.draining = true;
        for worker in self.current.load().values() {
            worker.drain();
        }
    }

    /// Drains, and ends with the last connection or after `deadline`, whichever is first.
    pub async fn shutdown(&self, deadline: Duration) {
        self.drain();
        let mut workers: Vec<_> = self.current.load().values().cloned().collect();
        workers.append(&mut self.changing.lock().leaving);
        let all_finished = async {
            for worker in &workers {
                worker.finished().await;
            }
        };
        if tokio::time::timeout(deadline, all_finished).await.is_err() {
            for worker in &workers {
                worker.stop();
            }
        }
    }

    /// What each worker holds now, those that are ending left out.
    pub fn health(&self) -> Vec<WorkerHealth> {
        self.current.load().values().map(|worker| worker.health()).collect()
    }

    fn hand_over(&self, namespace: &Str, job: Job) {
        let worker = match self.worker(namespace) {
            Ok(worker) => worker,
            Err((reason, why)) => return refuse(job, &self.dependencies, reason, &why),
        };
        if let Err((job, reason, why)) = worker.offer(job) {
            refuse(job, &self.dependencies, reason, &why);
        }
    }

    /// The namespace's worker, started when there is none.
    fn worker(&self, namespace: &Str) -> Result<Arc<Worker>, (Reason, String)> {
        if let Some(worker) = self.current.load().get(namespace).filter(|worker| worker.is_open()) {
            return Ok(worker.clone());
        }
        let changing = self.changing.lock();
        if changing.draining {
            return Err((Reason::Draining, "the agent is shutting down".to_owned()));
        }
        let current = self.current.load();
        if let Some(worker) = current.get(namespace).filter(|worker| worker.is_open()) {
            return Ok(worker.clone());
        }
        let worker = Worker::start(
            namespace.clone(),
            self.dependencies.clone(),
            Halves::new(&self.dependencies),
        )
        .map_err(|error| {
            let why = format!(
                "the worker of namespace {namespace} could not start: {error}; check the limits on threads and open \
                 files"
            );
            tracing::error!("{why}");
            (Reason::Overflow, why)
        })?;
        let worker = Arc::new(worker);
        let mut next = HashMap::clone(&current);
        next.insert(namespace.clone(), worker.clone());
        self.current.store(Arc::new(next));
        Ok(worker)
    }
}

/// Both halves, for one worker.
struct Halves {
    /// What the requests of inbound connections must pass.
    arrivals: Arc<Arrivals>,
}

impl Halves {
    fn new(dependencies: &Dependencies) -> Self {
        Self { arrivals: Arc::new(Arrivals::new(dependencies.world.clone())) }
    }
}

impl Serve for Halves {
    fn begin(&self, context: &Arc<Context>, job: Job, seat: Seated) {
        let shared = context.clone();
        match job {
            Job::Route(connection) => {
                let served = client::connection::serve(shared, connection, seat);
                context.tasks.spawn("outbound connection", served);
            }
            Job::Guard(connection) => {
                let arrivals = self.arrivals.clone();
                let served = destination::connection::serve(shared, arrivals, connection, seat);
                context.tasks.spawn("inbound connection", served);
            }
        }
    }

    fn sweep(&self) {
        self.arrivals.sweep();
    }
}

/// Closes a connection that no worker takes, and records why.
fn refuse(job: Job, dependencies: &Dependencies, reason: Reason, why: &str) {
    let world = dependencies.world.load();
    let start = match &job {
        Job::Route(connection) => client::labels::routed(connection, &world, &dependencies.cluster),
        Job::Guard(connection) => {
            let inbound = Inbound::of(connection);
            destination::labels::arrived(&inbound, &world, &dependencies.cluster)
        }
    };
    dependencies.telemetry.refused(start, reason, why);
}

impl Waypoints for Workers {
    fn route(&self, connection: RoutedConnection) {
        let namespace = connection.waypoint.key.namespace.clone();
        self.hand_over(&namespace, Job::Route(Box::new(connection)));
    }

    fn guard(&self, namespace: &Str, connection: GuardedConnection) {
        self.hand_over(namespace, Job::Guard(Box::new(connection)));
    }

    fn home(&self, namespace: &Str) -> Option<Home> {
        Some(self.worker(namespace).ok()?.home())
    }
}

#[cfg(test)]
impl WorkerSettings {
    /// Roomy and quick.
    fn for_tests() -> Self {
        Self {
            max_connections: 100,
            max_requests: 100,
            max_buffered_bytes: 64 << 20,
            upgrades: vec!["websocket".into(), "chat".into()],
            detect_timeout: Duration::from_millis(200),
            ..Self::default()
        }
    }
}
