//! Which workloads live on this node, and the start and end of their capture.
//!
//! Where they are, manifests say, or the container runtime, by its CNI plugin (`attach`) or when it is asked (`sites`);
//! what a pod can set itself says nothing, and two claims to one namespace count as none.
//! One task compares what the world says with what is captured and carries out the difference: `plan` decides,
//! `capture` acts. A workload that could not be captured is tried again; meanwhile it is reported as pending and the
//! others go on. Called by `app` only; admin reads [`Node::status`].
//!
//! Invariant: the rules come last when a workload joins (its listeners stand and its certificate was asked for), and
//! go first when it leaves.

mod attach;
mod capture;
mod caught;
mod plan;
mod release;
mod sites;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::Str;
use crate::dns::Dns;
use crate::l4::Layer4;
use crate::l7::Workers;
use crate::redirect::{self, NodePlan, Place};
use crate::resolver::NameStatus;
use crate::sock::{self, NetworkNamespace};
use crate::takeover::{Inherited, Listener};
use crate::workloads::{ContainerRuntime, Refusal, Registry};
use crate::world::World;
use capture::Captured;
use plan::{Done, Sites, Step};
use sites::LOST;

/// How long after a failure a workload is tried again; ztunnel does the same.
const RETRY: Duration = Duration::from_secs(5);

/// How often the namespaces are looked at: some system calls for each.
const LOOK: Duration = Duration::from_secs(2);

/// How many workloads join or leave at the same time: the kernel lets a change of rules wait for a moment in which no
/// packet is under way, and such waits may overlap.
const CONCURRENT: usize = 16;

/// What the node may do.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// This node's name, as workloads name it.
    pub name: Str,
    /// How long the connections of a workload that leaves may go on.
    pub drain: Duration,
    /// Workloads are pods of a cluster: whoever started them is asked for those whose network namespace nobody told.
    pub runtime: Option<ContainerRuntime>,
}

/// How often what should be was compared with what is.
#[derive(Clone, Copy, Debug, Default)]
struct Rounds {
    begun: u64,
    ended: u64,
}

/// The workloads of this node.
pub struct Node {
    settings: NodeSettings,
    layer4: Arc<Layer4>,
    dns: Arc<Dns>,
    workers: Arc<Workers>,
    captured: Mutex<BTreeMap<Str, Arc<Captured>>>,
    /// Why a workload is not captured although it should be.
    pending: Mutex<BTreeMap<Str, String>>,
    registry: Arc<Registry>,
    /// Generations of pods that were looked for.
    looked_for: Mutex<BTreeSet<(Str, Str)>>,
    /// Pods that should be captured and are not found.
    lost: Mutex<BTreeSet<Str>>,
    /// Workloads whose namespace another one claims too.
    refused: Mutex<BTreeMap<Str, Refusal>>,
    /// When the next search is due, if anything is to be looked for.
    search_again: Mutex<Option<Instant>>,
    /// Until when a container runtime that did not answer is not asked.
    runtime_rests: Mutex<Option<Instant>>,
    /// Network namespaces that are no workload's: the agent's own and the host's.
    host: Vec<sock::Place>,
    rounds: watch::Sender<Rounds>,
    /// Asks for a round now.
    poke: Notify,
    done: Mutex<Done>,
    /// Whose probes are exempt; `None` at the start, when an agent before us may have left its rules.
    probes: Mutex<Option<Vec<IpAddr>>>,
    /// The counters of the node's own rules.
    watch: caught::Watch,
    leaving: TaskTracker,
    /// Shared by those that remove rules, exclusively for whoever applies them: one that left and came back at once must
    /// not lose the rules of its new capture.
    removal: Arc<tokio::sync::RwLock<()>>,
    /// What a predecessor listened on.
    inherited: Arc<Inherited>,
    /// Held by whoever changes what is captured, and by a successor that takes over.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The turn of a node that has been retired, which never ends.
    last_turn: Mutex<Option<Turn>>,
}

