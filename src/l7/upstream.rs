//! HTTP connections to applications, over tunnels or plain TCP, and the shelves on which they rest between requests.
//!
//! A shelf holds the connections to one place for one client: HTTP/1.1 connections while nobody uses them, HTTP/2
//! connections while they live. A connection whose last response did not end cleanly is never used again. Each
//! reserves its buffers in the worker's byte budget, and HTTP/2's receive windows with its streams; what rests gives way when the budget is needed.

mod buffers;
mod sender;
mod shelf;

pub(super) use buffers::Buffers;
pub(super) use sender::Sender;
pub(super) use shelf::{Lease, Shelf};

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::client::Client;
use super::detect::Version;
use crate::balance::Ended;
use crate::base::{Identity, ObjectKey, Reason, Str};
use crate::reach::Failure;

/// How often resting connections are looked through.
pub(super) const SWEEP: Duration = Duration::from_secs(15);

/// A connection could not be had; nothing of the request was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    #[error(transparent)]
    Unreached(#[from] Failure),
    #[error("HTTP could not be set up with {address}: {error}")]
    Handshake { address: SocketAddr, error: hyper::Error },
    #[error("no room for an upstream connection: {0}")]
    Overflow(String),
}

impl UpstreamError {
    pub(super) fn reason(&self) -> Reason {
        match self {
            UpstreamError::Unreached(failure) => failure.reason,
            UpstreamError::Handshake { .. } => Reason::Http2Failure,
            UpstreamError::Overflow(_) => Reason::Overflow,
        }
    }

    /// How the attempt ended that this failed.
    pub(super) fn ended(&self) -> Ended {
        match self {
            UpstreamError::Unreached(failure) => failure.ended(),
            UpstreamError::Handshake { .. } | UpstreamError::Overflow(_) => Ended::Unreached,
        }
    }
}

/// Who goes where: requests share a connection only when all of this is the same, so that no client uses another's,
/// and the destination is told the truth about client and service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The client workload, whose network namespace connections are dialled from.
    pub(super) client_uid: Str,
    pub(super) client: Identity,
    pub(super) client_address: IpAddr,
    /// The service that was addressed; it selects policies at the destination.
    pub(super) service: ObjectKey,
    /// The endpoint's own address and port.
    pub(super) endpoint: SocketAddr,
    /// Whom the tunnel's other end must be; `None` for plain TCP.
    pub(super) server: Option<Identity>,
    pub(super) version: Version,
}

/// The upstream connections of the client's half in one worker.
#[derive(Default)]
pub(super) struct Upstreams {
    /// Locked for a look-up; nobody else but this worker's threads comes here.
    shelves: Mutex<HashMap<Key, Arc<Shelf>>>,
}

impl Upstreams {
    pub(super) fn shelf(&self, key: Key) -> Arc<Shelf> {
        let version = key.version;
        self.shelves.lock().entry(key).or_insert_with(|| Arc::new(Shelf::new(version))).clone()
    }

    /// Closes connections that have rested for long, and forgets empty shelves.
    pub(super) fn sweep(&self) {
        self.shelves.lock().retain(|_, shelf| {
            shelf.sweep();
            // Whoever holds the shelf is about to put a connection on it.
            !shelf.is_empty() || Arc::strong_count(shelf) > 1
        });
    }

    /// Closes the connections that rest, those of one client or all, to make room in the byte budget. How many there were.
    pub(super) fn make_room(&self, client: Option<&Client>) -> usize {
        let is_meant =
            |key: &Key| client.is_none_or(|client| client.is(&key.client, key.client_address));
        let shelves = self.shelves.lock();
        shelves.iter().filter(|(key, _)| is_meant(key)).map(|(_, shelf)| shelf.clear()).sum()
    }
}
