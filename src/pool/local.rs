//! The in-process path to a workload of this node, without a tunnel.
//!
//! Firewalls still apply: a pair of client and server uses this path only while a real connection from the client's network
//! namespace to the server's port 15008 succeeds, which is all that a NetworkPolicy or a firewall sees of an ambient mesh.
//! Otherwise the pool dials a tunnel, and the caller gets the tunnel's error.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use super::entry::Entry;
use super::{Pool, PoolError, TunnelKey, open_error};
use crate::sock::{self, SocketFactory};
use crate::tunnel::{Carrier, ConnectRequest, Incoming, LocalServer, TunnelError};

/// How long a successful connection is valid.
const FRESH: Duration = Duration::from_secs(5);
/// Up to this age the pair continues while another connection is tried: a firewall's change takes effect within this time.
const STALE: Duration = Duration::from_secs(10);

/// The state of the network between a client and a server of this node.
#[derive(Default)]
pub(super) struct Probe {
    passed: ArcSwapOption<Passed>,
    running: AtomicBool,
}

#[derive(Clone, Copy)]
struct Passed {
    at: Instant,
    /// The client's address, as the network showed it to the server.
    source: IpAddr,
}

impl Probe {
    /// The pair was used recently.
    pub(super) fn is_recent(&self) -> bool {
        self.passed.load().as_ref().is_some_and(|passed| passed.at.elapsed() < STALE)
    }
}

impl Pool {
    /// Registers a workload of this node, which accepts connections without a tunnel.
    pub fn add_local(&self, address: SocketAddr, server: std::sync::Weak<dyn LocalServer>) {
        if self.0.settings.in_process {
            self.0.locals.pin().insert(address, server);
        }
    }

    /// Removes it, but not its successor at this address.
    pub fn remove_local(&self, address: SocketAddr, server: &std::sync::Weak<dyn LocalServer>) {
        let locals = self.0.locals.pin();
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
        let server = self.0.locals.pin().get(&key.address)?.upgrade()?;
        if !server.proves(&key.server) {
            return None;
        }
        let source = self.probed(entry, key, sockets).await?;
        let port = request.forwarded_for.map_or(0, |client| client.port());
        let (incoming, answer) =
            Incoming::local(request.clone(), self.0.settings.rooms.of(&key.client_uid));
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
        let deadline = self.0.settings.connect_timeout;
        let passed = || entry.probe.passed.load().as_deref().copied();
        let recent = |passed: &Passed| passed.at.elapsed() < STALE;
        if let Some(passed) = passed().filter(recent) {
            if passed.at.elapsed() >= FRESH && !entry.probe.running.swap(true, Ordering::Relaxed) {
                let (entry, address, sockets) = (entry.clone(), key.address, sockets.clone());
                self.0.runtime.spawn(async move {
                    probe(&entry, address, sockets.as_ref(), deadline).await;
                    entry.probe.running.store(false, Ordering::Relaxed);
                });
            }
            return Some(passed.source);
        }
        let _one_at_a_time = entry.dialling.lock().await;
        if passed().filter(recent).is_none() {
            probe(entry, key.address, sockets.as_ref(), deadline).await;
        }
        passed().map(|passed| passed.source)
    }
}

async fn probe(entry: &Entry, to: SocketAddr, sockets: &dyn SocketFactory, deadline: Duration) {
    let connected = sock::connect(sockets, to, None, deadline).await;
    let source = connected.and_then(|stream| stream.local_addr());
    let passed = source
        .ok()
        .map(|source| Arc::new(Passed { at: Instant::now(), source: source.ip().to_canonical() }));
    entry.probe.passed.store(passed);
}
