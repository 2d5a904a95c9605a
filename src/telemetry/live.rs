//! Connections that are open now: for operators who ask (`/connections`), and for the gauge of open sockets.
//!
//! A map without a lock, written to at the start and at the end of a connection and at no other time; what passes is
//! counted in the connection's own counters. Whoever reads sees each connection as it is at that moment.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use papaya::HashMap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::time::Instant;

use super::{ConnectionStart, Reporter};

/// The connections of one agent.
#[derive(Default)]
pub(super) struct Live {
    connections: HashMap<u64, Arc<Open>>,
    next: AtomicU64,
    /// Open connections by reporter, in the order of [`REPORTERS`].
    sockets: [AtomicI64; 3],
}

/// HTTP connections of a waypoint's worker have a count of their own, whichever half they belong to.
const REPORTERS: [&str; 3] = ["source", "destination", "waypoint"];

/// What is known of one connection, and what it has carried.
struct Open {
    start: ConnectionStart,
    /// Its requests are routed or judged one by one (layer 7).
    http: bool,
    started: Instant,
    sent: AtomicU64,
    received: AtomicU64,
    requests: AtomicU64,
}

/// A connection's place among those that are open; given up when dropped.
pub(super) struct Registered {
    live: Arc<Live>,
    id: u64,
    open: Arc<Open>,
}

/// One connection with its requests in a waypoint's worker, open as long as a clone of this is held.
#[derive(Clone)]
pub struct HttpConnection(Arc<Registered>);

/// One open connection, for whoever looks at it from outside.
#[derive(Clone)]
pub struct OpenConnection(Arc<Open>);

impl Live {
    pub(super) fn register(self: &Arc<Self>, start: ConnectionStart, http: bool) -> Registered {
        let open = Arc::new(Open {
            start,
            http,
            started: Instant::now(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.connections.pin().insert(id, open.clone());
        self.sockets[open.reporter()].fetch_add(1, Ordering::Relaxed);
        Registered { live: self.clone(), id, open }
    }

    pub(super) fn http(self: &Arc<Self>, start: ConnectionStart) -> HttpConnection {
        HttpConnection(Arc::new(self.register(start, true)))
    }

    /// Those that are wanted, the oldest first.
    pub(super) fn find(&self, wanted: impl Fn(&ConnectionStart) -> bool) -> Vec<OpenConnection> {
        let connections = self.connections.pin();
        let mut found: Vec<_> =
            connections.iter().filter(|(_, open)| wanted(&open.start)).collect();
        found.sort_unstable_by_key(|(id, _)| **id);
        found.into_iter().map(|(_, open)| OpenConnection(open.clone())).collect()
    }
}

impl Open {
    fn reporter(&self) -> usize {
        match (self.http, self.start.reporter) {
            (true, _) | (_, Reporter::Waypoint) => 2,
            (false, Reporter::Source) => 0,
            (false, Reporter::Destination) => 1,
        }
    }
}

impl Registered {
    pub(super) fn start(&self) -> &ConnectionStart {
        &self.open.start
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.open.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.open.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes from the side that dialled, and to it.
    pub(super) fn carried(&self) -> (u64, u64) {
        (self.open.sent.load(Ordering::Relaxed), self.open.received.load(Ordering::Relaxed))
    }

    pub(super) fn age(&self) -> Duration {
        self.open.started.elapsed()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.live.connections.pin().remove(&self.id);
        self.live.sockets[self.open.reporter()].fetch_sub(1, Ordering::Relaxed);
    }
}

impl HttpConnection {
    pub(super) fn start(&self) -> &ConnectionStart {
        self.0.start()
    }

    pub(super) fn request(&self) {
        self.0.open.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.0.sent(bytes as u64);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.0.received(bytes as u64);
    }
}

impl fmt::Debug for HttpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpConnection({})", self.0.id)
    }
}

impl OpenConnection {
    /// What was known when it began.
    pub fn start(&self) -> &ConnectionStart {
        &self.0.start
    }

    /// Requests are routed or judged one by one; `false` for a copy of bytes.
    pub fn is_http(&self) -> bool {
        self.0.http
    }

    /// Bytes from the side that dialled; of HTTP the bodies of requests.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Bytes to the side that dialled; of HTTP the bodies of responses.
    pub fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }

    /// Requests so far, those in flight among them; 0 for a copy of bytes.
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// How long it has been open.
    pub fn age(&self) -> Duration {
        self.0.started.elapsed()
    }
}

/// `istio_tcp_sockets_open`.
pub(super) struct SocketsCollector(pub(super) Arc<Live>);

impl fmt::Debug for SocketsCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SocketsCollector")
    }
}

impl Collector for SocketsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Connections that are open now; those with HTTP in a waypoint's worker as reporter=\"waypoint\"";
        let name = "istio_tcp_sockets_open";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (reporter, open) in REPORTERS.iter().zip(&self.0.sockets) {
            let gauge = ConstGauge::new(open.load(Ordering::Relaxed));
            gauge.encode(family.encode_family(&[("reporter", *reporter)])?)?;
        }
        Ok(())
    }
}
