//! The connection pool of tunnels, shared by layer 4 and all workers of layer 7.
//!
//! Invariants: a tunnel belongs to one client workload and one server identity, so two clients never share one; there
//! is one dial at a time per key, and callers that waited for a failed dial get its failure instead of dialling again;
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

use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::{Identity, Reason, Rooms, Str};
use crate::identity::{CertificateStore, WorkloadCertificate};
use crate::sock::SocketFactory;
use crate::tunnel::{Carrier, ConnectRequest, LocalServer, TunnelError};
use entry::Entry;

/// How often a stream is tried for: others may take every slot of a new tunnel before we do, but a peer that closes
/// each tunnel at once must not be dialled forever.
const MAX_ROUNDS: usize = 8;

/// Which tunnel.
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

/// What the pool may do.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Streams per tunnel; the peer's SETTINGS may lower it.
    pub max_streams: usize,
    /// A tunnel without streams is closed after this time.
    pub idle_timeout: Duration,
    /// For TCP, and again for the TLS handshake.
    pub connect_timeout: Duration,
    /// Between workloads of one node bytes stay in the process (`same_node`).
    pub in_process: bool,
    /// What tunnels, and the windows of their streams, may hold.
    pub rooms: Rooms,
}

/// A tunnel or a stream in it could not be had.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub struct PoolError {
    pub reason: Reason,
    /// For the log: what failed and what to check.
    pub why: String,
}

/// The pool; cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    settings: PoolSettings,
    certificates: Arc<CertificateStore>,
    /// Where the tunnels' drivers run: the runtime of layer 4, whoever dials.
    runtime: Handle,
    entries: papaya::HashMap<TunnelKey, Arc<Entry>>,
    /// The workloads of this node, by `pod address:15008`.
    locals: papaya::HashMap<SocketAddr, Weak<dyn LocalServer>>,
}

impl Pool {
    pub fn new(
        settings: PoolSettings,
        certificates: Arc<CertificateStore>,
        runtime: Handle,
    ) -> Self {
        let (entries, locals) = (papaya::HashMap::new(), papaya::HashMap::new());
        Self(Arc::new(Shared { settings, certificates, runtime, entries, locals }))
    }

    /// A stream in a tunnel of this key: an existing one with a free slot, or a new one; or the short way, when the
    /// server is a workload of this node.
    pub async fn open(
        &self,
        key: &TunnelKey,
        sockets: &Arc<dyn SocketFactory>,
        request: &ConnectRequest,
    ) -> Result<Carrier, PoolError> {
        let entry = self.entry(key);
        let certificate = self.0.certificates.certificate(&key.client).await.map_err(|error| {
            PoolError { reason: Reason::IdentityFailure, why: error.to_string() }
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

    /// Waits for whoever dials this key already, and dials if there is no room after that.
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
        match dial::dial(&self.0, key, sockets, certificate.clone()).await {
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

    /// How many tunnels are open.
    pub fn tunnels(&self) -> usize {
        self.0.entries.pin().values().map(|entry| entry.len()).sum()
    }

    /// How many streams are open in them.
    pub fn streams(&self) -> usize {
        self.0.entries.pin().values().map(|entry| entry.streams()).sum()
    }

    /// No new streams in the tunnels of this workload; each ends with its last stream.
    pub fn drain_workload(&self, uid: &str) {
        let entries = self.0.entries.pin();
        entries.retain(|key, entry| {
            if key.client_uid != uid {
                return true;
            }
            entry.drain();
            false
        });
    }

    /// No new streams in any tunnel.
    pub fn drain(&self) {
        self.0.entries.pin().values().for_each(|entry| entry.drain());
    }

    /// Closes idle tunnels, and drains those whose certificate was replaced, until cancelled; one task for the whole
    /// pool.
    pub async fn sweep(self, cancel: CancellationToken) {
        let mut ticks = tokio::time::interval(self.0.settings.idle_timeout / 4);
        let mut certificates = self.0.certificates.subscribe();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => self.sweep_once(),
                Ok(()) = certificates.changed() => self.drain_outdated(),
            }
        }
    }

    /// A root that is not trusted any more must not be vouched for by tunnels that nobody opens streams in.
    fn drain_outdated(&self) {
        let entries = self.0.entries.pin();
        for (key, entry) in &entries {
            if let Some(generation) = self.0.certificates.generation(&key.client) {
                entry.drain_outdated(generation);
            }
        }
    }

    fn sweep_once(&self) {
        let entries = self.0.entries.pin();
        entries.retain(|_, entry| {
            entry.sweep(self.0.settings.idle_timeout);
            // Somebody who holds the entry is about to dial and must find it again.
            !entry.is_empty() || Arc::strong_count(entry) > 1
        });
    }

    fn entry(&self, key: &TunnelKey) -> Arc<Entry> {
        let entries = self.0.entries.pin();
        match entries.get(key) {
            Some(entry) => entry.clone(),
            None => entries.get_or_insert_with(key.clone(), Default::default).clone(),
        }
    }
}

/// What a failed CONNECT means for whoever asked for the stream.
fn open_error(to: impl std::fmt::Display, error: &TunnelError) -> PoolError {
    let reason = match error {
        TunnelError::Status(status) if *status == http::StatusCode::UNAUTHORIZED => Reason::Denied,
        TunnelError::Status(status) if *status == http::StatusCode::BAD_REQUEST => {
            Reason::BadRequest
        }
        TunnelError::Status(_) => Reason::ConnectFailure,
        _ => Reason::Http2Failure,
    };
    PoolError { reason, why: format!("tunnel to {to}: {error}") }
}

#[cfg(test)]
mod tests;
