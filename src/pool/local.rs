//! The in-process path to a workload of this node, without a tunnel.
//!
//! Firewalls still apply: a pair of client and server uses this path only while a real connection from the client's network
//! namespace to the server's port 15008 succeeds, which is all that a NetworkPolicy or a firewall sees of an ambient mesh.
//! Otherwise the pool dials a tunnel, and the caller gets the tunnel's error.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::entry::Entry;
use super::{Pool, PoolError, TunnelKey, open_error};
use crate::sock::SocketFactory;
use crate::tunnel::{Carrier, ConnectRequest, Incoming, LocalServer, TunnelError};

impl Pool {
    /// Registers a workload of this node, which accepts connections without a tunnel.
    pub fn add_local(&self, address: SocketAddr, server: std::sync::Weak<dyn LocalServer>) {
        if self.shared.settings.in_process {
            self.shared.locals.pin().insert(address, server);
        }
    }

    /// Removes it, but not its successor at this address.
    pub fn remove_local(&self, address: SocketAddr, server: &std::sync::Weak<dyn LocalServer>) {
        let locals = self.shared.locals.pin();
        if locals.get(&address).is_some_and(|known| known.ptr_eq(server)) {
            locals.remove(&address);
        }
    }

    /// `None`: not a workload of this node, or the network does not let this client reach it.
    pub(super) async fn open_local(
        &self,
        entry: &Arc<Entry>,
        key: &TunnelKey,
        sockets: &Arc<dyn SocketFactory>,
        request: &ConnectRequest,
    ) -> Option<Result<Carrier, PoolError>> {
        let server = self.shared.locals.pin().get(&key.address)?.upgrade()?;
        if !server.proves(&key.server) {
            return None;
        }
        let source = self.probed(entry, key, sockets).await?;
        let port = request.forwarded_for.map_or(0, |client| client.port());
        let (incoming, answer) =
            Incoming::local(request.clone(), self.shared.settings.rooms.of(&key.client_uid));
        server.connect_local(incoming, key.client.clone(), SocketAddr::new(source, port));
        let opened = match answer.await {
            Ok(Ok(carrier)) => Ok(carrier),
            Ok(Err(status)) => Err(TunnelError::Status(status)),
            // It left while it processed the request.
            Err(_) => Err(TunnelError::Closing),
        };
        Some(opened.map_err(|error| open_error(&request.authority, &error)))
    }

    async fn probed(
        &self,
        entry: &Arc<Entry>,
        key: &TunnelKey,
        sockets: &Arc<dyn SocketFactory>,
    ) -> Option<IpAddr> {
        let deadline = self.shared.settings.connect_timeout;
        if let Some(passed) = entry.probe.recent() {
            if entry.probe.is_due(passed) {
                let (entry, address, sockets) = (entry.clone(), key.address, sockets.clone());
                tokio::spawn(async move {
                    entry.probe.renew(address, sockets.as_ref(), deadline).await;
                });
            }
            return Some(passed.source);
        }
        let _one_at_a_time = entry.dialling.lock().await;
        if entry.probe.recent().is_none() {
            entry.probe.connect(key.address, sockets.as_ref(), deadline).await;
        }
        entry.probe.passed().map(|passed| passed.source)
    }
}
