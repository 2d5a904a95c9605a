//! Metrics of the DNS stub, with ztunnel's names.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::budget::{Budget, Charged};
use super::clamp::{OTHER, fits};
use super::exposition::{Family, Pairs, WriteLabels};
use super::metrics::Histogram;
use super::series::{Fold, Series, SeriesLabels, SeriesMap};
use crate::base::Str;

/// Upper bounds in seconds (ztunnel's).
const BUCKETS: [f64; 6] = [0.0005, 0.001, 0.01, 0.1, 1.0, 5.0];
/// Microseconds in a second.
const MICROSECONDS: f64 = 1_000_000.0;

/// The labels of queries.
#[derive(Clone, Debug, Default)]
pub struct DnsLabels {
    /// The workload's namespace, to which the series is charged; not a label.
    pub namespace: Str,
    /// As [`query_type`](super::query_type) returns it.
    pub request_query_type: &'static str,
    pub request_protocol: &'static str,
    pub source_canonical_service: Str,
    pub source_canonical_revision: Str,
}

/// Counters of queries.
pub struct DnsMetrics(SeriesMap<DnsLabels, DnsCounts>);

/// The queries of one workload, of one type.
pub struct DnsQuestions(Arc<Series<DnsCounts>>);

counts! {
    struct DnsCounts {
        /// DNS queries of workloads to the stub.
        requests: AtomicU64 = "istio_dns_requests";
        /// DNS queries forwarded to the workload's resolvers.
        upstream_requests: AtomicU64 = "istio_dns_upstream_requests";
        /// DNS queries that no resolver answered.
        upstream_failures: AtomicU64 = "istio_dns_upstream_failures";
        /// Duration of the workload's resolvers' answers.
        upstream_duration: DnsHistogram = "istio_dns_upstream_request_duration_seconds", MICROSECONDS;
    }
}

type DnsHistogram = Histogram<{ BUCKETS.len() + 1 }>;

impl Default for DnsHistogram {
    fn default() -> Self {
        Self::over(&BUCKETS)
    }
}

impl DnsMetrics {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self(SeriesMap::new(budget))
    }

    /// The counters of queries of this type.
    pub fn questions(&self, labels: &DnsLabels) -> DnsQuestions {
        DnsQuestions(self.0.get(labels))
    }

    pub(super) fn sweep(&self) {
        self.0.sweep();
    }

    pub(super) fn families(&self) -> Vec<Family> {
        DnsCounts::families(self.0.all())
    }
}

impl DnsQuestions {
    /// A query arrived.
    pub fn asked(&self) {
        self.0.counts.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// It was forwarded to the workload's resolvers, which took this duration, whether they answered or not.
    pub fn passed_on(&self, duration: Duration) {
        self.0.counts.upstream_requests.fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.0.counts.upstream_duration.add(microseconds, MICROSECONDS);
    }

    /// No resolver answered it.
    pub fn failed(&self) {
        self.0.counts.upstream_failures.fetch_add(1, Ordering::Relaxed);
    }
}

impl DnsLabels {
    fn shown(&self) -> (&str, &str, &str, &str) {
        let Self { source_canonical_service: service, source_canonical_revision: revision, .. } =
            self;
        (self.request_query_type, self.request_protocol, service, revision)
    }
}

/// Two namespaces' services of one name are one series, as the namespace is not shown.
impl PartialEq for DnsLabels {
    fn eq(&self, other: &Self) -> bool {
        self.shown() == other.shown()
    }
}

impl Eq for DnsLabels {}

impl Hash for DnsLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shown().hash(state);
    }
}

impl SeriesLabels for DnsLabels {
    type Owned = Self;

    fn own(&self) -> Self {
        self.clone()
    }

    fn charged(&self) -> Charged<'_> {
        Charged { owner: &self.namespace, other: &self.namespace }
    }

    fn fit(&self) -> bool {
        fits(&self.source_canonical_service) && fits(&self.source_canonical_revision)
    }

    fn folded(&self, _: Fold) -> Self {
        Self {
            source_canonical_service: OTHER.into(),
            source_canonical_revision: OTHER.into(),
            ..self.clone()
        }
    }
}

impl WriteLabels for DnsLabels {
    fn write(&self, pairs: &mut Pairs<'_>) {
        pairs.put("request_query_type", self.request_query_type);
        pairs.put("request_protocol", self.request_protocol);
        pairs.put("source_canonical_service", &self.source_canonical_service);
        pairs.put("source_canonical_revision", &self.source_canonical_revision);
    }
}
