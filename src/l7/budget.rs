//! What one worker may hold at once: connections, requests in flight, bytes buffered.
//!
//! The byte budget is kept by reservation: whoever may buffer takes its worst case beforehand, so the sum never
//! exceeds the setting whatever the peers do. An HTTP/1 connection (downstream or upstream) reserves its read and its
//! write buffer; an HTTP/2 connection reserves its receive window, and each request on it the two send buffers of
//! its streams; a request that may be sent again and a copy for a mirror, what they may keep of its body. Opaque connections buffer one chunk, and are bounded by the number of connections.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::WorkerSettings;
use super::detect::Version;
use crate::telemetry::WorkerHealth;

/// The read buffer of an HTTP/1 connection, and so the longest head of a message, in bytes: Istio's and Envoy's
/// limit on request headers.
pub(super) const HTTP1_BUFFER: usize = 60 * 1024;

/// The receive window of one HTTP/2 stream, in bytes: at the 0.5 ms between two nodes it carries 2 Gbit/s.
pub(super) const HTTP2_STREAM_WINDOW: u32 = 128 * 1024;

/// The receive window of one HTTP/2 connection, in bytes: several streams', so that one slow reader does not stop
/// the others (RFC 9113, 5.2).
pub(super) const HTTP2_CONNECTION_WINDOW: u32 = 4 * HTTP2_STREAM_WINDOW;

/// What is buffered for sending on one HTTP/2 stream, in bytes: one frame of the default size.
pub(super) const HTTP2_SEND_BUFFER: usize = 16 * 1024;

/// Streams at once on one HTTP/2 connection: Go's and ztunnel's pool's 100 (hyper 200).
pub(super) const HTTP2_STREAMS: u32 = 100;

/// How far a copy of a request's body may be behind, in bytes: two windows of a stream, so that an endpoint as fast as
/// the original's keeps up.
pub(super) const COPY_BUFFER: usize = 2 * HTTP2_STREAM_WINDOW as usize;

/// How much of a request's body is kept to be sent again, in bytes: a request that was longer is sent once.
pub(super) const REPLAY_BUFFER: usize = 64 * 1024;

/// Mirrored requests on their way at once: enough for a thousand a second at 100 ms each, and what a mirror that does
/// not answer can hold.
const MIRRORS: usize = 128;

/// The byte budget is counted in units of this many bytes: a semaphore's permits are 32 bits in one acquisition.
const UNIT: usize = 1024;

/// The budgets of one worker.
pub(super) struct Budgets {
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    buffers: Arc<Semaphore>,
    mirrors: Arc<Semaphore>,
    /// What the three began with.
    limits: [usize; 3],
}

/// A place in the byte budget, given back when dropped.
#[derive(Debug)]
pub(super) struct Reserved(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// The place of one copy on its way.
#[derive(Debug)]
pub(super) struct MirrorPermit {
    _copy: OwnedSemaphorePermit,
    _buffer: Option<Reserved>,
}

/// The place of one request in flight.
#[derive(Debug)]
pub(super) struct RequestPermit {
    _request: OwnedSemaphorePermit,
    _buffers: Option<Reserved>,
}

impl Budgets {
    pub(super) fn new(settings: &WorkerSettings) -> Self {
        let limits =
            [settings.max_connections, settings.max_requests, settings.max_buffered_bytes / UNIT];
        let limits = limits.map(|permits| permits.min(Semaphore::MAX_PERMITS));
        let [connections, requests, buffers] =
            limits.map(|permits| Arc::new(Semaphore::new(permits)));
        let mirrors = Arc::new(Semaphore::new(MIRRORS));
        Self { connections, requests, buffers, mirrors, limits }
    }

    /// How much of it is taken now; the namespace is the worker's to fill in.
    pub(super) fn health(&self) -> WorkerHealth {
        let [connections, requests, buffers] = self.limits;
        let taken = |limit: usize, of: &Semaphore| limit.saturating_sub(of.available_permits());
        WorkerHealth {
            connections: taken(connections, &self.connections),
            requests: taken(requests, &self.requests),
            buffered_bytes: taken(buffers, &self.buffers) * UNIT,
            buffered_bytes_limit: buffers * UNIT,
            ..WorkerHealth::default()
        }
    }

    /// A place for one more downstream connection.
    pub(super) fn connection(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().try_acquire_owned().ok()
    }

    /// What an HTTP connection of this version may buffer.
    pub(super) fn buffers(&self, version: Version) -> Option<Reserved> {
        self.reserve(match version {
            Version::Http1 => 2 * HTTP1_BUFFER,
            Version::Http2 => HTTP2_CONNECTION_WINDOW as usize,
        })
    }

    /// A place for one more request that arrived over this version.
    pub(super) fn request(&self, version: Version) -> Option<RequestPermit> {
        let buffers = match version {
            Version::Http1 => None,
            Version::Http2 => Some(self.reserve(2 * HTTP2_SEND_BUFFER)?),
        };
        let request = self.requests.clone().try_acquire_owned().ok()?;
        Some(RequestPermit { _request: request, _buffers: buffers })
    }

    /// A place for one more copy of a request.
    pub(super) fn mirror(&self, has_body: bool) -> Option<MirrorPermit> {
        let copy = self.mirrors.clone().try_acquire_owned().ok()?;
        let buffer = if has_body { Some(self.reserve(COPY_BUFFER)?) } else { None };
        Some(MirrorPermit { _copy: copy, _buffer: buffer })
    }

    /// What a body that may be sent again may keep.
    pub(super) fn replay(&self) -> Option<Reserved> {
        self.reserve(REPLAY_BUFFER)
    }

    fn reserve(&self, bytes: usize) -> Option<Reserved> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        self.buffers.clone().try_acquire_many_owned(units).ok().map(Reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_case_never_exceeds_the_setting() {
        let budgets = Budgets::new(&WorkerSettings {
            max_connections: 2,
            max_requests: 3,
            max_buffered_bytes: HTTP2_CONNECTION_WINDOW as usize + 4 * HTTP2_SEND_BUFFER,
            ..WorkerSettings::for_tests()
        });
        let kept = budgets.buffers(Version::Http2);
        assert!(kept.is_some());
        assert_eq!(budgets.health().buffered_bytes, HTTP2_CONNECTION_WINDOW as usize);
        assert!(budgets.buffers(Version::Http1).is_none(), "nothing is left for another one");
        let requests: Vec<_> = (0..3).map(|_| budgets.request(Version::Http2)).collect();
        assert_eq!(requests.iter().flatten().count(), 2, "the third has no room for its buffers");
        let last = budgets.request(Version::Http1);
        assert!(last.is_some(), "HTTP/1 has reserved with its connection");
        assert!(budgets.request(Version::Http1).is_none(), "three requests are the limit");
        drop(kept);
        assert!(budgets.buffers(Version::Http1).is_some(), "given back when dropped");
    }
}
