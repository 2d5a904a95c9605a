//! Every setting, in the order of the file: one row each, with key, type, default, permitted values and meaning. The form of
//! a row is in `section.rs`.

mod addresses;
mod controller;
mod identity;
mod layer4;
mod layer7;
mod node;

pub use addresses::{AdminSettings, LogSettings, MetricsSettings, ReadinessSettings};
pub use controller::ControllerSettings;
pub use identity::{IdentitySettings, IssuerKind};
pub use layer4::{Layer4Settings, PoolSettings};
pub use layer7::Layer7Settings;
pub use node::{
    CniSettings, DnsSettings, DrainSettings, SourceKind, SourceSettings, TakeoverSettings,
    WorkloadsSettings,
};

use super::check;
use super::reader::Reader;
use crate::base::Str;

/// Reads all settings. What is wrong is kept in the reader, with the default in its place.
pub(super) fn read(reader: &mut Reader<'_>) -> Settings {
    let settings = Settings::read(reader);
    addresses::check_together(reader, &settings.admin, &settings.servers());
    settings
}

section! {
    /// Everything that an operator can set.
    pub struct Settings in "" {
        /// The name of this node, as pods name it; the agent captures the pods of this node only.
        node: Str = host_name().as_str(), machine_text("DNS name", ("the host name", "node-a"), check::dns_name),
            because "The kubelet names its node after the host, unless told otherwise.";

        /// The cluster's name, for labels.
        cluster: Str = "Kubernetes", text("name", check::identifier),
            because "Istio's `CLUSTER_ID`.";

        /// The first part of every identity: `spiffe://<trust domain>/ns/<namespace>/sa/<account>`.
        trust_domain: Str = "cluster.local", text("DNS name", check::dns_name),
            because "Istio's `TRUST_DOMAIN`: another one would make every policy copied from a tutorial fail.";

        /// Other names of the trust domain, as MeshConfig.trustDomainAliases: peers of them are accepted, and a policy that
        /// names one means all. Such as `["old.example"]`.
        trust_domain_aliases: Vec<Str> = &[], texts("DNS name", check::dns_name),
            because "A new mesh has had no other name.";

        /// The end of service names: `<name>.<namespace>.svc.<cluster domain>`.
        cluster_domain: Str = "cluster.local", text("DNS name", check::dns_name),
            because "Kubernetes' default domain of service names.";

        /// The namespace whose policies without a selector hold for the whole mesh.
        root_namespace: Str = "istio-system", text("DNS name", check::dns_name),
            because "Istio's default; mesh-wide policies are written for it.";

        /// Namespaces whose ServiceEntries hold for clients of every namespace, as those of the root namespace do; "*" for
        /// all, as in Istio. Others hold for clients of their own namespace. Whoever may write entries there decides where
        /// others' traffic to hosts and addresses outside of the mesh goes.
        public_service_entries: Vec<Str> = &[], texts("namespace", check::namespace_or_all),
            because "An entry claims hosts and addresses that nobody gave its namespace.";

        /// What Gateways (or their namespaces) and routes may have in the label istio.io/rev to be this mesh's: its revision,
        /// and tags of it. Those of other revisions are left alone; objects without the label are everybody's. The controller
        /// needs the same value.
        revisions: Vec<Str> = &["default"], texts("DNS name", check::dns_name),
            because "Istio's revision where nobody names one.";

        /// What becomes of traffic for an object that names a waypoint which does not exist: `refuse` refuses it, `layer4`
        /// lets it go on without routes until there is one, as Istio does, so that labels may come before Gateways. A
        /// waypoint that is refused or not ready, and one that policies are attached to, is waited for either way. The
        /// controller needs the same value.
        missing_waypoint: MissingWaypoint = MissingWaypoint::Refuse, choice(&[
                ("refuse", MissingWaypoint::Refuse),
                ("layer4", MissingWaypoint::Layer4),
            ]),
            because "A misspelled name must not switch off what the waypoint is for.";

        /// How workloads of this node reach each other: `in_process` without encryption, since the bytes never leave the
        /// process, or `mtls` through a tunnel as between nodes. Policies are the same.
        same_node: SameNode = SameNode::InProcess, choice(&[
                ("in_process", SameNode::InProcess),
                ("mtls", SameNode::Mtls),
            ]),
            because "Encryption within one process protects from nobody and takes processor time.";

        ..source: SourceSettings,
        ..identity: IdentitySettings,
        ..admin: AdminSettings,
        ..metrics: MetricsSettings,
        ..readiness: ReadinessSettings,
        ..log: LogSettings,
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

/// What becomes of traffic for an object whose waypoint does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingWaypoint {
    /// It is refused.
    Refuse,
    /// It goes on at layer 4, unless policies are attached that only a waypoint enforces.
    Layer4,
}

/// How workloads of one node reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SameNode {
    /// The bytes stay in the process; policies are judged as for a tunnel.
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
