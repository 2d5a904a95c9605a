//! Metrics of fetched keys.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

metrics! {
    struct Rows {
        /// Fetches of issuers' keys (`jwksUri`), by result: `fetched`, `unchanged` (the server has no newer ones), `failed`, `refused` (the
        /// host has an address that agents do not connect to).
        fetches: Family<FetchLabels, Counter> = "isthmus_jwks_fetches";
        /// Requests that did not wait for an issuer's keys, because too many waited already or too many addresses are known.
        pub limited: Counter = "isthmus_jwks_limited";
    }
}

/// Counters of fetches by result, looked up once; cheap to clone.
#[derive(Clone)]
pub struct JwksMetrics {
    pub fetched: Counter,
    pub unchanged: Counter,
    pub failed: Counter,
    pub refused: Counter,
    pub limited: Counter,
    rows: Rows,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    result: &'static str,
}

impl Default for JwksMetrics {
    fn default() -> Self {
        let rows = Rows::default();
        let counter = |result| rows.fetches.get_or_create_owned(&FetchLabels { result });
        Self {
            fetched: counter("fetched"),
            unchanged: counter("unchanged"),
            failed: counter("failed"),
            refused: counter("refused"),
            limited: rows.limited.clone(),
            rows,
        }
    }
}

impl JwksMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.rows.register_rows(registry);
    }
}
