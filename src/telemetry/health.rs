//! The agent's own health in numbers: what is queued, held and used up, so that it can be watched and alerted on before
//! anybody's traffic suffers. Read by whoever knows the values just before a scrape, except for what is counted.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A time or another value that is no whole number.
type Float = Gauge<f64, AtomicU64>;

metrics! {
    /// Handles for the rooms that know the values; cheap to clone.
    pub struct HealthMetrics {
        /// Workloads of this node whose capture began.
        pub workloads_started: Counter = "workload_manager_proxies_started";
        /// Workloads of this node whose capture ended.
        pub workloads_stopped: Counter = "workload_manager_proxies_stopped";
        /// Workloads with as many connections as they may have ([layer4] max_connections); more wait.
        pub workloads_full: Gauge = "isthmus_workloads_full";
        /// Connections inside of open tunnels to other workloads.
        pub pool_streams: Gauge = "isthmus_pool_streams";
        /// Identities whose last request to the issuer failed; a valid certificate may still be held.
        pub certificates_failing: Gauge = "isthmus_certificates_failing";
        /// When the source was last read without an error.
        pub source_read: Float = "isthmus_source_last_read_timestamp_seconds";
        /// Grows with every change of the mesh's state that was applied.
        pub generation: Gauge = "isthmus_world_generation";
        /// Opening packets (SYN) of connections that would have passed a captured workload's agent by, in either direction.
        uncaptured: Family<DirectionLabels, Counter> = "isthmus_uncaptured_connections_dropped";
        /// Packets that came to this node from the address of its probes, which only the node itself uses.
        spoofed_probes: Counter = "isthmus_spoofed_probes_dropped";
        ..workers: WorkerMetrics,
    }
}

metrics! {
    /// By waypoint worker; see [`WorkerHealth`].
    pub(super) struct WorkerMetrics {
        /// Connections of a namespace's waypoint worker.
        connections: Family<WorkerLabels, Gauge> = "isthmus_worker_connections";
        /// Connections that its waypoint worker has not taken yet.
        waiting: Family<WorkerLabels, Gauge> = "isthmus_worker_waiting_connections";
        /// Requests in flight in a namespace's waypoint worker.
        requests: Family<WorkerLabels, Gauge> = "isthmus_worker_requests";
        /// Bytes that a waypoint worker's connections have reserved.
        buffered_bytes: Family<WorkerLabels, Gauge> = "isthmus_worker_buffered_bytes";
        /// Bytes that a waypoint worker may reserve ([layer7] max_buffered_bytes).
        buffered_bytes_limit: Family<WorkerLabels, Gauge> = "isthmus_worker_buffered_bytes_limit";
        /// Clients that hold connections of a namespace's waypoint worker.
        clients: Family<WorkerLabels, Gauge> = "isthmus_worker_clients";
    }
}

/// What one waypoint worker holds now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerHealth {
    pub namespace: String,
    pub connections: usize,
    /// Handed over by layer 4 and not taken yet.
    pub waiting: usize,
    pub requests: usize,
    /// Reserved, in bytes, and what may be.
    pub buffered_bytes: usize,
    pub buffered_bytes_limit: usize,
    /// Clients that hold anything of it.
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
        // They are there before anything is caught, so that an alert can see the first one.
        self.caught(0, 0, 0);
    }

    /// What capture rules caught lately.
    pub fn caught(&self, inbound: u64, outbound: u64, spoofed: u64) {
        for (direction, count) in [("inbound", inbound), ("outbound", outbound)] {
            self.uncaptured.get_or_create(&DirectionLabels { direction }).inc_by(count);
        }
        self.spoofed_probes.inc_by(spoofed);
    }

    /// Replaces what is known of all workers.
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
