//! Builds the agent: every room once, in reading order. The only file that knows all of them.
//!
//! Threads: `control` (the main one: source, certificates, node, admin), `layer4-N` (all connections of layer 4 and
//! every tunnel), and those of each waypoint worker, which `l7` starts and stops.

mod certificates;
mod cni;
mod controller;
mod dump;
mod explain;
mod issuers;
mod pod;
mod settings;
mod shared_limits;
mod source;
mod threads;
mod uninstall;
mod upgrade;
mod view;

use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::controller::run as run_controller;
pub use self::explain::Explain;
pub use self::settings::translate_settings;
use crate::admin::{Admin, Readiness, Servers, keep_ready_file};
use crate::base::Rooms;
use crate::config::{Settings, SourceKind};
use crate::dns::Dns;
use crate::jwks::Fetcher;
use crate::l4::{self, Layer4};
use crate::l7::{Dependencies, Workers};
use crate::model::Mesh;
use crate::node::Node;
use crate::observe::{self, Observe};
use crate::otlp::Exporter;
use crate::pool::Pool;
use crate::quota::client::Exchange;
use crate::quota::peers::Peers;
use crate::resolver::Resolver;
use crate::sock;
use crate::source::Source;
use crate::telemetry::{self, Logs, Telemetry};
use crate::workloads::{Ledger, Registry};
use crate::world::{World, WorldStore};
use certificates::Certificates;
use cni::Cni;
use explain::Explainer;
use settings::{
    LOG_FLUSH, addresses, fetch_settings, mesh_names, node_settings, pool_settings, series_limits,
};
use source::AnySource;
use threads::Threads;
use upgrade::{Own, Upgrade};
use view::View;

/// Runs the agent until SIGTERM, SIGINT or `POST /quitquitquit`, then drains.
///
/// # Errors
/// What kept it from starting, with the setting or file to check.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    let logs = telemetry::init_logs(
        &settings.log.level,
        settings.log.format,
        settings.log.max_queued_bytes,
    )?;
    telemetry::report_panics();
    sock::raise_file_limit();
    tell_memory(&settings);
    let layer4 = Threads::start(settings.layer4.threads)?;
    let control =
        Builder::new_current_thread().enable_all().build().context("start the control runtime")?;
    let ran = control.block_on(async {
        // From the start: a signal without a handler is lost to the first process of a container.
        let mut signals = Signals::listen()?;
        let upgrade = tokio::select! {
            upgrade = Upgrade::begin(&settings) => upgrade?,
            () = signals.told() => return Ok(()),
        };
        let agent = Agent::build(settings, logs.clone(), layer4.runtimes(), &upgrade)?;
        agent.run(upgrade, signals).await
    });
    drop(layer4);
    logs.flush(LOG_FLUSH);
    ran
}

/// The world that a mesh makes under these settings, without an agent.
pub fn world_of(mesh: Mesh, settings: &Settings) -> World {
    WorldStore::new(mesh_names(settings)).suppose(mesh)
}

/// What a memory limit must leave room for.
fn tell_memory(settings: &Settings) {
    const MIB: usize = 1024 * 1024;
    let bound = settings.memory_bound();
    let agent = bound.total(0);
    tracing::info!(
        agent_mib = agent / MIB,
        worker_mib = (bound.total(1) - agent) / MIB,
        "the most memory that the settings allow: of the agent, and more for each waypoint worker"
    );
}

/// All rooms of one agent.
struct Agent {
    settings: Settings,
    logs: Arc<Logs>,
    telemetry: Telemetry,
    observe: Arc<Observe>,
    /// The runtimes of layer 4.
    layer4: Vec<Handle>,
    world: Arc<WorldStore>,
    certificates: Certificates,
    pool: Pool,
    workers: Arc<Workers>,
    node: Arc<Node>,
    servers: Servers,
    exchange: Arc<Exchange>,
    source: AnySource,
}

