//! Metrics of rate limits.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

metrics! {
    struct Rows {
        /// Requests (and connections: `limit="connections"`) that rate limits of TrafficPolicies counted, by limit (`local`, `global`)
        /// and by outcome: `ok`, `over_limit` (refused), and of global ones `shadow` (it would be refused), `error` (the service
        /// could not be asked, and the request was refused) and `failure_mode_allowed` (the same, and it passed).
        counted: Family<CountLabels, Counter> = "isthmus_rate_limits";
    }
}

/// Counters by limit and outcome, looked up once; cheap to clone.
#[derive(Clone)]
pub struct RateLimitMetrics {
    pub local: CountedLocally,
    pub connections: CountedLocally,
    pub global: CountedGlobally,
    rows: Rows,
}

/// By an agent.
#[derive(Clone)]
pub struct CountedLocally {
    pub ok: Counter,
    pub over_limit: Counter,
}

/// By a service.
#[derive(Clone)]
pub struct CountedGlobally {
    pub ok: Counter,
    pub over_limit: Counter,
    /// A limit in shadow mode is reached.
    pub shadow: Counter,
    /// The service could not be asked; the request was refused.
    pub error: Counter,
    /// The same; the request passed.
    pub failed_open: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CountLabels {
    limit: &'static str,
    outcome: &'static str,
}

impl Default for RateLimitMetrics {
    fn default() -> Self {
        let rows = Rows::default();
        let counter =
            |limit, outcome| rows.counted.get_or_create_owned(&CountLabels { limit, outcome });
        let locally = |limit| CountedLocally {
            ok: counter(limit, "ok"),
            over_limit: counter(limit, "over_limit"),
        };
        let global = CountedGlobally {
            ok: counter("global", "ok"),
            over_limit: counter("global", "over_limit"),
            shadow: counter("global", "shadow"),
            error: counter("global", "error"),
            failed_open: counter("global", "failure_mode_allowed"),
        };
        Self { local: locally("local"), connections: locally("connections"), global, rows }
    }
}

impl RateLimitMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.rows.register_rows(registry);
    }
}
