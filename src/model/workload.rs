//! Workloads: pods, and processes that a directory describes like pods.

use std::net::IpAddr;

use super::{Binding, PeerAuthentication};
use crate::base::{Bits, Identity, LabelMap, ObjectKey, Str};

/// One workload.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Workload {
    /// `<cluster>//Pod/<namespace>/<name>`, as istiod writes it.
    pub uid: Str,
    pub key: ObjectKey,
    /// The pod's own UID (`metadata.uid`), where the source tells it: a pod that was made anew under its name is another
    /// one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Str>,
    pub identity: Identity,
    /// The node it runs on; empty when not scheduled yet.
    pub node: Str,
    /// IPv4 and IPv6 addresses; the first is the primary one. Empty while it has none.
    pub addresses: Vec<IpAddr>,
    /// The network namespace, as a path or as a name below `/run/netns`, where the source names one.
    pub network_namespace: Option<Str>,
    /// In the mesh: captured on its node, and reached by HBONE.
    pub enrolled: bool,
    /// Not enrolled only because its namespace is not known, for example since its manifest cannot be read: nothing is captured,
    /// and nothing that an agent before captured is opened.
    #[serde(skip)]
    pub unsure: bool,
    /// Shares the node's network: never captured, has no identity on the wire.
    pub host_network: bool,
    /// The pod of a gateway, which may dial pods and mean their service ([`Service::ingress`](super::Service::ingress)).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gateway: bool,
    /// What of its traffic is captured, where that is not all.
    #[serde(skip_serializing_if = "CaptureWishes::are_none")]
    pub capture: CaptureWishes,
    /// Passes its readiness conditions and is not being deleted.
    pub ready: bool,
    pub canonical: Canonical,
    pub locality: Locality,
    /// The waypoint for traffic that is addressed to the workload itself (`waypoint-for: workload` or `all`).
    pub waypoint: Binding,
    /// The effective PeerAuthentication, already merged over mesh, namespace and workload.
    pub peer_authentication: PeerAuthentication,
    /// AuthorizationPolicies with a selector that selects this workload.
    pub policies: Vec<ObjectKey>,
    /// Those of its labels that DestinationRules compare with endpoints'.
    #[serde(skip_serializing_if = "LabelMap::is_empty")]
    pub labels: LabelMap,
    /// DestinationRules of its namespace whose `workloadSelector` selects it, as a client.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Str>,
    /// It may connect to services and workloads that the mesh knows, and nowhere else (`outboundTrafficPolicy`).
    #[serde(skip_serializing_if = "is_false")]
    pub registry_only: bool,
    /// The selections of labels in VirtualServices (`sourceLabels`) that select it.
    #[serde(skip_serializing_if = "Bits::is_empty")]
    pub selected_by: Bits,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Workload {
    /// In the mesh: reached by HBONE only, never in the clear, and judged on its own node.
    pub fn is_captured(&self) -> bool {
        self.enrolled && !self.host_network
    }

    /// What counts as the source of its connection from `address`. A pod with CAP_NET_ADMIN gives itself any address, which no
    /// policy may believe and which is no other client: its primary one of that family takes its place.
    pub fn own_address(&self, address: IpAddr) -> IpAddr {
        let address = address.to_canonical();
        let same_family = |own: &&IpAddr| own.is_ipv4() == address.is_ipv4();
        match self.addresses.iter().find(same_family) {
            Some(primary) if !self.addresses.contains(&address) => *primary,
            _ => address,
        }
    }
}

/// What a pod's annotations say of its capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CaptureWishes {
    /// Whether its DNS is captured, instead of what the agent's settings say (`ambient.istio.io/dns-capture`).
    pub dns: Option<bool>,
    /// What arrives in the clear goes straight to the application (`ambient.istio.io/bypass-inbound-capture`).
    pub bypass_inbound: bool,
}

impl CaptureWishes {
    fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Names for telemetry (Istio "Canonical service"; labels `app` and `version`).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Canonical {
    /// The workload's owner, such as a Deployment; the pod's own name when it has none.
    pub workload: Str,
    pub service: Str,
    pub revision: Str,
    pub app: Str,
    pub version: Str,
}

/// Where a workload runs; empty texts mean unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Locality {
    pub region: Str,
    pub zone: Str,
    pub subzone: Str,
}
