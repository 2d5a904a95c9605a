//! The metrics of traffic: a row each, and the histogram that they share with the DNS stub's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::budget::Budget;
use super::exemplars::{Exemplar, Exemplars};
use super::exposition::{Distribution, Family};
use super::metric_set::{Metric, MetricSet};
use super::series::Active;
use super::tagged::Labelled;
use crate::trace::TraceId;

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

counts! {
    /// Counters of connections between two workloads.
    pub(super) struct ConnectionCounts {
        /// Opened TCP connections.
        pub(super) opened: AtomicU64 = "istio_tcp_connections_opened";
        /// Closed TCP connections.
        pub(super) closed: AtomicU64 = "istio_tcp_connections_closed";
        /// Bytes from the destination to the source, whichever end reports (Istio's meaning).
        pub(super) sent: AtomicU64 = "istio_tcp_sent_bytes";
        /// Bytes from the source to the destination, whichever end reports (Istio's meaning).
        pub(super) received: AtomicU64 = "istio_tcp_received_bytes";
    }
}

counts! {
    /// Connections that failed for one reason.
    pub(super) struct FailureCounts {
        /// TCP connections that were rejected or failed, by response_flags.
        pub(super) failed: AtomicU64 = "istio_tcp_connections_failed";
    }
}

counts! {
    /// Counters of requests with one outcome.
    pub(super) struct RequestCounts {
        /// HTTP and gRPC requests.
        requests: AtomicU64 = "istio_requests";
        /// From a request's head to the end of its response, in milliseconds.
        duration: EnvoyHistogram = "istio_request_duration_milliseconds", MICROSECONDS;
        /// Size of request bodies.
        request_bytes: EnvoyHistogram = "istio_request_bytes", 1.0;
        /// Size of response bodies.
        response_bytes: EnvoyHistogram = "istio_response_bytes", 1.0;
    }
}

counts! {
    /// Counters of the messages of gRPC requests with one outcome.
    pub(super) struct MessageCounts {
        /// Messages that clients of gRPC sent; counted when the call ends.
        request: AtomicU64 = "istio_request_messages";
        /// Messages that servers of gRPC sent; counted when the call ends.
        response: AtomicU64 = "istio_response_messages";
    }
}

/// A lock-free histogram; it has one bucket more than bounds.
pub(super) struct Histogram<const COUNT: usize> {
    /// Not cumulative; the last is for values above all bounds.
    buckets: [AtomicU64; COUNT],
    /// In the smallest unit: bytes, or microseconds.
    sum: AtomicU64,
    bounds: &'static [f64],
    exemplars: Exemplars,
}

/// A histogram over [`BUCKETS`].
type EnvoyHistogram = Histogram<{ BUCKETS.len() + 1 }>;

/// All series about traffic.
pub(super) struct Traffic {
    pub(super) connections: Labelled<ConnectionCounts>,
    pub(super) failures: Labelled<FailureCounts>,
    pub(super) requests: Labelled<RequestCounts>,
    /// Apart, because most requests have none.
    pub(super) messages: Labelled<MessageCounts>,
}

impl RequestCounts {
    /// These metrics of one request.
    pub(super) fn add(
        &self,
        metrics: MetricSet,
        duration: Duration,
        request_bytes: u64,
        response_bytes: u64,
    ) {
        if metrics.has(Metric::RequestCount) {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        if metrics.has(Metric::RequestDuration) {
            let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
            self.duration.add(microseconds, MICROSECONDS);
        }
        if metrics.has(Metric::RequestSize) {
            self.request_bytes.add(request_bytes, 1.0);
        }
        if metrics.has(Metric::ResponseSize) {
            self.response_bytes.add(response_bytes, 1.0);
        }
    }
}

impl RequestCounts {
    /// The request's trace shows where this time went.
    pub(super) fn exemplify(&self, duration: Duration, trace: TraceId) {
        let milliseconds = duration.as_secs_f64() * 1_000.0;
        let bucket = (self.duration.bucket(milliseconds), self.duration.buckets.len());
        self.duration.exemplars.keep(bucket, trace, milliseconds);
    }
}

impl MessageCounts {
    pub(super) fn add(&self, request: u64, response: u64) {
        self.request.fetch_add(request, Ordering::Relaxed);
        self.response.fetch_add(response, Ordering::Relaxed);
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
        Self { buckets, sum: AtomicU64::new(0), bounds, exemplars: Exemplars::default() }
    }

    pub(super) fn add(&self, value: u64, unit: f64) {
        let bucket = self.bucket(value as f64 / unit);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn bucket(&self, scaled: f64) -> usize {
        self.bounds.partition_point(|bound| *bound < scaled)
    }
}

/// A counter beside it grows with each of its values.
impl<const COUNT: usize> Active for Histogram<COUNT> {
    fn activity(&self) -> u64 {
        0
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

    fn exemplar(&self, bucket: usize) -> Option<Exemplar> {
        self.exemplars.of((bucket, COUNT))
    }
}

impl Traffic {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            connections: Labelled::new(budget),
            failures: Labelled::new(budget),
            requests: Labelled::new(budget),
            messages: Labelled::new(budget),
        }
    }

    pub(super) fn sweep(&self) {
        self.connections.sweep();
        self.failures.sweep();
        self.requests.sweep();
        self.messages.sweep();
    }

    /// All families, with their current series.
    pub(super) fn families(&self) -> impl Iterator<Item = Family> {
        let connections = ConnectionCounts::families(self.connections.all());
        let failures = FailureCounts::families(self.failures.all());
        let requests = RequestCounts::families(self.requests.all());
        let messages = MessageCounts::families(self.messages.all());
        connections.into_iter().chain(failures).chain(requests).chain(messages)
    }
}
