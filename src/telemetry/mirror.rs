//! Metrics of mirrored requests.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

metrics! {
    struct Rows {
        /// Copies of requests for mirrors, by outcome: `answered` (whatever the answer), `failed`, `timed_out`, `dropped`
        /// (not sent, since too many were on their way).
        requests: Family<MirrorLabels, Counter> = "isthmus_mirrored_requests";
    }
}

/// Counters of copies by outcome, looked up once; cheap to clone.
#[derive(Clone)]
pub struct MirrorMetrics {
    /// Answered, whatever the answer was.
    pub answered: Counter,
    /// No endpoint accepted it, or the connection failed.
    pub failed: Counter,
    /// Timed out.
    pub timed_out: Counter,
    /// Not sent: too many copies were in flight.
    pub dropped: Counter,
    rows: Rows,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MirrorLabels {
    outcome: &'static str,
}

impl Default for MirrorMetrics {
    fn default() -> Self {
        let rows = Rows::default();
        let counter = |outcome| rows.requests.get_or_create_owned(&MirrorLabels { outcome });
        Self {
            answered: counter("answered"),
            failed: counter("failed"),
            timed_out: counter("timed_out"),
            dropped: counter("dropped"),
            rows,
        }
    }
}

impl MirrorMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.rows.register_rows(registry);
    }
}
