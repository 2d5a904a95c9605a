//! Which workloads live on this node, and the start and end of their capture.
//!
//! Manifests say where workloads are, or the container runtime does, through its CNI plugin (`attach`) or when it is
//! queried (`sites`). Values that a pod can set itself prove nothing, and two claims to one namespace count as none. One task
//! compares the snapshot with what is captured and applies the difference: `plan` decides, `capture` acts. A failed
//! capture is retried; meanwhile the workload is reported as pending and the others continue. Only `app` calls this
//! room; admin reads [`Node::status`].
//!
//! Invariant: when a workload joins, the rules come last (its listeners exist and its certificate was requested); when
//! it leaves, they are removed first.

mod attach;
mod capture;
mod caught;
mod drains;
mod plan;
mod probes;
mod release;
mod rounds;
mod search;
mod sites;
mod turns;
mod uncaptured;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::Str;
use crate::config::DrainSettings;
use crate::dns::Dns;
use crate::l4::Layer4;
use crate::l7::Workers;
use crate::resolver::NameStatus;
use crate::sock::{self, NetworkNamespace};
use crate::takeover::{Inherited, Listener};
use crate::workloads::{ContainerRuntime, Registry};
use crate::world::World;
use capture::Captured;
use drains::Drains;
use plan::{Done, Sites, Step};
use probes::Probes;
use rounds::Rounds;
use search::Search;
use sites::LOST;
pub use turns::Turn;
use turns::Turns;
use uncaptured::Uncaptured;

/// The backoff after a failed capture, as in ztunnel.
const RETRY: Duration = Duration::from_secs(5);

/// The interval of checks of the namespaces: some system calls for each.
const LOOK: Duration = Duration::from_secs(2);

/// How many workloads join or leave concurrently: the kernel delays a change of rules until no packet is in flight, and such
/// delays may overlap.
const CONCURRENT: usize = 16;

/// The settings of this room.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// This node's name, as workloads name it.
    pub name: Str,
    /// `[drain]`
    pub drain: DrainSettings,
    /// On a cluster: the runtime that is asked for pods whose network namespace the agent was not told.
    pub runtime: Option<ContainerRuntime>,
}

/// The workloads of this node.
pub struct Node {
    settings: NodeSettings,
    layer4: Arc<Layer4>,
    dns: Arc<Dns>,
    workers: Arc<Workers>,
    registry: Arc<Registry>,
    /// The listening sockets of a predecessor.
    inherited: Arc<Inherited>,
    /// Network namespaces that are no workload's: the agent's own and the host's.
    host: Vec<sock::Place>,
    captured: Mutex<BTreeMap<Str, Arc<Captured>>>,
    uncaptured: Uncaptured,
    done: Mutex<Done>,
    search: Search,
    rounds: Rounds,
    turns: Turns,
    drains: Drains,
    probes: Probes,
}

/// One workload of this node, for dumps.
#[derive(Clone, Debug, serde::Serialize)]
pub struct WorkloadStatus {
    pub uid: Str,
    pub captured: bool,
    /// Tasks (listeners and connections) that serve it.
    pub tasks: usize,
    /// It is at its connection limit (`[layer4] max_connections`).
    pub full: bool,
    /// Why it is not captured, when it should be.
    pub error: Option<String>,
}

