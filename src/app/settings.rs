//! The settings of rooms that need more than their own section of the file.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use ipnet::IpNet;

use super::certificates::trust_domains;
use crate::admin::Addresses;
use crate::base::{Rooms, Str};
use crate::config::{Otlp, SameNode, Settings, SourceKind, TracingSettings};
use crate::jwks::FetchSettings;
use crate::node::NodeSettings;
use crate::pool::PoolSettings;
use crate::source::TranslateSettings;
use crate::telemetry::SeriesLimits;
use crate::trace::{Protocol, Provider, Rate, Tracing};
use crate::workloads::ContainerRuntime;
use crate::world::MeshNames;

/// The time to write the last log lines.
pub(super) const LOG_FLUSH: Duration = Duration::from_secs(2);

pub(super) fn node_settings(settings: &Settings) -> NodeSettings {
    NodeSettings {
        name: settings.node.clone(),
        drain: settings.drain.clone(),
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

/// How everything is traced, where no object says otherwise: nowhere, unless a collector is set.
fn tracing(settings: &TracingSettings) -> Tracing {
    let collector = settings.collector.parse::<Authority>().ok();
    let provider = collector.and_then(|collector| {
        Some(Arc::new(Provider {
            name: "[tracing]".into(),
            host: Str::from(collector.host().trim_matches(['[', ']'])),
            namespace: None,
            tenant: None,
            port: collector.port_u16()?,
            protocol: match settings.protocol {
                Otlp::Grpc => Protocol::Grpc,
                Otlp::Http => Protocol::Http { path: Protocol::PATH },
            },
            timeout: Provider::TIMEOUT,
            headers: Vec::new(),
        }))
    });
    let rate = Rate::of_percentage(settings.per_mille as f64 / 10.0);
    Tracing { providers: provider.into_iter().collect(), rate, ..Tracing::default() }
}

/// Texts were checked when they were read; an address alone is a network of one.
pub(super) fn fetch_settings(settings: &Settings) -> FetchSettings {
    let net = |text: &Str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
    FetchSettings {
        allowed: settings.jwks.allowed_addresses.iter().filter_map(net).collect(),
        ca_file: settings.jwks.ca_file.clone(),
        cluster_domain: settings.cluster_domain.clone(),
    }
}

pub(super) fn pool_settings(settings: &Settings, rooms: Rooms) -> PoolSettings {
    PoolSettings {
        tunnels: settings.pool.clone(),
        connect_timeout: settings.layer4.connect_timeout,
        in_process: settings.same_node == SameNode::InProcess,
        rooms,
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
        tls_directory: settings.tls.directory.clone(),
        revisions: settings.revisions.clone(),
        missing_waypoint: settings.missing_waypoint,
        tracing: Arc::new(tracing(&settings.tracing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn an_empty_file_means_what_translation_takes_by_default() {
        let settings = Settings::parse("", &Overrides::default()).unwrap();
        let default = TranslateSettings::default();
        // How much is traced is nothing that objects are read by.
        let tracing = default.tracing.clone();
        assert_eq!(TranslateSettings { tracing, ..translate_settings(&settings) }, default);
    }
}
