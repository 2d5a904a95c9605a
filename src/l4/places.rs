//! What one workload, and each of its peers, may hold at once.
//!
//! Outbound connections, inbound ones and tunnels have places of their own, so that none of them keeps the others out.
//! What finds no place waits where it can, in the listener's backlog, and is refused where it cannot, in a tunnel or
//! as one of a peer that has enough.

use std::net::IpAddr;
use std::sync::Arc;

use std::time::Duration;

use tokio::sync::Semaphore;

use super::Proxy;
use crate::base::{Need, Seldom};
use crate::config::Layer4Settings;
use crate::tunnel::{PeerPlace, PeerTable, Peers, Place, TUNNEL_BYTES};

/// What is held for a connection whatever passes, in bytes: its task, its record, and two small chunks each
/// way, one that was read and one that waits to be sent.
pub const CONNECTION_BYTES: usize = 8 * 1024;
/// How often a connection that was accepted asks for room again.
const ROOM_PAUSE: Duration = Duration::from_millis(100);

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
    told_room: Seldom,
}

/// What arrives at one of the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Outbound,
    Plaintext,
    Tunnel,
}

impl Way {
    /// What is held for one of them.
    fn bytes(self) -> usize {
        match self {
            Way::Outbound | Way::Plaintext => CONNECTION_BYTES,
            Way::Tunnel => TUNNEL_BYTES,
        }
    }
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
            told_room: Seldom::new(),
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
    pub(super) async fn place(&self, way: Way) -> Option<Place> {
        if let Some(place) = self.place_now(way) {
            return Some(place);
        }
        tokio::select! {
            () = self.cancel.cancelled() => None,
            place = self.place_later(way) => place,
        }
    }

    fn place_now(&self, way: Way) -> Option<Place> {
        let permit = self.places.of(way).clone().try_acquire_owned().ok()?;
        let held = self.room.take(way.bytes(), Need::Place)?;
        let tracked = Some(self.tasks.token());
        Some(Place { permit: Some(permit), tracked, peer: None, held: Some(held) })
    }

    async fn place_later(&self, way: Way) -> Option<Place> {
        let places = self.places.of(way);
        if places.available_permits() == 0 {
            self.tell_full(way);
        }
        let permit = Some(places.clone().acquire_owned().await.ok()?);
        loop {
            if let Some(held) = self.room.take(way.bytes(), Need::Place) {
                let tracked = Some(self.tasks.token());
                return Some(Place { permit, tracked, peer: None, held: Some(held) });
            }
            self.tell_no_room();
            tokio::time::sleep(ROOM_PAUSE).await;
        }
    }

    /// The places of one connection in a tunnel, or why there is none.
    pub(super) fn stream_places(&self, peer: IpAddr) -> Result<Place, String> {
        let of_peer = self.peer_place(Way::Plaintext, peer)?;
        let permit = self.places.inbound.clone().try_acquire_owned().map_err(|_| {
            self.tell_full(Way::Plaintext);
            format!(
                "the workload has {} inbound connections, as many as it may (layer4.max_connections)",
                self.shared.settings.max_connections
            )
        })?;
        let held = self.room.take(Way::Plaintext.bytes(), Need::Place).ok_or_else(|| {
            self.tell_no_room();
            "the connections of the workload, or of all workloads, hold as much memory as they may \
             (layer4.max_workload_bytes, layer4.max_bytes)"
                .to_owned()
        })?;
        let tracked = Some(self.tasks.token());
        Ok(Place { permit: Some(permit), peer: Some(of_peer), tracked, held: Some(held) })
    }

    fn tell_no_room(&self) {
        self.shared.telemetry.agent().limited_connections.inc();
        if self.places.told_room.is_due() {
            tracing::warn!(
                workload = %self.uid,
                held = self.room.taken(),
                limit = self.room.limit(),
                held_by_all = self.shared.rooms.whole().taken(),
                limit_of_all = self.shared.rooms.whole().limit(),
                settings = "layer4.max_workload_bytes, layer4.max_bytes",
                "the connections of a workload, or of all, hold as much memory as they may; more wait, and in tunnels \
                 are refused"
            );
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