impl Node {
    pub fn new(
        settings: NodeSettings,
        layer4: Arc<Layer4>,
        dns: Arc<Dns>,
        workers: Arc<Workers>,
        inherited: Arc<Inherited>,
        registry: Registry,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            layer4,
            dns,
            workers,
            registry: Arc::new(registry),
            inherited,
            host: hosts_places(),
            captured: Mutex::default(),
            uncaptured: Uncaptured::default(),
            done: Mutex::default(),
            search: Search::default(),
            rounds: Rounds::default(),
            turns: Turns::default(),
            drains: Drains::default(),
            probes: Probes::default(),
        })
    }

    /// Follows the world until cancelled. Calls `settled` after each round, with whether nothing is pending.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken, mut settled: impl FnMut(bool)) {
        tokio::spawn(self.clone().watch_rules(cancel.clone()));
        let mut changes = self.layer4.world.subscribe();
        loop {
            let generation = *changes.borrow_and_update();
            // Generation 0 is the empty world before the source's first translation.
            if generation > 0 {
                let turn = self.turns.take();
                let Some(_turn) = cancel.run_until_cancelled(turn).await else { return };
                self.reconcile().await;
                settled(!self.uncaptured.has_failed());
            }
            let again = self.uncaptured.is_worth_another_attempt();
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if again => {}
                () = self.rounds.asked() => {}
                () = until(self.search.next()) => {}
                () = self.until_recreated() => {}
            }
        }
    }

    pub fn status(&self) -> Vec<WorkloadStatus> {
        let captured = self.captured.lock();
        let served = captured.values().map(|one| WorkloadStatus {
            uid: one.uid.clone(),
            captured: true,
            tasks: one.proxy.tasks(),
            full: one.proxy.is_full(),
            error: None,
        });
        let waiting = self.uncaptured.all(LOST).into_iter().map(|(uid, error)| WorkloadStatus {
            uid,
            captured: false,
            tasks: 0,
            full: false,
            error: Some(error),
        });
        served.chain(waiting).collect()
    }

    /// The answers of the workloads' resolvers for endpoints with names.
    pub fn names(&self) -> Vec<NameStatus> {
        self.layer4.resolver.names()
    }

    /// Drains all workloads. The rules stay, so that nothing gets in or out unprotected until an agent is back.
    pub async fn stop(&self) {
        let captured: Vec<_> = std::mem::take(&mut *self.captured.lock()).into_values().collect();
        let health = self.layer4.telemetry.health();
        health.workloads_stopped.inc_by(captured.len() as u64);
        for one in captured {
            let drain = self.settings.drain.deadline;
            self.drains.spawn(async move { one.proxy.stop(drain).await });
        }
        self.drains.wait().await;
    }

    /// Stops all changes, for a successor. Returns the listening sockets of every captured workload, and the turn, which the
    /// caller holds. Blocks.
    pub fn pause(&self) -> io::Result<(Vec<Listener>, Turn)> {
        let turn = self.turns.take_blocking();
        let mut listeners = Vec::new();
        for one in self.captured.lock().values() {
            let own = one.proxy.listeners()?.into_iter();
            listeners.extend(own.map(|(port, socket)| Listener {
                owner: one.uid.clone(),
                port,
                socket,
            }));
        }
        Ok((listeners, turn))
    }

    /// A successor serves every workload: this node accepts and changes nothing more. Open connections continue.
    pub fn retire(&self, turn: Turn) {
        self.turns.end_with(turn);
        self.captured.lock().values().for_each(|one| one.retire());
    }

    /// Waits for the last connection of a retired node.
    pub async fn ended(&self) {
        let captured: Vec<_> = self.captured.lock().values().cloned().collect();
        for one in captured {
            one.proxy.ended().await;
        }
    }

    async fn reconcile(self: &Arc<Self>) {
        self.rounds.begin();
        let world = self.layer4.world.snapshot();
        self.find_pods(&world).await;
        let (sites, refused) = self.sites(&world);
        self.note_refused(&refused);
        let recreated = self.recreated();
        let steps = {
            let captured = self.captured.lock();
            plan::plan(&world, (&sites, &refused), &captured, &self.done.lock(), &recreated)
        };
        self.forget_gone(&world, &sites);
        // A workload that moved leaves before it joins again.
        let (leaves, rest): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|step| matches!(step, Step::Leave(_) | Step::Close(..)));
        let _no_removal = self.drains.to_apply().await;
        for steps in [leaves, rest] {
            futures_util::stream::iter(steps)
                .for_each_concurrent(CONCURRENT, |step| self.carry_out(step))
                .await;
        }
        self.exempt_probes(&world).await;
        self.release_unused(&world, &sites);
        self.note_lost(&world);
        self.rounds.end();
    }

    /// Captured workloads whose namespace was recreated under the same name.
    fn recreated(&self) -> BTreeSet<Str> {
        let captured: Vec<_> = self.captured.lock().values().cloned().collect();
        let recreated = captured.iter().filter(|one| one.was_recreated());
        recreated.map(|one| one.uid.clone()).collect()
    }

    /// A recreated pod may have the same manifest, so only its namespace shows the difference.
    async fn until_recreated(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if !self.recreated().is_empty() {
                return;
            }
        }
    }

    async fn carry_out(self: &Arc<Self>, step: Step) {
        match step {
            Step::Leave(uid) => self.leave(&uid).await,
            Step::Join(workload, site) => self.join(&workload, site).await,
            Step::Adjust(workload) => self.adjust(&workload).await,
            Step::Clean(workload, site) => self.clean(&workload, &site).await,
            Step::Close(uid, site) => self.close(&uid, &site).await,
        }
    }

    /// Workloads that should no longer be captured are no longer pending either.
    fn forget_gone(&self, world: &World, sites: &Sites) {
        let here = |uid: &Str| {
            world.workload(uid).is_some_and(|workload| plan::wanted(workload, sites).is_some())
        };
        self.uncaptured.retain_failed(here);
        self.done.lock().cleaned.retain(|uid| world.workload(uid).is_some() && !here(uid));
    }

    /// Certificates and workers that no workload here needs any more.
    fn release_unused(&self, world: &World, sites: &Sites) {
        let here = Self::wanted_identities(world, sites);
        self.layer4.certificates.retain(&|identity| here.contains(identity));
        let is_served = |namespace: &str| {
            let mut waypoints = world.mesh.waypoints.iter();
            world.is_populated(namespace) || waypoints.any(|it| it.key.namespace == namespace)
        };
        self.workers.retain(&is_served);
    }
}

/// The network namespaces of this thread, and of process 1: without host processes in sight the latter is its own.
fn hosts_places() -> Vec<sock::Place> {
    let namespaces = [NetworkNamespace::own(), NetworkNamespace::open("/proc/1/ns/net")];
    namespaces.into_iter().filter_map(|namespace| namespace.ok()?.place().ok()).collect()
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
