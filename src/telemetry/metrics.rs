//! The families of metrics about traffic: names, help texts, and what their series count.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

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

/// What is counted of connections between two workloads.
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

/// What is counted of requests with one outcome.
#[derive(Default)]
pub(super) struct RequestCounts {
    requests: AtomicU64,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

/// A histogram over [`BUCKETS`] without a lock.
#[derive(Default)]
struct Histogram {
    /// Not cumulative; the last is for what exceeds all bounds.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    /// In the smallest unit: bytes, or microseconds.
    sum: AtomicU64,
}

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

impl Histogram {
    fn add(&self, value: u64, unit: f64) {
        let scaled = value as f64 / unit;
        let bucket = BUCKETS.partition_point(|bound| *bound < scaled);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Sum, number of values, and the bounds with the number of values below.
    fn read(&self, unit: f64) -> (f64, u64, Vec<(f64, u64)>) {
        let bounds = BUCKETS.iter().copied().chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|counter| counter.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        (self.sum.load(Ordering::Relaxed) as f64 / unit, count, buckets)
    }
}

impl Traffic {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            connections: SeriesMap::new(),
            failures: SeriesMap::new(),
            requests: SeriesMap::new(),
        })
    }

    pub(super) fn sweep(&self) {
        self.connections.sweep();
        self.failures.sweep();
        self.requests.sweep();
    }
}

/// For [`prometheus_client::registry::Registry`].
pub(super) struct TrafficCollector(pub(super) Arc<Traffic>);

impl fmt::Debug for TrafficCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrafficCollector")
    }
}

impl Collector for TrafficCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let Traffic { connections, failures, requests } = &*self.0;
        counter(encoder, connections, TCP_OPENED, |it| &it.opened)?;
        counter(encoder, connections, TCP_CLOSED, |it| &it.closed)?;
        counter(encoder, connections, TCP_SENT, |it| &it.sent)?;
        counter(encoder, connections, TCP_RECEIVED, |it| &it.received)?;
        counter(encoder, failures, TCP_FAILED, |it| &it.failed)?;
        counter(encoder, requests, REQUESTS, |it| &it.requests)?;
        histogram(encoder, requests, DURATION, MICROSECONDS, |it| &it.duration)?;
        histogram(encoder, requests, REQUEST_BYTES, 1.0, |it| &it.request_bytes)?;
        histogram(encoder, requests, RESPONSE_BYTES, 1.0, |it| &it.response_bytes)
    }
}

/// Name (without `_total`) and help text.
type Family = (&'static str, &'static str);

const TCP_OPENED: Family = ("istio_tcp_connections_opened", "TCP connections that were opened");
const TCP_CLOSED: Family = ("istio_tcp_connections_closed", "TCP connections that were closed");
const TCP_SENT: Family = (
    "istio_tcp_sent_bytes",
    "Bytes from the destination to the source, whoever reports (Istio's meaning)",
);
const TCP_RECEIVED: Family = (
    "istio_tcp_received_bytes",
    "Bytes from the source to the destination, whoever reports (Istio's meaning)",
);
const TCP_FAILED: Family = (
    "istio_tcp_connections_failed",
    "TCP connections that were refused or broke, by response_flags",
);
const REQUESTS: Family = ("istio_requests", "HTTP and gRPC requests");
const DURATION: Family = (
    "istio_request_duration_milliseconds",
    "From a request's head to the end of its response, in milliseconds",
);
const REQUEST_BYTES: Family = ("istio_request_bytes", "Size of request bodies");
const RESPONSE_BYTES: Family = ("istio_response_bytes", "Size of response bodies");

/// Labels for exemplars, of which there are none.
type NoLabels = [(&'static str, &'static str); 0];

fn counter<V: Counts>(
    encoder: &mut DescriptorEncoder<'_>,
    series: &SeriesMap<OwnedLabels, V>,
    (name, help): Family,
    value: impl Fn(&V) -> &AtomicU64,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    series.for_each(|labels, counts| {
        let counter = ConstCounter::new(value(counts).load(Ordering::Relaxed));
        counter.encode(family.encode_family(&labels.borrow())?)
    })
}

fn histogram<V: Counts>(
    encoder: &mut DescriptorEncoder<'_>,
    series: &SeriesMap<OwnedLabels, V>,
    (name, help): Family,
    unit: f64,
    value: impl Fn(&V) -> &Histogram,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    series.for_each(|labels, counts| {
        let (sum, count, buckets) = value(counts).read(unit);
        let labels = labels.borrow();
        family.encode_family(&labels)?.encode_histogram::<NoLabels>(sum, count, &buckets, None)
    })
}
