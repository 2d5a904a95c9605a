//! Metrics of what is observed.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

metrics! {
    /// Counters and gauges of flows; cheap to clone.
    pub struct ObserveMetrics {
        /// Those who follow the flows of this agent now (isthmus observe --follow).
        pub observers: Gauge = "isthmus_observers";
        /// Flows that an observer was not shown, because it did not read fast enough; and those that found no place in the memory of
        /// flows.
        pub dropped: Counter = "isthmus_observed_flows_dropped";
        /// Pairs of workloads and what they call that the memory of the last hour has ([observe] pairs).
        pub pairs: Gauge = "isthmus_observed_pairs";
        /// Pairs that were forgotten within the hour, the least recently seen ones first, because there were too many ([observe] pairs).
        pub evicted: Counter = "isthmus_observed_pairs_evicted";
    }
}

impl ObserveMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.register_rows(registry);
    }
}
