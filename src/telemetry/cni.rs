//! Metrics of the CNI plugin's requests to the agent.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds in seconds: some milliseconds if the certificate exists already, and no more than the plugin's timeout.
const BUCKETS: [f64; 9] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

metrics! {
    /// Handles for the agent's end of the plugin's socket; cheap to clone.
    pub struct CniMetrics {
        /// Requests of the CNI plugin, by command (`ADD`, `DEL`, `CHECK`) and outcome: `done`, `not_enrolled` (not in
        /// the mesh), `unknown` (the agent has not heard of the pod), `refused` (it could not be captured),
        /// `unanswered` (plugin or agent ended before).
        requests: Family<CniLabels, Counter> = "isthmus_cni_requests";
        /// How long starting pods of the mesh waited for their capture and their certificate, successfully or not.
        add_duration: Histogram = "isthmus_cni_add_duration", Seconds, BUCKETS;
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CniLabels {
    command: &'static str,
    outcome: &'static str,
}

impl CniMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.register_rows(registry);
    }

    /// A request was answered, or not; both texts are of few.
    pub fn request(&self, command: &'static str, outcome: &'static str) {
        self.requests.get_or_create(&CniLabels { command, outcome }).inc();
    }

    /// The start of a pod of the mesh was delayed for this duration.
    pub fn add(&self, took: Duration) {
        self.add_duration.observe(took.as_secs_f64());
    }
}
