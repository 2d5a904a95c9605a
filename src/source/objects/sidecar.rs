//! Sidecar (Istio `networking.istio.io/v1`), of which `outboundTrafficPolicy` means something without sidecars. The rest is read
//! as far as is needed to say that it has no effect.

use serde::Deserialize;
use serde_json::Value;

use super::{EntrySelector, Resource};

pub type Sidecar = Resource<SidecarSpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SidecarSpec {
    /// The workloads of the namespace that are meant; all of them without one.
    #[serde(default)]
    pub workload_selector: Option<EntrySelector>,
    #[serde(default)]
    pub ingress: Vec<Value>,
    #[serde(default)]
    pub egress: Vec<Value>,
    #[serde(default)]
    pub inbound_connection_pool: Option<Value>,
    /// MeshConfig's holds without one.
    #[serde(default)]
    pub outbound_traffic_policy: Option<SidecarOutbound>,
}

/// `OutboundTrafficPolicy` of a Sidecar.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SidecarOutbound {
    /// REGISTRY_ONLY, which is the default, or ALLOW_ANY.
    #[serde(default)]
    pub mode: Option<String>,
    #[serde(default)]
    pub egress_proxy: Option<Value>,
}
