//! What one workload, and each of its peers, may hold at once.
//!
//! Outbound connections, inbound ones and tunnels have places of their own, so that none of them keeps the others out.
//! What finds no place waits where it can, in the listener's backlog, and is refused where it cannot, in a tunnel or
//! as one of a peer that has enough.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Layer4Settings, Proxy};
use crate::base::Seldom;
use crate::tunnel::{PeerPlace, PeerTable, Peers};

/// The places of one workload.
pub(super) struct Places {
    outbound: Arc<Semaphore>,
    inbound: Arc<Semaphore>,
    tunnels: Arc<Semaphore>,
    inbound_peers: Peers,
    tunnel_peers: Peers,
    /// By way.
    told_full: [Seldom; 3],
    told_peer: [Seldom; 3],
}

/// What arrives at one of the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Outbound,
    Plaintext,
    Tunnel,
}

impl Places {
    pub(super) fn new(settings: &Layer4Settings, peers: &Arc<PeerTable>) -> Self {
        let places = || Arc::new(Semaphore::new(settings.max_connections));
        Self {
            outbound: places(),
            inbound: places(),
            tunnels: places(),
            inbound_peers: peers.peers(settings.max_peer_connections),
            tunnel_peers: peers.peers(settings.max_peer_tunnels),
            told_full: Default::default(),
            told_peer: Default::default(),
        }
    }

    /// One of its kinds of connections has no place left.
    pub(super) fn is_full(&self) -> bool {
        let kinds = [&self.outbound, &self.inbound, &self.tunnels];
        kinds.iter().any(|places| places.available_permits() == 0)
    }

    fn of(&self, way: Way) -> &Arc<Semaphore> {
        match way {
            Way::Outbound => &self.outbound,
            Way::Plaintext => &self.inbound,
            Way::Tunnel => &self.tunnels,
        }
    }
}

impl Proxy {
    /// A place for a connection that was accepted, as soon as there is one; `None` when the proxy is cut
    /// meanwhile. Draining does not end the wait: whoever was accepted is served, by a predecessor in an upgrade, too.
    pub(super) async fn place(&self, way: Way) -> Option<OwnedSemaphorePermit> {
        let places = self.places.of(way);
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Some(place);
        }
        self.tell_full(way);
        tokio::select! {
            () = self.cancel.cancelled() => None,
            place = places.clone().acquire_owned() => place.ok(),
        }
    }

    /// The places of one connection in a tunnel, or why there is none.
    pub(super) fn stream_places(
        &self,
        peer: IpAddr,
    ) -> Result<(OwnedSemaphorePermit, PeerPlace), String> {
        let of_peer = self.peer_place(Way::Plaintext, peer)?;
        match self.places.inbound.clone().try_acquire_owned() {
            Ok(place) => Ok((place, of_peer)),
            Err(_) => {
                self.tell_full(Way::Plaintext);
                Err(format!(
                    "the workload has {} inbound connections, as many as it may (layer4.max_connections)",
                    self.shared.settings.max_connections
                ))
            }
        }
    }

    /// The place of one more inbound connection, or tunnel, of this peer, or why there is none.
    pub(super) fn peer_place(&self, way: Way, peer: IpAddr) -> Result<PeerPlace, String> {
        let (peers, what, setting) = match way {
            Way::Tunnel => (&self.places.tunnel_peers, "tunnels", "layer4.max_peer_tunnels"),
            _ => (&self.places.inbound_peers, "connections", "layer4.max_peer_connections"),
        };
        let limit = peers.limit();
        peers.enter(peer).ok_or_else(|| {
            self.shared.telemetry.agent().limited_connections.inc();
            if self.places.told_peer[way as usize].is_due() {
                tracing::warn!(
                    workload = %self.uid, %peer, limit, setting,
                    "a peer has as many {what} to this workload as one may; more of its are refused"
                );
            }
            format!(
                "{peer} has {limit} {what} to the workload, as many as one peer may ({setting})"
            )
        })
    }

    fn tell_full(&self, way: Way) {
        self.shared.telemetry.agent().limited_connections.inc();
        if self.places.told_full[way as usize].is_due() {
            let (what, more) = match way {
                Way::Outbound => ("outbound connections", "wait"),
                Way::Plaintext => ("inbound connections", "wait, and in tunnels are refused"),
                Way::Tunnel => ("tunnels", "wait"),
            };
            tracing::warn!(
                workload = %self.uid,
                limit = self.shared.settings.max_connections,
                setting = "layer4.max_connections",
                "a workload has as many {what} as it may; more {more}"
            );
        }
    }
}