impl Agent {
    fn build(
        settings: Settings,
        logs: Arc<Logs>,
        runtimes: &[Handle],
        upgrade: &Upgrade,
    ) -> anyhow::Result<Self> {
        let telemetry = Telemetry::with_limits(logs.clone(), series_limits(&settings));
        let remembered =
            observe::Limits { flows: settings.observe.flows, pairs: settings.observe.pairs };
        let observe = Observe::new(&telemetry, settings.node.clone(), remembered);
        let world = WorldStore::new(mesh_names(&settings));
        let certificates = Certificates::new(&settings, &telemetry)?;
        let rooms = Rooms::new(settings.layer4.max_bytes, settings.layer4.max_workload_bytes);
        let pool_settings = pool_settings(&settings, rooms.clone());
        let (first, others) = runtimes.split_first().context("layer 4 has no thread")?;
        let pool = Pool::new(pool_settings, certificates.store.clone(), first.clone());
        let resolver = Resolver::new(settings.dns.resolv_conf.clone(), world.clone());
        let workers = workers(&settings, &world, &pool, &resolver, &telemetry);
        let limit_peers = Peers::new(world.clone(), Handle::current());
        let layer4 = Arc::new(Layer4 {
            settings: settings.layer4.clone(),
            cluster: settings.cluster.clone(),
            world: world.clone(),
            pool: pool.clone(),
            certificates: certificates.store.clone(),
            resolver,
            telemetry: telemetry.clone(),
            waypoints: workers.clone(),
            peers: Arc::default(),
            limit_peers: limit_peers.clone(),
            rooms,
            threads: l4::Threads::new(&pool, first.clone(), others),
        });
        let dns = dns(&settings, &layer4);
        let node = Node::new(
            node_settings(&settings),
            layer4,
            dns,
            workers.clone(),
            upgrade.inherited.clone(),
            registry(&settings),
        );
        let servers = Servers::bind(addresses(&settings), &upgrade.inherited)?;
        Ok(Self {
            exchange: shared_limits::exchange(&settings, &world, &telemetry, &limit_peers)?,
            source: AnySource::new(&settings),
            settings,
            logs,
            telemetry,
            observe,
            layer4: runtimes.to_vec(),
            world,
            certificates,
            pool,
            workers,
            node,
            servers,
        })
    }

    fn view(&self) -> Arc<View> {
        Arc::new(View {
            settings: self.settings.clone(),
            world: self.world.clone(),
            certificates: self.certificates.store.clone(),
            pool: self.pool.clone(),
            node: self.node.clone(),
            telemetry: self.telemetry.clone(),
            workers: self.workers.clone(),
            source: self.source.last_read(),
            explainer: Explainer {
                world: self.world.clone(),
                objects: self.source.asked(),
                settings: translate_settings(&self.settings),
                observe: self.observe.clone(),
            },
            objects: self.source.asked(),
            shared_limits: self.exchange.clone(),
            complaints: Default::default(),
        })
    }

    fn admin(&self, readiness: Readiness, dump: Arc<View>, quit: CancellationToken) -> Admin {
        Admin {
            telemetry: self.telemetry.clone(),
            logs: self.logs.clone(),
            readiness,
            layer4: self.layer4.clone(),
            dump,
            observe: Some(self.observe.clone()),
            quit,
            scrapes: Default::default(),
        }
    }

    /// Starts what runs beside the data path until the agent ends.
    fn spawn_background(&self, tasks: &TaskTracker, cancel: &CancellationToken) {
        let exporter = Exporter::new(self.world.clone(), self.telemetry.clone());
        let keys = fetch_settings(&self.settings);
        let fetcher = Fetcher::new(self.world.clone(), &self.telemetry, keys);
        tasks.spawn(self.pool.clone().sweep(cancel.clone()));
        tasks.spawn(self.exchange.clone().run(cancel.clone()));
        tasks.spawn(exporter.run(cancel.clone()));
        tasks.spawn(fetcher.run(cancel.clone()));
    }

