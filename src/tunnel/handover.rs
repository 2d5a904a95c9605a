//! The handover from layer 4 to the workers of layer 7: connections with everything that is known about them.

use std::net::{IpAddr, SocketAddr};

use super::{Carrier, Cut, Incoming, PeerPlace};
use crate::base::{Held, Identity, Str};

/// A connection's slot among those of its workload, released when dropped. While it is held, a departing workload waits
/// for the end of the connection, up to the drain deadline, before its capture rules are removed.
#[derive(Default)]
pub struct Place {
    /// The permit of the connection limit.
    pub permit: Option<tokio::sync::OwnedSemaphorePermit>,
    /// The slot among the connections of one peer.
    pub peer: Option<PeerPlace>,
    pub tracked: Option<tokio_util::task::task_tracker::TaskTrackerToken>,
    /// The reservation from its workload's budget.
    pub held: Option<Held>,
}

/// A connection of a local client to a service with a waypoint: the worker routes its requests.
pub struct RoutedConnection {
    pub stream: tokio::net::TcpStream,
    pub client: std::sync::Arc<crate::model::Workload>,
    pub client_address: SocketAddr,
    /// The virtual address and port that the client dialled.
    pub dialled: SocketAddr,
    pub service: std::sync::Arc<crate::model::Service>,
    pub waypoint: std::sync::Arc<crate::model::Waypoint>,
    /// Sockets in the client's network namespace.
    pub sockets: std::sync::Arc<dyn crate::sock::SocketFactory>,
    pub place: Place,
    /// Cancelled when the workload leaves or the agent's drain deadline passes.
    pub cancel: tokio_util::sync::CancellationToken,
}

/// A connection to a local workload whose requests must be authorized one by one.
pub struct GuardedConnection {
    pub stream: Carrier,
    pub workload: std::sync::Arc<crate::model::Workload>,
    /// Proven by mutual TLS; `None` for plaintext.
    pub client: Option<crate::base::Identity>,
    pub client_address: SocketAddr,
    /// The workload's own address and port.
    pub destination: SocketAddr,
    /// The service that the tunnel's request named; it only selects policies.
    pub forwarded_host: Option<Str>,
    /// What the client's proxy says of a client that the mesh does not know; for labels.
    pub baggage: Option<Box<super::Baggage>>,
    /// The source address to borrow towards the application, if the kernel allows.
    pub borrow: Option<IpAddr>,
    /// Sockets in the workload's network namespace.
    pub sockets: std::sync::Arc<dyn crate::sock::SocketFactory>,
    pub place: Place,
    pub cut: Cut,
}

/// A workload of this node that accepts connections from other workloads of this node, without a tunnel.
pub trait LocalServer: Send + Sync + 'static {
    /// Whether its end of a tunnel would prove this identity.
    fn proves(&self, identity: &Identity) -> bool;
    /// Accepts what would be a stream in a tunnel; does not block, and answers as in a tunnel. `client`: the identity
    /// that a tunnel's client would have proven. `peer`: its address.
    fn connect_local(
        self: std::sync::Arc<Self>,
        incoming: Incoming,
        client: Identity,
        peer: SocketAddr,
    );
}

/// Where a worker has tunnels served whose requests it authorizes, so that their bytes wait for no other thread.
pub struct Home {
    /// The worker's own.
    pub runtime: tokio::runtime::Handle,
    /// Cancelled when the worker is not needed any more: tunnels must end with their last stream.
    pub drain: tokio_util::sync::CancellationToken,
    /// The worker lives as long as this does.
    pub held: tokio_util::task::task_tracker::TaskTrackerToken,
}

/// The workers of layer 7, as layer 4 sees them. No call blocks; a worker that is full rejects the connection,
/// records why, and closes it.
pub trait Waypoints: Send + Sync + 'static {
    fn route(&self, connection: RoutedConnection);
    /// `namespace`: the worker's namespace.
    fn guard(&self, namespace: &Str, connection: GuardedConnection);
    /// Where tunnels are served that lead to the worker of this namespace; `None` when there can be no worker.
    fn home(&self, namespace: &Str) -> Option<Home>;
}