/// Nothing joins or leaves while it is held.
pub type Turn = tokio::sync::OwnedMutexGuard<()>;

/// One workload of this node, for dumps.
#[derive(Clone, Debug, serde::Serialize)]
pub struct WorkloadStatus {
    pub uid: Str,
    pub captured: bool,
    /// Tasks (listeners and connections) that serve it.
    pub tasks: usize,
    /// It has as many connections as it may (`[layer4] max_connections`).
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
            captured: Mutex::default(),
            pending: Mutex::default(),
            registry: Arc::new(registry),
            looked_for: Mutex::default(),
            lost: Mutex::default(),
            refused: Mutex::default(),
            search_again: Mutex::default(),
            runtime_rests: Mutex::default(),
            host: hosts_places(),
            rounds: watch::Sender::new(Rounds::default()),
            poke: Notify::new(),
            done: Mutex::default(),
            probes: Mutex::default(),
            watch: caught::Watch::default(),
            leaving: TaskTracker::new(),
            removal: Arc::default(),
            inherited,
            turn: Arc::default(),
            last_turn: Mutex::default(),
        })
    }

    /// Follows the world until cancelled; `settled` is called after each round, with whether nothing is pending.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken, mut settled: impl FnMut(bool)) {
        tokio::spawn(self.clone().watch_rules(cancel.clone()));
        let mut changes = self.layer4.world.subscribe();
        loop {
            let generation = *changes.borrow_and_update();
            // Generation 0 is the empty world before the source has spoken.
            if generation > 0 {
                let turn = self.turn.clone().lock_owned();
                let Some(_turn) = cancel.run_until_cancelled(turn).await else { return };
                self.reconcile().await;
                settled(self.pending.lock().is_empty());
            }
            let pending = !self.pending.lock().is_empty() || !self.lost.lock().is_empty();
            let search_again = *self.search_again.lock();
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if pending => {}
                () = self.poke.notified() => {}
                () = until(search_again) => {}
                () = self.until_made_anew() => {}
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
        let (pending, lost) = (self.pending.lock(), self.lost.lock());
        let refused = self.refused.lock();
        let lost = lost.iter().map(|uid| (uid, LOST.to_owned()));
        let refused = refused.iter().map(|(uid, why)| (uid, why.to_string()));
        let pending = pending.iter().map(|(uid, error)| (uid, error.clone()));
        let waiting = pending.chain(lost).chain(refused).map(|(uid, error)| WorkloadStatus {
            uid: uid.clone(),
            captured: false,
            tasks: 0,
            full: false,
            error: Some(error),
        });
        served.chain(waiting).collect()
    }

    /// What the workloads' resolvers said of endpoints with names.
    pub fn names(&self) -> Vec<NameStatus> {
        self.layer4.resolver.names()
    }

    /// Ends what is served within the drain time. The rules stay: until an agent is back nothing gets out or in
    /// unprotected.
    pub async fn stop(&self) {
        let captured: Vec<_> = std::mem::take(&mut *self.captured.lock()).into_values().collect();
        let health = self.layer4.telemetry.health();
        health.workloads_stopped.inc_by(captured.len() as u64);
        for one in captured {
            let drain = self.settings.drain;
            self.leaving.spawn(async move { one.proxy.stop(drain).await });
        }
        self.leaving.close();
        self.leaving.wait().await;
    }

    /// Stops all changes, for a successor: what every captured workload listens on, and the turn to hold on to. Blocks.
    pub fn pause(&self) -> io::Result<(Vec<Listener>, Turn)> {
        let turn = self.turn.clone().blocking_lock_owned();
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

    /// A successor serves every workload: accepts nothing more and changes nothing more. Open connections go on.
    pub fn retire(&self, turn: Turn) {
        *self.last_turn.lock() = Some(turn);
        self.captured.lock().values().for_each(|one| one.retire());
    }

    /// Waits for the last connection of a node that was retired.
    pub async fn ended(&self) {
        let captured: Vec<_> = self.captured.lock().values().cloned().collect();
        for one in captured {
            one.proxy.ended().await;
        }
    }

    async fn reconcile(self: &Arc<Self>) {
        self.rounds.send_modify(|rounds| rounds.begun += 1);
        let world = self.layer4.world.snapshot();
        self.find_pods(&world).await;
        let (sites, refused) = self.sites(&world);
        self.note_refused(&refused);
        let anew = self.made_anew();
        let steps = {
            let captured = self.captured.lock();
            plan::plan(&world, (&sites, &refused), &captured, &self.done.lock(), &anew)
        };
        self.forget_gone(&world, &sites);
        // A workload that moved leaves before it joins again.
        let (leaves, rest): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|step| matches!(step, Step::Leave(_) | Step::Close(..)));
        let _no_removal = self.removal.write().await;
        for steps in [leaves, rest] {
            futures_util::stream::iter(steps)
                .for_each_concurrent(CONCURRENT, |step| self.carry_out(step))
                .await;
        }
        self.exempt_probes(&world).await;
        self.release_unused(&world, &sites);
        self.note_lost(&world);
        self.rounds.send_modify(|rounds| rounds.ended = rounds.begun);
    }

    /// Captured workloads whose namespace was made anew under the same name.
    fn made_anew(&self) -> BTreeSet<Str> {
        let captured: Vec<_> = self.captured.lock().values().cloned().collect();
        let anew = captured.iter().filter(|one| one.was_made_anew());
        anew.map(|one| one.uid.clone()).collect()
    }

    /// A pod may come back with all that its manifest says, so that only its namespace tells.
    async fn until_made_anew(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if !self.made_anew().is_empty() {
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

    /// Workloads that the world no longer wants captured are not pending any more either.
    fn forget_gone(&self, world: &World, sites: &Sites) {
        let here = |uid: &Str| {
            world.workload(uid).is_some_and(|workload| plan::wanted(workload, sites).is_some())
        };
        self.pending.lock().retain(|uid, _| here(uid));
        self.done.lock().cleaned.retain(|uid| world.workload(uid).is_some() && !here(uid));
    }

    /// Certificates and workers that nobody here needs any more.
    fn release_unused(&self, world: &World, sites: &Sites) {
        let here = Self::wanted_identities(world, sites);
        self.layer4.certificates.retain(&|identity| here.contains(identity));
        let is_served = |namespace: &str| {
            let mut waypoints = world.mesh.waypoints.iter();
            world.is_populated(namespace) || waypoints.any(|it| it.key.namespace == namespace)
        };
        self.workers.retain(&is_served);
    }

    /// Probes of this node reach captured workloads unauthenticated, so that STRICT does not fail their health.
    async fn exempt_probes(&self, world: &World) {
        let mut workloads: Vec<IpAddr> = {
            let captured = self.captured.lock();
            let known = captured.keys().filter_map(|uid| world.workload(uid));
            // The kubelet probes a pod before the API has its address.
            let told = captured.values().flat_map(|one| one.site.addresses.iter().copied());
            known.flat_map(|workload| workload.addresses.iter().copied()).chain(told).collect()
        };
        workloads.sort_unstable();
        workloads.dedup();
        if self.probes.lock().as_ref() == Some(&workloads) {
            return;
        }
        let plan = NodePlan { workloads: workloads.clone() };
        // Without captured workloads nothing of the agent's stays on the node.
        let change = move || match plan.workloads.is_empty() {
            true => redirect::remove(Place::Node),
            false => redirect::apply(&redirect::plan_node(&plan)).map(drop),
        };
        match tokio::task::spawn_blocking(change).await {
            Ok(Ok(())) => *self.probes.lock() = Some(workloads),
            Ok(Err(error)) => {
                tracing::warn!(%error, "probes from this node are not exempt; those of STRICT workloads will fail");
            }
            Err(error) => tracing::error!(%error, "the rules for probes were not applied"),
        }
    }
}

/// Of the process's thread, and of the first process that it sees: without host processes in sight that is its own.
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
