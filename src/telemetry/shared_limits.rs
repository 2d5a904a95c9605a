//! Metrics of shared rate limits: how far nodes exchange tokens.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

metrics! {
    /// Handles for the exchange; cheap to clone.
    pub struct SharedLimitMetrics {
        /// Shared rate limits of Services that have pods on this node.
        pub limits: Gauge = "isthmus_shared_limits";
        /// Those whose tokens are not exchanged with other nodes, so that this node has its part and no more.
        pub fallback: Gauge = "isthmus_shared_limits_fallback";
        /// How long a broker, through which tokens are exchanged, has not been reached; 0 while it is, or is not needed.
        pub away: Gauge<f64, AtomicU64> = "isthmus_shared_limits_away_seconds";
        /// Tokens of shared rate limits: `received` from other nodes, `given` to them, `discarded` because they were not used in
        /// time.
        tokens: Family<TokenLabels, Counter<f64, AtomicU64>> = "isthmus_shared_limits_tokens";
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    what: &'static str,
}

impl SharedLimitMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.register_rows(registry);
    }

    /// Adds so many thousandths of tokens; `what` is one of few.
    pub fn tokens(&self, what: &'static str, thousandths: u64) {
        if thousandths > 0 {
            let tokens = self.tokens.get_or_create(&TokenLabels { what });
            tokens.inc_by(thousandths as f64 / 1000.0);
        }
    }
}
