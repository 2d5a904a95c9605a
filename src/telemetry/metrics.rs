//! The metric families of traffic: names, help texts, and the content of their series.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::budget::Budget;
use super::exposition::{Distribution, Family};
use super::labels::OwnedLabels;
use super::series::{Counts, SeriesMap};

/// Upper bounds of Envoy's default histogram, which Istio uses for milliseconds and for bytes alike.
pub(super) const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Microseconds in the unit of durations.
const MICROSECONDS: f64 = 1_000.0;

/// Counters of connections between two workloads.
#[derive(Default)]
pub(super) struct ConnectionCounts {
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
    /// From the destination to the source.
    pub(super) sent: AtomicU64,
    /// From the source to the destination.
    pub(super) received: AtomicU64,
}

/// Connections that failed for one reason.
#[derive(Default)]
pub(super) struct FailureCounts {
    pub(super) failed: AtomicU64,
}

/// Counters of requests with one outcome.
#[derive(Default)]
pub(super) struct RequestCounts {
    requests: AtomicU64,
    duration: EnvoyHistogram,
    request_bytes: EnvoyHistogram,
    response_bytes: EnvoyHistogram,
}

/// A lock-free histogram; it has one bucket more than bounds.
pub(super) struct Histogram<const COUNT: usize> {
    /// Not cumulative; the last is for values above all bounds.
    buckets: [AtomicU64; COUNT],
    /// In the smallest unit: bytes, or microseconds.
    sum: AtomicU64,
    bounds: &'static [f64],
}

/// A histogram over [`BUCKETS`].
type EnvoyHistogram = Histogram<{ BUCKETS.len() + 1 }>;

/// All series about traffic.
pub(super) struct Traffic {
    pub(super) connections: SeriesMap<OwnedLabels, ConnectionCounts>,
    pub(super) failures: SeriesMap<OwnedLabels, FailureCounts>,
    pub(super) requests: SeriesMap<OwnedLabels, RequestCounts>,
}

impl Counts for ConnectionCounts {
    fn activity(&self) -> u64 {
        let counters = [&self.opened, &self.closed, &self.sent, &self.received];
        counters.iter().fold(0, |sum, counter| sum.wrapping_add(counter.load(Ordering::Relaxed)))
    }
}

impl Counts for FailureCounts {
    fn activity(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

impl Counts for RequestCounts {
    fn activity(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl RequestCounts {
    pub(super) fn add(&self, duration: Duration, request_bytes: u64, response_bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.duration.add(microseconds, MICROSECONDS);
        self.request_bytes.add(request_bytes, 1.0);
        self.response_bytes.add(response_bytes, 1.0);
    }
}

impl Default for EnvoyHistogram {
    fn default() -> Self {
        Self::over(&BUCKETS)
    }
}

impl<const COUNT: usize> Histogram<COUNT> {
    /// `bounds`: one less than there are buckets.
    pub(super) fn over(bounds: &'static [f64]) -> Self {
        let buckets = std::array::from_fn(|_| AtomicU64::new(0));
        Self { buckets, sum: AtomicU64::new(0), bounds }
    }

    pub(super) fn add(&self, value: u64, unit: f64) {
        let scaled = value as f64 / unit;
        let bucket = self.bounds.partition_point(|bound| *bound < scaled);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }
}

impl<const COUNT: usize> Distribution for Histogram<COUNT> {
    fn read(&self, unit: f64) -> (f64, Vec<(Option<f64>, u64)>) {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        let mut below = 0;
        let counts = self.buckets.iter().map(|counter| {
            below += counter.load(Ordering::Relaxed);
            below
        });
        let buckets = bounds.zip(counts).collect();
        (self.sum.load(Ordering::Relaxed) as f64 / unit, buckets)
    }
}

impl Traffic {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            connections: SeriesMap::new(budget),
            failures: SeriesMap::new(budget),
            requests: SeriesMap::new(budget),
        }
    }

    pub(super) fn sweep(&self) {
        self.connections.sweep();
        self.failures.sweep();
        self.requests.sweep();
    }

    /// All families, with their current series.
    pub(super) fn families(&self) -> Vec<Family> {
        let connections = Arc::new(self.connections.all());
        let failures = Arc::new(self.failures.all());
        let requests = Arc::new(self.requests.all());
        vec![
            Family::counter(&connections, TCP_OPENED, |it| &it.opened),
            Family::counter(&connections, TCP_CLOSED, |it| &it.closed),
            Family::counter(&connections, TCP_SENT, |it| &it.sent),
            Family::counter(&connections, TCP_RECEIVED, |it| &it.received),
            Family::counter(&failures, TCP_FAILED, |it| &it.failed),
            Family::counter(&requests, REQUESTS, |it| &it.requests),
            Family::histogram(&requests, DURATION, MICROSECONDS, |it| &it.duration),
            Family::histogram(&requests, REQUEST_BYTES, 1.0, |it| &it.request_bytes),
            Family::histogram(&requests, RESPONSE_BYTES, 1.0, |it| &it.response_bytes),
        ]
    }
}

/// Name (without `_total`) and help text.
type Named = (&'static str, &'static str);

const TCP_OPENED: Named = ("istio_tcp_connections_opened", "Opened TCP connections");
const TCP_CLOSED: Named = ("istio_tcp_connections_closed", "Closed TCP connections");
const TCP_SENT: Named = (
    "istio_tcp_sent_bytes",
    "Bytes from the destination to the source, whichever end reports (Istio's meaning)",
);
const TCP_RECEIVED: Named = (
    "istio_tcp_received_bytes",
    "Bytes from the source to the destination, whichever end reports (Istio's meaning)",
);
const TCP_FAILED: Named = (
    "istio_tcp_connections_failed",
    "TCP connections that were rejected or failed, by response_flags",
);
const REQUESTS: Named = ("istio_requests", "HTTP and gRPC requests");
const DURATION: Named = (
    "istio_request_duration_milliseconds",
    "From a request's head to the end of its response, in milliseconds",
);
const REQUEST_BYTES: Named = ("istio_request_bytes", "Size of request bodies");
const RESPONSE_BYTES: Named = ("istio_response_bytes", "Size of response bodies");
