//! The connection pool of tunnels, shared by layer 4 and all workers of layer 7.
//!
//! A tunnel is driven where its streams are used: each runtime has tunnels of its own ([`Pool::on`]), so that no byte waits for
//! another thread. Limits, certificates and workloads of this node are the same for all of them.
//!
//! Invariants: a tunnel belongs to one client workload and one server identity, so two clients never share one; there
//! is one dial at a time per key and runtime, and callers that waited for a failed dial get its failure instead of dialling again;
//! a tunnel that the server closes because of our certificate is a failure too; a stream slot is free as soon as its
//! stream has ended; a tunnel with a certificate that was rotated since takes no new streams. This room does not select
//! endpoints and does not retry: its callers do.

mod alert;
mod dial;
mod entry;
mod local;
mod probe;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::{Identity, Reason, Rooms, Str};
use crate::config;
use crate::identity::{CertificateStore, WorkloadCertificate};
use crate::sock::SocketFactory;
use crate::tunnel::{Carrier, ConnectRequest, LocalServer, TunnelError};
use entry::Entry;

/// The most attempts at a stream: other callers may take every slot of a new tunnel first, but a peer that closes each tunnel
/// at once must not be dialled forever.
const MAX_ROUNDS: usize = 8;

/// The key of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelKey {
    /// The client's own identity.
    pub client: Identity,
    /// The client workload, whose network namespace the tunnel is dialled from.
    pub client_uid: Str,
    /// The identity that the other end must prove.
    pub server: Identity,
    /// `pod address:15008`.
    pub address: SocketAddr,
}

/// The limits of the pool.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// `[pool]`
    pub tunnels: config::PoolSettings,
    /// The timeout of TCP, and again of the TLS handshake.
    pub connect_timeout: Duration,
    /// Bytes between workloads of one node stay in the process (`same_node`).
    pub in_process: bool,
    /// The memory budget of tunnels and of their streams' windows.
    pub rooms: Rooms,
}

/// Why a tunnel or a stream in it could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub struct PoolError {
    pub reason: Reason,
    /// For the log: what failed and what to check.
    pub why: String,
}

/// The pool, as callers of one runtime see it; cheap to clone.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
    site: Arc<Site>,
}

/// What all runtimes share.
struct Shared {
    settings: PoolSettings,
    certificates: Arc<CertificateStore>,
    /// The workloads of this node, by `pod address:15008`.
    locals: papaya::HashMap<SocketAddr, Weak<dyn LocalServer>>,
    /// Those of runtimes that have ended are removed with the next one.
    sites: Mutex<Vec<Weak<Site>>>,
}

/// The tunnels of one runtime, which drives them.
struct Site {
    runtime: Handle,
    entries: papaya::HashMap<TunnelKey, Arc<Entry>>,
}

impl Pool {
    /// With the first runtime's tunnels.
    pub fn new(
        settings: PoolSettings,
        certificates: Arc<CertificateStore>,
        runtime: Handle,
    ) -> Self {
        let (locals, sites) = (papaya::HashMap::new(), Mutex::default());
        let shared = Arc::new(Shared { settings, certificates, locals, sites });
        let site = shared.site(runtime);
        Self { shared, site }
    }

    /// The pool for callers of another runtime. Its tunnels end with the runtime, or when the last clone of this value is gone
    /// and their last stream has ended.
    pub fn on(&self, runtime: Handle) -> Self {
        Self { shared: self.shared.clone(), site: self.shared.site(runtime) }
    }

    /// A stream in a tunnel of this key: an existing one with a free slot, or a new one; or the in-process path, if
    /// the server is a workload of this node.
    pub async fn open(
        &self,
        key: &TunnelKey,
        sockets: &Arc<dyn SocketFactory>,
        request: &ConnectRequest,
    ) -> Result<Carrier, PoolError> {
        let entry = self.entry(key);
        let certificate =
            self.shared.certificates.certificate(&key.client).await.map_err(|error| PoolError {
                reason: Reason::IdentityFailure,
                why: error.to_string(),
            })?;
        if let Some(opened) = self.open_local(&entry, key, sockets, request).await {
            return opened;
        }
        for _ in 0..MAX_ROUNDS {
            if let Some(opened) = entry.open_existing(certificate.generation(), request).await {
                return opened.map(Carrier::Hbone);
            }
            self.make_room(&entry, key, sockets, &certificate).await?;
        }
        let why = format!("the tunnels to {} are taken as fast as they are made", key.address);
        Err(PoolError { reason: Reason::Overflow, why })
    }

