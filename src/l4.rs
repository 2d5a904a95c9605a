//! Layer 4: everything that happens to a connection of a captured workload, from accept to record.
//!
//! There is one [`Proxy`] per workload, with listeners in the workload's network namespace. `outbound` carries what the
//! workload dials, `inbound` what arrives over HBONE, `plaintext` what arrives without; both of these end in `deliver`,
//! where nothing passes without a permit. Layer 4 does not parse HTTP: it hands such connections over through
//! [`Waypoints`]. `node` starts and stops proxies; nothing else calls this room.

mod deliver;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod inbound;
mod judged_by_name;
mod listen;
mod named;
mod outbound;
mod places;
mod plaintext;
mod routed;
mod shared_limits;
#[cfg(test)]
mod tests;
mod threads;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::{Room, Rooms, Str, ports};
use crate::config::Layer4Settings;
use crate::gate::{ArrivalClass, Gate};
use crate::identity::CertificateStore;
use crate::model::Workload;
use crate::pool::Pool;
use crate::quota::peers::{Peers, Speaker};
use crate::reach::{Reach, ReachSettings};
use crate::resolver::Resolver;
use crate::sock::{self, SocketFactory};
use crate::telemetry::Telemetry;
use crate::tunnel::{LocalServer, PeerTable, Waypoints};
use crate::world::{Judged, WorldStore};

pub use listen::ListenError;
pub use places::CONNECTION_BYTES;
use places::Places;
use threads::ThreadId;
pub use threads::Threads;

/// How long connections may take to end once they are cut; it takes them no waiting, only their turn on the processor.
const CUT: Duration = Duration::from_secs(2);

/// How many proxies were started: they take turns at the threads to accept on.
static STARTED: AtomicUsize = AtomicUsize::new(0);

/// What all proxies of this agent share.
pub struct Layer4 {
    pub settings: Layer4Settings,
    /// The cluster's name, for labels.
    pub cluster: Str,
    pub world: Arc<WorldStore>,
    pub pool: Pool,
    pub certificates: Arc<CertificateStore>,
    pub resolver: Arc<Resolver>,
    pub telemetry: Telemetry,
    pub waypoints: Arc<dyn Waypoints>,
    /// Who holds how many connections.
    pub peers: Arc<PeerTable>,
    /// Where nodes that share rate limits meet, without a controller.
    pub limit_peers: Arc<Peers>,
    /// What connections may hold.
    pub rooms: Rooms,
    pub threads: Threads,
}

impl Layer4 {
    /// The way to endpoints from each thread.
    fn reaches(&self) -> Vec<Reach> {
        let (connect_timeout, cluster) = (self.settings.connect_timeout, self.cluster.clone());
        let settings = ReachSettings { connect_timeout, cluster };
        let first = Reach::new(&self.world, &self.pool, &self.resolver, settings);
        self.threads.all().map(|thread| first.by(&thread.pool)).collect()
    }
}

/// Layer 4 of one workload.
pub struct Proxy {
    this: Weak<Self>,
    /// Where workloads of this node and others tunnel to.
    tunnels_to: Vec<SocketAddr>,
    shared: Arc<Layer4>,
    /// The workload is looked up anew for each connection: its labels, policies and waypoint change.
    uid: Str,
    sockets: Arc<dyn SocketFactory>,
    places: Places,
    /// Connections to the workload that are open, as they are judged.
    arrived: Arc<Judged<ArrivalClass, Gate>>,
    /// The way to endpoints for what the workload dials, from each thread.
    reaches: Vec<Reach>,
    /// Where its connections are accepted.
    accepts_on: ThreadId,
    room: Room,
    /// Fires first: nothing new is accepted, tunnels get GOAWAY.
    drain: CancellationToken,
    /// Fires last: what still runs is cut.
    cancel: CancellationToken,
    tasks: TaskTracker,
    /// What it listens on while it accepts: a successor takes these over.
    listening: Mutex<Vec<(u16, Weak<TcpListener>)>>,
}

impl Proxy {
    /// Listens in the workload's network namespace and serves until stopped. `inherited`: listening sockets of a
    /// predecessor in the same namespace, by port.
    pub fn start(
        shared: &Arc<Layer4>,
        workload: &Workload,
        sockets: Arc<dyn SocketFactory>,
        inherited: Vec<(u16, OwnedFd)>,
    ) -> Result<Arc<Self>, ListenError> {
        let tunnels_to = workload.addresses.iter();
        let tunnels_to = tunnels_to.map(|it| SocketAddr::new(*it, ports::HBONE)).collect();
        let proxy = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            tunnels_to,
            shared: shared.clone(),
            uid: workload.uid.clone(),
            sockets,
            places: Places::new(&shared.settings, &shared.peers),
            arrived: shared.world.judged(Some(&workload.uid)),
            reaches: shared.reaches(),
            accepts_on: shared.threads.accepting(STARTED.fetch_add(1, Ordering::Relaxed)),
            room: shared.rooms.of(&workload.uid),
            drain: CancellationToken::new(),
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
            listening: Mutex::default(),
        });
        proxy.clone().listen(inherited)?;
        for address in &proxy.tunnels_to {
            shared.pool.add_local(*address, proxy.as_local());
        }
        shared.limit_peers.add(&proxy.uid, proxy.as_speaker());
        Ok(proxy)
    }

    /// How many tasks (listeners and connections) still run.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// It has as many connections of one kind as it may: more wait in the listener's backlog, or are refused.
    pub fn is_full(&self) -> bool {
        self.places.is_full()
    }

    /// Descriptors of what it listens on, for a successor.
    pub fn listeners(&self) -> io::Result<Vec<(u16, OwnedFd)>> {
        let listening = self.listening.lock();
        let open = listening.iter().filter_map(|(port, socket)| Some((*port, socket.upgrade()?)));
        open.map(|(port, socket)| Ok((port, sock::duplicate(&*socket)?))).collect()
    }

    /// A successor accepts now: nothing new, GOAWAY in tunnels, and what is open goes on.
    pub fn retire(&self) {
        self.drain.cancel();
        self.forget_local();
        self.tasks.close();
    }

    /// Waits until the last connection of a proxy that was retired has ended.
    pub async fn ended(&self) {
        self.tasks.wait().await;
    }

    /// Stops accepting, sends GOAWAY, and gives connections until `deadline` to end before it cuts them.
    pub async fn stop(&self, deadline: Duration) {
        self.drain.cancel();
        self.forget_local();
        self.shared.pool.drain_workload(&self.uid);
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_err() {
            self.cancel.cancel();
            if tokio::time::timeout(CUT, self.tasks.wait()).await.is_err() {
                tracing::warn!(workload = %self.uid, tasks = self.tasks.len(), "some connections did not end when they were cut");
            }
        }
    }

    /// The way to endpoints from a thread.
    fn reach_from(&self, thread: ThreadId) -> &Reach {
        &self.reaches[thread.index()]
    }

    fn forget_local(&self) {
        for address in &self.tunnels_to {
            self.shared.pool.remove_local(*address, &self.as_local());
        }
        self.shared.limit_peers.remove(&self.uid, &self.as_speaker());
    }

    fn as_speaker(&self) -> Weak<dyn Speaker> {
        self.this.clone()
    }

    fn as_local(&self) -> Weak<dyn LocalServer> {
        self.this.clone()
    }

    /// The workload as the current world knows it; `None` once it is gone.
    fn workload(&self) -> Option<Arc<Workload>> {
        self.shared.world.load().workload(&self.uid).cloned()
    }
}
