//! Reaching an endpoint for a local client: through a tunnel when it is in the mesh, plainly when it is not.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Proxy;
use crate::base::{PolicyNote, Reason, Str, ports};
use crate::model::Workload;
use crate::pool::TunnelKey;
use crate::sock;
use crate::tunnel::{Baggage, Carrier, ConnectRequest};

/// Where one attempt goes.
pub(super) struct Hop {
    /// The endpoint's own address and port.
    pub(super) address: SocketAddr,
    pub(super) workload: Option<Arc<Workload>>,
}

/// Why an endpoint was not reached.
pub(super) struct Unreached {
    pub(super) reason: Reason,
    pub(super) why: String,
    /// What policies that decide nothing had to say, where they were judged here.
    pub(super) notes: Vec<PolicyNote>,
}

impl Unreached {
    pub(super) fn because(reason: Reason, why: String) -> Self {
        Self { reason, why, notes: Vec::new() }
    }
}

impl Hop {
    /// In the mesh: reached by HBONE only, never in the clear.
    pub(super) fn tunnelled(&self) -> Option<&Arc<Workload>> {
        self.workload.as_ref().filter(|workload| workload.is_captured())
    }

    /// The address that is dialled on the wire.
    pub(super) fn wire_address(&self) -> SocketAddr {
        match self.tunnelled() {
            Some(_) => SocketAddr::new(self.address.ip(), ports::HBONE),
            None => self.address,
        }
    }
}

impl Proxy {
    pub(super) async fn reach(
        &self,
        client: &Workload,
        client_address: SocketAddr,
        hop: &Hop,
        service: Option<&Str>,
    ) -> Result<Carrier, Unreached> {
        match hop.tunnelled() {
            Some(server) => {
                self.reach_by_tunnel(client, client_address, hop, server, service).await
            }
            None => self.reach_plainly(hop.address).await,
        }
    }

    async fn reach_by_tunnel(
        &self,
        client: &Workload,
        client_address: SocketAddr,
        hop: &Hop,
        server: &Workload,
        service: Option<&Str>,
    ) -> Result<Carrier, Unreached> {
        let key = TunnelKey {
            client: client.identity.clone(),
            client_uid: client.uid.clone(),
            server: server.identity.clone(),
            address: hop.wire_address(),
        };
        let request = ConnectRequest {
            authority: hop.address.to_string(),
            forwarded_for: Some(client_address),
            forwarded_host: service.cloned(),
            baggage: Some(Baggage::of(client, &self.shared.settings.cluster).to_string()),
        };
        let opened = self.shared.pool.open(&key, &self.sockets, &request).await;
        opened.map_err(|error| Unreached::because(error.reason, error.why))
    }

    async fn reach_plainly(&self, address: SocketAddr) -> Result<Carrier, Unreached> {
        let timeout = self.shared.settings.connect_timeout;
        let connected = sock::connect(self.sockets.as_ref(), address, None, timeout).await;
        connected.map(Carrier::Tcp).map_err(|error| {
            Unreached::because(Reason::ConnectFailure, format!("connect to {address}: {error}"))
        })
    }
}
