//! Metrics of `isthmus controller`.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds in seconds: a signature with two answers of the API server takes some milliseconds.
const BUCKETS: [f64; 8] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Handles for the controller; cheap to clone. In an agent all of them stay as they are.
#[derive(Clone)]
pub struct ControllerMetrics {
    /// 1 where this replica leads.
    pub leads: Gauge,
    /// Certificates that were signed.
    pub signed: Counter,
    refused: Family<RefusalLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    duration: Histogram,
    ca_end: Gauge<f64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    outcome: &'static str,
}

impl Default for ControllerMetrics {
    fn default() -> Self {
        Self {
            leads: Gauge::default(),
            signed: Counter::default(),
            refused: Family::default(),
            writes: Family::default(),
            duration: Histogram::new(BUCKETS),
            ca_end: Gauge::default(),
        }
    }
}

impl ControllerMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "isthmus_controller_leads",
            "1 where this replica of the controller holds the Lease",
            self.leads.clone(),
        );
        registry.register(
            "isthmus_controller_certificates_signed",
            "Certificates that this replica of the controller has signed",
            self.signed.clone(),
        );
        registry.register(
            "isthmus_controller_refusals",
            "Requests for certificates that this replica of the controller has refused",
            self.refused.clone(),
        );
        registry.register(
            "isthmus_controller_status_writes",
            "Statuses that this replica of the controller has written, or has tried to: `written`, `outdated` (the \
             object had changed), `owned` (another manager has the condition), `failed`",
            self.writes.clone(),
        );
        registry.register_with_unit(
            "isthmus_controller_signing_duration",
            "How long requests for certificates took that were granted, with the API server's answers",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register(
            "isthmus_controller_ca_end",
            "When the CA's certificate that signs ends, in seconds since 1970; 0 without one",
            self.ca_end.clone(),
        );
    }

    /// A request was refused; `reason` is one of few.
    pub fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&RefusalLabels { reason }).inc();
    }

    /// A status was written, or not; `outcome` is one of few.
    pub fn write(&self, outcome: &'static str) {
        self.writes.get_or_create(&WriteLabels { outcome }).inc();
    }

    /// A request was granted after so long.
    pub fn sign(&self, took: Duration) {
        self.signed.inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// The end of the CA that signs now.
    pub fn ca_end(&self, end: SystemTime) {
        self.ca_end.set(end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }
}
