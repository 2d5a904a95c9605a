//! HTTP connections to applications, over tunnels or plain TCP, and the shelves on which they rest between requests.
//!
//! A shelf holds the connections to one place for one client: HTTP/1.1 connections while nobody uses them, HTTP/2
//! connections while they live. A connection whose last response did not end cleanly is never used again. Each
//! reserves its buffers in the worker's byte budget, and HTTP/2's receive windows with its streams; what rests gives way when the budget is needed.

mod body;
mod http2;
mod sender;
mod shelf;
mod taken;
mod upload;

pub(in crate::l7) use body::UpstreamBody;
pub(in crate::l7) use sender::{SendError, Sender};
pub(in crate::l7) use shelf::{Lease, Shelf};

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::balance::Ended;
use crate::base::{Identity, ObjectKey, Reason, Str};
use crate::l7::budget::client::Client;
use crate::l7::message::connection_error::ConnectionError;
use crate::l7::version::Version;
use crate::model::Observation;
use crate::reach::Failure;

/// How often resting connections are looked through.
pub(in crate::l7) const SWEEP: Duration = Duration::from_secs(15);

/// A connection could not be had; nothing of the request was sent.
#[derive(Debug, thiserror::Error)]
pub(in crate::l7) enum UpstreamError {
    #[error(transparent)]
    Unreached(#[from] Failure),
    #[error("HTTP could not be set up with {address}: {error}")]
    Handshake { address: SocketAddr, error: ConnectionError },
    #[error("no room for an upstream connection: {0}")]
    Overflow(String),
}

impl UpstreamError {
    pub(in crate::l7) fn reason(&self) -> Reason {
        match self {
            UpstreamError::Unreached(failure) => failure.reason,
            UpstreamError::Handshake { .. } => Reason::Http2Failure,
            UpstreamError::Overflow(_) => Reason::Overflow,
        }
    }

    /// How the attempt ended that this failed.
    pub(in crate::l7) fn ended(&self) -> Ended {
        match self {
            UpstreamError::Unreached(failure) => failure.ended(),
            UpstreamError::Handshake { .. } => Ended::Unreached,
            UpstreamError::Overflow(_) => Ended::NotTried,
        }
    }
}

/// Who goes where: requests share a connection only when all of this is the same, so that no client uses another's,
/// and the destination is told the truth about client and service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::l7) struct Key {
    /// The client workload, whose network namespace connections are dialled from.
    pub(in crate::l7) client_uid: Str,
    pub(in crate::l7) client: Identity,
    pub(in crate::l7) client_address: IpAddr,
    /// The service that was addressed; it selects policies at the destination.
    pub(in crate::l7) service: ObjectKey,
    /// The endpoint's own address and port.
    pub(in crate::l7) endpoint: SocketAddr,
    /// Whom the tunnel's other end must be; `None` for plain TCP.
    pub(in crate::l7) server: Option<Identity>,
    /// The version of the TLS to the application, and the name that this has proven.
    pub(in crate::l7) tls: Option<(u64, Str)>,
    pub(in crate::l7) version: Version,
}

/// The upstream connections of the client's half in one worker.
#[derive(Default)]
pub(in crate::l7) struct Upstreams {
    /// Locked for a look-up; nobody else but this worker's threads comes here.
    shelves: Mutex<HashMap<Key, Arc<Shelf>>>,
    /// How requests were observed when the connections were made.
    observation: Mutex<Arc<Observation>>,
}

impl Upstreams {
    pub(in crate::l7) fn shelf(&self, key: Key) -> Arc<Shelf> {
        let version = key.version;
        self.shelves.lock().entry(key).or_insert_with(|| Arc::new(Shelf::new(version))).clone()
    }

    /// Closes connections that have rested for long, and forgets empty shelves. After a change of how requests are observed, all
    /// shelves are new: the destination decides when a connection begins whether it parses requests, as their spans demand.
    pub(in crate::l7) fn sweep(&self, observation: &Arc<Observation>) {
        let mut known = self.observation.lock();
        if !Arc::ptr_eq(&known, observation) {
            if **known != **observation {
                self.shelves.lock().clear();
            }
            known.clone_from(observation);
        }
        drop(known);
        self.shelves.lock().retain(|_, shelf| {
            shelf.sweep();
            // Whoever holds the shelf is about to put a connection on it.
            !shelf.is_empty() || Arc::strong_count(shelf) > 1
        });
    }

    /// Closes the connections that rest, those of one client or all, to make room in the byte budget. How many there were.
    pub(in crate::l7) fn make_room(&self, client: Option<&Client>) -> usize {
        let is_meant =
            |key: &Key| client.is_none_or(|client| client.is(&key.client, key.client_address));
        let shelves = self.shelves.lock();
        shelves.iter().filter(|(key, _)| is_meant(key)).map(|(_, shelf)| shelf.clear()).sum()
    }
}

/// Requests on the connection are told of its end by themselves.
fn note_end<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "an upstream connection broke");
    }
}
