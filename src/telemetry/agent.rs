//! Metrics about the agent itself. Names are ztunnel's where it has one, `isthmus_` elsewhere.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::base::Str;

/// Handles for the rooms that know the values; cheap to clone.
#[derive(Clone, Default)]
pub struct AgentMetrics {
    /// Workloads of this node whose traffic is captured.
    pub active_workloads: Gauge,
    /// Workloads of this node that wait to be captured.
    pub pending_workloads: Gauge,
    pub workloads_started: Counter,
    pub workloads_stopped: Counter,
    /// Identities with a valid certificate.
    pub certificates: Gauge,
    /// Certificates that could not be issued or renewed.
    pub certificate_failures: Counter,
    /// Open tunnels, as a client.
    pub pool_connections: Gauge,
    /// Complaints about objects in the current state of the source.
    pub source_complaints: Gauge,
    worker_refusals: Family<WorkerLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct WorkerLabel(Str);

impl EncodeLabelSet for WorkerLabel {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        [("namespace", &*self.0)].encode(encoder)
    }
}

impl AgentMetrics {
    /// Counts the connections and requests that the waypoint worker of a namespace refused for lack of room. Take it
    /// once per worker.
    pub fn worker_refusals(&self, namespace: &Str) -> Counter {
        self.worker_refusals.get_or_create_owned(&WorkerLabel(namespace.clone()))
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "workload_manager_active_proxy_count",
            "Workloads of this node that are captured",
            self.active_workloads.clone(),
        );
        registry.register(
            "workload_manager_pending_proxy_count",
            "Workloads of this node that wait to be captured",
            self.pending_workloads.clone(),
        );
        registry.register(
            "workload_manager_proxies_started",
            "Workloads whose capture was started",
            self.workloads_started.clone(),
        );
        registry.register(
            "workload_manager_proxies_stopped",
            "Workloads whose capture was stopped",
            self.workloads_stopped.clone(),
        );
        registry.register(
            "isthmus_certificates",
            "Identities with a valid certificate",
            self.certificates.clone(),
        );
        registry.register(
            "isthmus_certificate_failures",
            "Certificates that could not be issued or renewed",
            self.certificate_failures.clone(),
        );
        registry.register(
            "isthmus_pool_connections",
            "Open tunnels to other workloads",
            self.pool_connections.clone(),
        );
        registry.register(
            "isthmus_source_complaints",
            "Complaints about objects that are not in force as written",
            self.source_complaints.clone(),
        );
        registry.register(
            "isthmus_worker_refusals",
            "Connections and requests that a waypoint worker had no room for",
            self.worker_refusals.clone(),
        );
    }
}

/// What the kernel knows of this process; read at each scrape.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            let open = i64::try_from(entries.count()).unwrap_or(i64::MAX);
            gauge(&mut encoder, "process_open_fds", "Open file descriptors", open)?;
        }
        if let Ok((soft, _)) =
            nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        {
            let limit = i64::try_from(soft).unwrap_or(i64::MAX);
            gauge(&mut encoder, "process_max_fds", "Limit of open file descriptors", limit)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}