    /// Waits for the dial of this key that is in progress, and dials if there is still no free stream.
    async fn make_room(
        &self,
        entry: &Entry,
        key: &TunnelKey,
        sockets: &Arc<dyn SocketFactory>,
        certificate: &Arc<WorkloadCertificate>,
    ) -> Result<(), PoolError> {
        let asked = Instant::now();
        let _dialling = entry.dialling.lock().await;
        if let Some(failure) = entry.failure_since(asked) {
            return Err(failure);
        }
        if entry.has_room(certificate.generation()) {
            return Ok(());
        }
        match dial::dial(self, key, sockets, certificate.clone()).await {
            Ok((tunnel, alert)) => {
                entry.add(tunnel, alert, certificate.generation());
                Ok(())
            }
            Err(error) => {
                entry.failed(error.clone());
                Err(error)
            }
        }
    }

    /// The number of open tunnels, of all runtimes.
    pub fn tunnels(&self) -> usize {
        self.sum(Entry::len)
    }

    /// The number of open streams, of all runtimes.
    pub fn streams(&self) -> usize {
        self.sum(Entry::streams)
    }

    fn sum(&self, of: impl Fn(&Entry) -> usize) -> usize {
        let sites = self.shared.sites();
        sites.iter().map(|site| site.entries.pin().values().map(|it| of(it)).sum::<usize>()).sum()
    }

    /// Drains the tunnels of this workload: they take no new streams, and end with their last one.
    pub fn drain_workload(&self, uid: &str) {
        for site in self.shared.sites() {
            site.entries.pin().retain(|key, entry| {
                if key.client_uid != uid {
                    return true;
                }
                entry.drain();
                false
            });
        }
    }

    /// Drains all tunnels.
    pub fn drain(&self) {
        for site in self.shared.sites() {
            site.entries.pin().values().for_each(|entry| entry.drain());
        }
    }

    /// Closes idle tunnels, and drains those whose certificate was replaced, until cancelled; one task for the whole
    /// pool.
    pub async fn sweep(self, cancel: CancellationToken) {
        let mut ticks = tokio::time::interval(self.shared.settings.tunnels.idle_timeout / 4);
        let mut certificates = self.shared.certificates.subscribe();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => self.sweep_once(),
                Ok(()) = certificates.changed() => self.drain_outdated(),
            }
        }
    }

    /// Idle tunnels must not keep alive a root that is no longer trusted.
    fn drain_outdated(&self) {
        for site in self.shared.sites() {
            for (key, entry) in &site.entries.pin() {
                if let Some(generation) = self.shared.certificates.generation(&key.client) {
                    entry.drain_outdated(generation);
                }
            }
        }
    }

    fn sweep_once(&self) {
        for site in self.shared.sites() {
            site.entries.pin().retain(|_, entry| {
                entry.sweep(self.shared.settings.tunnels.idle_timeout);
                // A caller that holds the entry is about to dial and must find it again.
                !entry.is_empty() || Arc::strong_count(entry) > 1
            });
        }
    }

    fn entry(&self, key: &TunnelKey) -> Arc<Entry> {
        let entries = self.site.entries.pin();
        match entries.get(key) {
            Some(entry) => entry.clone(),
            None => entries.get_or_insert_with(key.clone(), Default::default).clone(),
        }
    }
}

impl Shared {
    fn site(&self, runtime: Handle) -> Arc<Site> {
        let site = Arc::new(Site { runtime, entries: papaya::HashMap::new() });
        let mut sites = self.sites.lock();
        sites.retain(|site| site.strong_count() > 0);
        sites.push(Arc::downgrade(&site));
        site
    }

    fn sites(&self) -> Vec<Arc<Site>> {
        self.sites.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// The meaning of a failed CONNECT for the caller.
fn open_error(to: impl std::fmt::Display, error: &TunnelError) -> PoolError {
    let reason = match error {
        TunnelError::Status(status) if *status == http::StatusCode::UNAUTHORIZED => Reason::Denied,
        TunnelError::Status(status) if *status == http::StatusCode::BAD_REQUEST => {
            Reason::BadRequest
        }
        // It says nothing of the endpoint, but of how much its clients take.
        TunnelError::Status(status) if *status == http::StatusCode::TOO_MANY_REQUESTS => {
            Reason::Overflow
        }
        TunnelError::Status(_) => Reason::ConnectFailure,
        _ => Reason::Http2Failure,
    };
    PoolError { reason, why: format!("tunnel to {to}: {error}") }
}

#[cfg(test)]
mod tests;
