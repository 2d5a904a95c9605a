//! Metrics of mirrored requests.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counters of copies by what became of them, looked up once; cheap to clone.
#[derive(Clone)]
pub struct MirrorMetrics {
    /// Answered, whatever the answer was.
    pub answered: Counter,
    /// No endpoint took it, or the connection broke.
    pub failed: Counter,
    /// Given up because there was no answer in time.
    pub timed_out: Counter,
    /// Not sent: too many copies were on their way.
    pub dropped: Counter,
    family: Family<MirrorLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MirrorLabels {
    outcome: &'static str,
}

impl Default for MirrorMetrics {
    fn default() -> Self {
        let family: Family<MirrorLabels, Counter> = Family::default();
        let counter = |outcome| family.get_or_create_owned(&MirrorLabels { outcome });
        Self {
            answered: counter("answered"),
            failed: counter("failed"),
            timed_out: counter("timed_out"),
            dropped: counter("dropped"),
            family,
        }
    }
}

impl MirrorMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "isthmus_mirrored_requests",
            "Copies of requests for mirrors, by outcome: `answered` (whatever the answer), `failed`, `timed_out`, `dropped` \
             (not sent, since too many were on their way)",
            self.family.clone(),
        );
    }
}
