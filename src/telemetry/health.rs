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

/// Handles for the rooms that know the values; cheap to clone.
#[derive(Clone, Default)]
pub struct HealthMetrics {
    /// Workloads whose capture began, and ended.
    pub workloads_started: Counter,
    pub workloads_stopped: Counter,
    /// Workloads whose new connections must wait.
    pub workloads_full: Gauge,
    /// Streams that are open in tunnels, as a client.
    pub pool_streams: Gauge,
    /// Identities whose last request to the issuer failed.
    pub certificates_failing: Gauge,
    /// When the source was last read without an error, in seconds since 1970; 0 before that.
    pub source_read: Float,
    /// Grows with every change of the mesh's state.
    pub generation: Gauge,
    /// New connections that capture rules caught, and packets that were no probes.
    uncaptured: Family<DirectionLabels, Counter>,
    spoofed_probes: Counter,
    /// By waypoint worker; see [`WorkerHealth`].
    workers: [Family<WorkerLabels, Gauge>; 6],
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

/// In the order of the families.
const WORKERS: [(&str, &str); 6] = [
    ("isthmus_worker_connections", "Connections of a namespace's waypoint worker"),
    (
        "isthmus_worker_waiting_connections",
        "Connections that its waypoint worker has not taken yet",
    ),
    ("isthmus_worker_requests", "Requests in flight in a namespace's waypoint worker"),
    ("isthmus_worker_buffered_bytes", "Bytes that a waypoint worker's connections have reserved"),
    (
        "isthmus_worker_buffered_bytes_limit",
        "Bytes that a waypoint worker may reserve ([layer7] max_buffered_bytes)",
    ),
    ("isthmus_worker_clients", "Clients that hold connections of a namespace's waypoint worker"),
];

impl HealthMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "workload_manager_proxies_started",
            "Workloads of this node whose capture began",
            self.workloads_started.clone(),
        );
        registry.register(
            "workload_manager_proxies_stopped",
            "Workloads of this node whose capture ended",
            self.workloads_stopped.clone(),
        );
        registry.register(
            "isthmus_workloads_full",
            "Workloads with as many connections as they may have ([layer4] max_connections); more wait",
            self.workloads_full.clone(),
        );
        registry.register(
            "isthmus_pool_streams",
            "Connections inside of open tunnels to other workloads",
            self.pool_streams.clone(),
        );
        registry.register(
            "isthmus_certificates_failing",
            "Identities whose last request to the issuer failed; a valid certificate may still be held",
            self.certificates_failing.clone(),
        );
        registry.register(
            "isthmus_source_last_read_timestamp_seconds",
            "When the source was last read without an error",
            self.source_read.clone(),
        );
        registry.register(
            "isthmus_world_generation",
            "Grows with every change of the mesh's state that was applied",
            self.generation.clone(),
        );
        registry.register(
            "isthmus_uncaptured_connections_dropped",
            "Opening packets (SYN) of connections that would have passed a captured workload's agent by, in either direction",
            self.uncaptured.clone(),
        );
        registry.register(
            "isthmus_spoofed_probes_dropped",
            "Packets that came to this node from the address of its probes, which only the node itself uses",
            self.spoofed_probes.clone(),
        );
        // They are there before anything is caught, so that an alert can see the first one.
        self.caught(0, 0, 0);
        for ((name, help), family) in WORKERS.iter().zip(&self.workers) {
            registry.register(*name, *help, family.clone());
        }
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
        self.workers.iter().for_each(Family::clear);
        for worker in all {
            let labels = WorkerLabels { namespace: worker.namespace.clone() };
            let values = [
                worker.connections,
                worker.waiting,
                worker.requests,
                worker.buffered_bytes,
                worker.buffered_bytes_limit,
                worker.clients,
            ];
            for (family, value) in self.workers.iter().zip(values) {
                family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
    }
}
