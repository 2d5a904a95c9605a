//! The settings of each room.

use std::time::Duration;

use super::certificates::trust_domains;
use crate::admin::Addresses;
use crate::base::Rooms;
use crate::config::{SameNode, Settings, SourceKind};
use crate::l4::Layer4Settings;
use crate::l7::WorkerSettings;
use crate::node::NodeSettings;
use crate::pool::PoolSettings;
use crate::source::TranslateSettings;
use crate::telemetry::SeriesLimits;
use crate::workloads::ContainerRuntime;
use crate::world::MeshNames;

/// The time to write the last log lines.
pub(super) const LOG_FLUSH: Duration = Duration::from_secs(2);

pub(super) fn node_settings(settings: &Settings) -> NodeSettings {
    NodeSettings {
        name: settings.node.clone(),
        drain: settings.drain.deadline,
        runtime: (settings.source.kind == SourceKind::Kubernetes)
            .then(|| ContainerRuntime::new(settings.workloads.runtime_socket.as_deref())),
    }
}

pub(super) fn addresses(settings: &Settings) -> Addresses {
    Addresses {
        directory: settings.admin.directory.clone(),
        node: settings.node.to_string(),
        pages: settings.admin.tcp.then_some(settings.admin.address),
        metrics: settings.metrics.address,
        readiness: settings.readiness.address,
    }
}

pub(super) fn series_limits(settings: &Settings) -> SeriesLimits {
    SeriesLimits {
        total: settings.metrics.max_series,
        namespace: settings.metrics.max_namespace_series,
    }
}

pub(super) fn mesh_names(settings: &Settings) -> MeshNames {
    MeshNames {
        trust_domains: trust_domains(settings),
        root_namespace: settings.root_namespace.clone(),
    }
}

pub(super) fn pool_settings(settings: &Settings, rooms: Rooms) -> PoolSettings {
    PoolSettings {
        max_streams: settings.pool.max_streams,
        idle_timeout: settings.pool.idle_timeout,
        connect_timeout: settings.layer4.connect_timeout,
        in_process: settings.same_node == SameNode::InProcess,
        rooms,
    }
}

pub(super) fn layer4_settings(settings: &Settings) -> Layer4Settings {
    Layer4Settings {
        max_connections: settings.layer4.max_connections,
        max_peer_connections: settings.layer4.max_peer_connections,
        max_peer_tunnels: settings.layer4.max_peer_tunnels,
        connect_timeout: settings.layer4.connect_timeout,
        handshake_timeout: settings.layer4.connect_timeout,
        cluster: settings.cluster.clone(),
    }
}

pub(super) fn worker_settings(settings: &Settings) -> WorkerSettings {
    WorkerSettings {
        threads: settings.layer7.threads,
        max_connections: settings.layer7.max_connections,
        max_requests: settings.layer7.max_requests,
        max_buffered_bytes: settings.layer7.max_buffered_bytes,
        max_headers: settings.layer7.max_headers,
        max_streams: settings.layer7.max_http2_streams,
        tenant_share: settings.layer7.tenant_share,
        client_share: settings.layer7.client_share,
        head_timeout: settings.layer7.head_timeout,
        idle_timeout: settings.layer7.idle_timeout,
        detect_timeout: settings.layer7.detect_timeout,
        connect_timeout: settings.layer4.connect_timeout,
    }
}

/// The names that translation needs, from the settings.
pub fn translate_settings(settings: &Settings) -> TranslateSettings {
    TranslateSettings {
        cluster: settings.cluster.clone(),
        trust_domains: trust_domains(settings),
        cluster_domain: settings.cluster_domain.clone(),
        root_namespace: settings.root_namespace.clone(),
        public_service_entries: settings.public_service_entries.clone(),
        revisions: settings.revisions.clone(),
        missing_waypoint: settings.missing_waypoint,
    }
}