    /// Starts the followers of the world before the source that changes it, and stops them in reverse order.
    async fn run(self, upgrade: Upgrade, signals: Signals) -> anyhow::Result<()> {
        let (quit, cancel) = (CancellationToken::new(), CancellationToken::new());
        let readiness = Readiness::default();
        let (source_ready, node_ready) = (readiness.register("source"), readiness.register("node"));
        let view = self.view();
        self.telemetry.watch_runtimes("control", &[Handle::current()]);
        self.telemetry.watch_runtimes("layer4", &self.layer4);
        let tasks = TaskTracker::new();
        self.spawn_background(&tasks, &cancel);
        let admin_cancel = CancellationToken::new();
        let (questions, until) = (self.telemetry.cni().clone(), admin_cancel.child_token());
        let cni = Cni::start(&self.settings, &self.node, &readiness, questions, until);
        let own = Own {
            node: self.node.clone(),
            listeners: self.servers.listeners().context("the agent's own ports")?,
            admin: admin_cancel.clone(),
        };
        let file = self.settings.readiness.file.clone();
        file.map(|it| tasks.spawn(keep_ready_file(it, readiness.clone(), admin_cancel.clone())));
        let admin = self.admin(readiness, view.clone(), quit.clone());
        let admin_task = tokio::spawn(self.servers.serve(admin, admin_cancel.clone()));
        self.certificates.spawn(&tasks, &cancel);
        let removal = uninstall::follow(&self.settings, &tasks, &cancel);
        let (node, world) = (self.node.clone(), self.world.clone());
        let (serving, served) = tokio::sync::mpsc::channel(1);
        let cni_settled = cni.settled();
        let settled = move |all| {
            node_ready.set(all);
            cni_settled();
            _ = serving.try_send(()); // Only the first round matters.
        };
        tasks.spawn(node.run(cancel.clone(), settled));
        let publish = move |translation: crate::source::Translation| {
            view.heed(&translation.mesh, translation.complaints);
            world.publish(translation.mesh);
            source_ready.set(true);
        };
        let source = tokio::spawn(self.source.run(publish, cancel.clone()));

        tracing::info!(node = %self.settings.node, "the agent runs");
        let standby = upgrade.standby();
        let mut handed_over = Box::pin(upgrade.handed_over(served, own));
        let ended = until_told(signals, &quit, source, handed_over.as_mut()).await;
        // Terminated before it served: this tells the predecessor, which then continues.
        let _serving_on = (!standby.is_spare()).then_some(handed_over);
        let for_good = uninstall::before_the_end(&removal, &admin_cancel, &standby).await;
        cni.stop().await;
        tracing::info!(deadline = ?self.settings.drain.deadline, "draining");
        let leaving = uninstall::leave(&self.settings, &self.node, for_good);
        tokio::join!(leaving, self.workers.shutdown(self.settings.drain.deadline));
        self.pool.drain();
        cancel.cancel();
        tasks.close();
        tasks.wait().await;
        admin_cancel.cancel();
        admin_task.await.context("administration")?;
        tracing::info!("the agent ends");
        ended
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
        })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for a reason to stop: a signal, an operator, a source that failed, or a successor.
async fn until_told<E>(
    mut signals: Signals,
    quit: &CancellationToken,
    source: tokio::task::JoinHandle<Result<(), E>>,
    handed_over: impl Future<Output = Option<()>>,
) -> anyhow::Result<()>
where
    E: Into<anyhow::Error>,
{
    tokio::select! {
        () = signals.told() => Ok(()),
        () = quit.cancelled() => Ok(()),
        Some(()) = handed_over => Ok(()),
        ended = source => ended.context("the source")?.map_err(Into::into).context("the source"),
    }
}

/// The workers of layer 7.
fn workers(
    settings: &Settings,
    world: &Arc<WorldStore>,
    pool: &Pool,
    resolver: &Arc<Resolver>,
    telemetry: &Telemetry,
) -> Arc<Workers> {
    Workers::new(Dependencies {
        world: world.clone(),
        pool: pool.clone(),
        resolver: resolver.clone(),
        telemetry: telemetry.clone(),
        cluster: settings.cluster.clone(),
        settings: settings.layer7.clone(),
        connect_timeout: settings.layer4.connect_timeout,
    })
}

/// What is recorded of this node's pods, and kept for the next agent.
fn registry(settings: &Settings) -> Registry {
    let directory = settings.workloads.directory.join(&*settings.node);
    let is_told = settings.cni.enabled || settings.source.kind == SourceKind::Kubernetes;
    let ledger = is_told.then(|| Ledger::open(&directory)).and_then(|opened| match opened {
        Ok(ledger) => Some(ledger),
        Err(error) => {
            tracing::error!(
                directory = %directory.display(), %error,
                "where pods are cannot be kept for the agent's next start, which must ask the container runtime; check \
                 [workloads] directory"
            );
            None
        }
    });
    Registry::new(ledger)
}

fn dns(settings: &Settings, layer4: &Layer4) -> Arc<Dns> {
    Arc::new(Dns {
        settings: settings.dns.clone(),
        cluster_domain: settings.cluster_domain.clone(),
        alone: settings.source.kind == SourceKind::Directory,
        world: layer4.world.clone(),
        telemetry: layer4.telemetry.clone(),
        rooms: layer4.rooms.clone(),
        runtime: layer4.threads.first().clone(),
    })
}
