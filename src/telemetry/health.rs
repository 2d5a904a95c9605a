//! The agent's health: queues, memory and limits, so that it can be monitored and alerted on before traffic suffers.
//! Gauges are set just before a scrape.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A time or another value that is not an integer.
type Float = Gauge<f64, AtomicU64>;

metrics! {
    /// Handles for the rooms that know the values; cheap to clone.
    pub struct HealthMetrics {
        /// Workloads of this node whose capture started.
        pub workloads_started: Counter = "workload_manager_proxies_started";
        /// Workloads of this node whose capture ended.
        pub workloads_stopped: Counter = "workload_manager_proxies_stopped";
        /// Workloads at their connection limit ([layer4] max_connections); further connections wait.
        pub workloads_full: Gauge = "isthmus_workloads_full";
        /// Connections inside open tunnels to other workloads.
        pub pool_streams: Gauge = "isthmus_pool_streams";
        /// Identities whose last request to the issuer failed; a valid certificate may still be in use.
        pub certificates_failing: Gauge = "isthmus_certificates_failing";
        /// When the source was last read without an error.
        pub source_read: Float = "isthmus_source_last_read_timestamp_seconds";
        /// Increases with every applied change of the mesh's state.
        pub generation: Gauge = "isthmus_world_generation";
        /// Opening packets (SYN) of connections that would have bypassed a captured workload's agent, in either
        /// direction.
        uncaptured: Family<DirectionLabels, Counter> = "isthmus_uncaptured_connections_dropped";
        /// Packets that arrived at this node from the address of its probes, which only the node itself uses.
        spoofed_probes: Counter = "isthmus_spoofed_probes_dropped";
        ..workers: WorkerMetrics,
    }
}

metrics! {
    /// By waypoint worker; see [`WorkerHealth`].
    pub(super) struct WorkerMetrics {
        /// Connections of a namespace's waypoint worker.
        connections: Family<WorkerLabels, Gauge> = "isthmus_worker_connections";
        /// Connections that a waypoint worker has not accepted yet.
        waiting: Family<WorkerLabels, Gauge> = "isthmus_worker_waiting_connections";
        /// Requests in flight in a namespace's waypoint worker.
        requests: Family<WorkerLabels, Gauge> = "isthmus_worker_requests";
        /// Bytes reserved by the connections of a waypoint worker.
        buffered_bytes: Family<WorkerLabels, Gauge> = "isthmus_worker_buffered_bytes";
        /// Bytes that a waypoint worker may reserve ([layer7] max_buffered_bytes).
        buffered_bytes_limit: Family<WorkerLabels, Gauge> = "isthmus_worker_buffered_bytes_limit";
        /// Clients with connections to a namespace's waypoint worker.
        clients: Family<WorkerLabels, Gauge> = "isthmus_worker_clients";
    }
}

/// The current load of one waypoint worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerHealth {
    pub namespace: String,
    pub connections: usize,
    /// Handed over by layer 4 and not accepted yet.
    pub waiting: usize,
    pub requests: usize,
    /// Reserved, in bytes, and what may be.
    pub buffered_bytes: usize,
    pub buffered_bytes_limit: usize,
    /// Clients that hold anything in it.
    pub clients: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerLabels {
    namespace: String,
}

impl HealthMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.register_rows(registry);
        // They exist before anything is dropped, so that an alert sees the first packet.
        self.caught(0, 0, 0);
    }

    /// The packets that the capture rules dropped recently.
    pub fn caught(&self, inbound: u64, outbound: u64, spoofed: u64) {
        for (direction, count) in [("inbound", inbound), ("outbound", outbound)] {
            self.uncaptured.get_or_create(&DirectionLabels { direction }).inc_by(count);
        }
        self.spoofed_probes.inc_by(spoofed);
    }

    /// Replaces the values of all workers.
    pub fn workers(&self, all: &[WorkerHealth]) {
        let set = |family: &Family<WorkerLabels, Gauge>, value: fn(&WorkerHealth) -> usize| {
            family.clear();
            for worker in all {
                let labels = WorkerLabels { namespace: worker.namespace.clone() };
                let value = i64::try_from(value(worker)).unwrap_or(i64::MAX);
                family.get_or_create(&labels).set(value);
            }
        };
        let of = &self.workers;
        set(&of.connections, |it| it.connections);
        set(&of.waiting, |it| it.waiting);
        set(&of.requests, |it| it.requests);
        set(&of.buffered_bytes, |it| it.buffered_bytes);
        set(&of.buffered_bytes_limit, |it| it.buffered_bytes_limit);
        set(&of.clients, |it| it.clients);
    }
}
