//! Metrics of `isthmus controller`.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds in seconds: a signature with two answers of the API server takes some milliseconds.
const BUCKETS: [f64; 8] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

metrics! {
    /// Handles for the controller; cheap to clone. In an agent they stay unchanged.
    pub struct ControllerMetrics {
        /// 1 if this replica of the controller holds the Lease.
        pub leads: Gauge = "isthmus_controller_leads";
        /// Certificates that this replica of the controller has signed.
        pub signed: Counter = "isthmus_controller_certificates_signed";
        /// Certificate requests that this replica of the controller has rejected.
        refused: Family<RefusalLabels, Counter> = "isthmus_controller_refusals";
        /// Statuses that this replica of the controller has written or tried to write: `written`, `outdated` (the
        /// object had changed), `owned` (another manager has the condition), `failed`.
        writes: Family<WriteLabels, Counter> = "isthmus_controller_status_writes";
        /// Duration of granted certificate requests, including the API server's answers.
        duration: Histogram = "isthmus_controller_signing_duration", Seconds, BUCKETS;
        /// Connections of agents that exchange tokens of shared rate limits through this replica of the controller.
        pub exchange_nodes: Gauge = "isthmus_controller_exchange_nodes";
        /// Shared rate limits of Services that these agents have pods of.
        pub exchange_limits: Gauge = "isthmus_controller_exchange_limits";
        /// Keys of these limits of which a node lacked tokens within seconds.
        pub exchange_keys: Gauge = "isthmus_controller_exchange_keys";
        /// Expiry of the CA's signing certificate, in seconds since 1970; 0 without one.
        ca_end: Gauge<f64, AtomicU64> = "isthmus_controller_ca_end";
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    outcome: &'static str,
}

impl ControllerMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.register_rows(registry);
    }

    /// A request was rejected; `reason` is one of few.
    pub fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&RefusalLabels { reason }).inc();
    }

    /// A status was written, or not; `outcome` is one of few.
    pub fn write(&self, outcome: &'static str) {
        self.writes.get_or_create(&WriteLabels { outcome }).inc();
    }

    /// A request was granted after this duration.
    pub fn sign(&self, took: Duration) {
        self.signed.inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// The expiry of the current signing CA.
    pub fn ca_end(&self, end: SystemTime) {
        self.ca_end.set(end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }
}
