//! Metrics of external authorization.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

metrics! {
    struct Rows {
        /// Requests that a provider of external authorization was asked about, by outcome: `allowed`, `denied`, `failed` (it could
        /// not be asked or said nothing, and the request was refused), `failed_open` (the same, and `failOpen` let it pass).
        checks: Family<CheckLabels, Counter> = "isthmus_external_authorizations";
    }
}

/// Counters of checks by outcome, looked up once; cheap to clone.
#[derive(Clone)]
pub struct AuthorizerMetrics {
    pub allowed: Counter,
    pub denied: Counter,
    /// The provider could not be asked or said nothing; the request was refused.
    pub failed: Counter,
    /// The same; the request passed.
    pub failed_open: Counter,
    rows: Rows,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabels {
    outcome: &'static str,
}

impl Default for AuthorizerMetrics {
    fn default() -> Self {
        let rows = Rows::default();
        let counter = |outcome| rows.checks.get_or_create_owned(&CheckLabels { outcome });
        Self {
            allowed: counter("allowed"),
            denied: counter("denied"),
            failed: counter("failed"),
            failed_open: counter("failed_open"),
            rows,
        }
    }
}

impl AuthorizerMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.rows.register_rows(registry);
    }
}
