//! Every setting, in the order of the file: one row each, with key, type, default, permitted values and meaning. The form of
//! a row is in `section.rs`.

mod addresses;
mod controller;
mod identity;
mod jwks;
mod layer4;
mod layer7;
mod node;
mod observe;
mod tls;
mod tracing;

pub use addresses::{AdminSettings, LogSettings, MetricsSettings, ReadinessSettings};
pub use controller::ControllerSettings;
pub use identity::{IdentitySettings, IssuerKind};
pub use jwks::JwksSettings;
pub use layer4::{Layer4Settings, PoolSettings};
pub use layer7::Layer7Settings;
pub use node::{
    CniSettings, DnsSettings, DrainSettings, SourceKind, SourceSettings, TakeoverSettings,
    WorkloadsSettings,
};
pub use observe::ObserveSettings;
pub use tls::TlsSettings;
pub use tracing::{Otlp, TracingSettings};

use super::check;
use super::reader::Reader;
use crate::base::Str;

/// Reads all settings. Errors are kept in the reader; the setting then has its default.
pub(super) fn read(reader: &mut Reader<'_>) -> Settings {
    let settings = Settings::read(reader);
    addresses::check_together(reader, &settings.admin, &settings.servers());
    settings
}

section! {
    /// Everything that an operator can set.
    pub struct Settings in "" {
        /// The name of this node in Pods (`spec.nodeName`). The agent captures only the pods of this node.
        node: Str = host_name().as_str(), machine_text("DNS name", ("the host name", "node-a"), check::dns_name),
            because "The kubelet names its node after the host, unless told otherwise.";

        /// The name of the cluster, for telemetry labels.
        cluster: Str = "Kubernetes", text("name", check::identifier),
            because "Istio's `CLUSTER_ID`.";

        /// The first part of every identity: `spiffe://<trust domain>/ns/<namespace>/sa/<account>`.
        trust_domain: Str = "cluster.local", text("DNS name", check::dns_name),
            because "Istio's `TRUST_DOMAIN`: another one would make every policy copied from a tutorial fail.";

        /// Other names of the trust domain, like MeshConfig.trustDomainAliases: their peers are accepted, and a policy
        /// that names one means all. For example `["old.example"]`.
        trust_domain_aliases: Vec<Str> = &[], texts("DNS name", check::dns_name),
            because "A new mesh has no other name.";

        /// The suffix of service names: `<name>.<namespace>.svc.<cluster domain>`.
        cluster_domain: Str = "cluster.local", text("DNS name", check::dns_name),
            because "Kubernetes' default domain of service names.";

        /// The namespace whose policies without a selector apply to the whole mesh.
        root_namespace: Str = "istio-system", text("DNS name", check::dns_name),
            because "Istio's default; mesh-wide policies are written for it.";

        /// Namespaces whose ServiceEntries apply to clients of every namespace, like those of the root namespace; "*"
        /// means all, as in Istio. Other entries apply to clients of their own namespace. Authors of entries in these
        /// namespaces can redirect the traffic of others to hosts and addresses outside the mesh.
        public_service_entries: Vec<Str> = &[], texts("namespace", check::namespace_or_all),
            because "An entry claims hosts and addresses that its namespace does not own.";

        /// The values of the label istio.io/rev on Gateways (or their namespaces) and routes that belong to this mesh:
        /// its revision, and tags of it. Objects of other revisions are ignored; objects without the label belong to
        /// every mesh. The controller needs the same value.
        revisions: Vec<Str> = &["default"], texts("DNS name", check::dns_name),
            because "Istio's default revision.";

        /// Traffic to an object that names a waypoint which does not exist: `refuse` rejects it, `layer4` lets it
        /// continue without routes until the waypoint exists, as Istio does, so that labels can be set before Gateways.
        /// A waypoint that is rejected or not ready, or that policies are attached to, is waited for in either case.
        /// The controller needs the same value.
        missing_waypoint: MissingWaypoint = MissingWaypoint::Refuse, choice(&[
                ("refuse", MissingWaypoint::Refuse),
                ("layer4", MissingWaypoint::Layer4),
            ]),
            because "A misspelt name must not disable the waypoint's policies.";

        /// How workloads of this node reach each other: `in_process` without encryption, because the bytes never leave
        /// the process, or `mtls` through a tunnel as between nodes. Policies apply in both cases.
        same_node: SameNode = SameNode::InProcess, choice(&[
                ("in_process", SameNode::InProcess),
                ("mtls", SameNode::Mtls),
            ]),
            because "Encryption within one process protects against nobody and costs CPU time.";

        ..source: SourceSettings,
        ..identity: IdentitySettings,
        ..admin: AdminSettings,
        ..metrics: MetricsSettings,
        ..readiness: ReadinessSettings,
        ..log: LogSettings,
        ..observe: ObserveSettings,
        ..tracing: TracingSettings,
        ..jwks: JwksSettings,
        ..tls: TlsSettings,
        ..layer4: Layer4Settings,
        ..layer7: Layer7Settings,
        ..pool: PoolSettings,
        ..drain: DrainSettings,
        ..takeover: TakeoverSettings,
        ..workloads: WorkloadsSettings,
        ..dns: DnsSettings,
        ..controller: ControllerSettings,
        ..cni: CniSettings,
    }
}

impl Settings {
    /// The addresses on which something listens, with their keys.
    fn servers(&self) -> [(&'static str, std::net::SocketAddr); 4] {
        [
            ("admin.address", self.admin.address),
            ("metrics.address", self.metrics.address),
            ("readiness.address", self.readiness.address),
            ("controller.address", self.controller.address),
        ]
    }
}

/// Traffic to an object whose waypoint does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingWaypoint {
    /// It is rejected.
    Refuse,
    /// It continues at layer 4, unless policies are attached that only a waypoint enforces.
    Layer4,
}

/// How workloads of one node reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SameNode {
    /// The bytes stay in the process; policies apply as for a tunnel.
    InProcess,
    /// Through a tunnel, as between nodes.
    Mtls,
}

/// The name of this machine, where it can be a node's.
fn host_name() -> String {
    /// Where the kernel tells the host name.
    const FILE: &str = "/proc/sys/kernel/hostname";
    /// What a host without a name is called.
    const UNNAMED: &str = "localhost";
    let host = std::fs::read_to_string(FILE).unwrap_or_default();
    let host = host.trim().to_ascii_lowercase();
    if check::dns_name(&host).is_ok() { host } else { UNNAMED.to_owned() }
}
