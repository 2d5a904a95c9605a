//! Gateway (Gateway API v1): what a waypoint needs of it. What means nothing to an agent that deploys no proxy is kept as it
//! stands, so that a complaint can name it.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{LabelSelector, Resource};
use crate::base::ports;

pub type Gateway = Resource<GatewaySpec>;

pub type GatewayClass = Resource<GatewayClassSpec>;

/// Who serves the Gateways of a class. Agents have the classes that they serve built in; the controller asks whose
/// they are.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayClassSpec {
    pub controller_name: String,
    #[serde(default, rename = "parametersRef")]
    _parameters_ref: IgnoredAny,
    #[serde(default, rename = "description")]
    _description: IgnoredAny,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewaySpec {
    pub gateway_class_name: String,
    #[serde(default)]
    pub listeners: Vec<Listener>,
    #[serde(default)]
    pub addresses: Option<Value>,
    #[serde(default)]
    pub infrastructure: Option<Value>,
    #[serde(default)]
    pub allowed_listeners: Option<Value>,
    #[serde(default)]
    pub tls: Option<Value>,
    #[serde(default, rename = "backendTLS")]
    pub backend_tls: Option<Value>,
    #[serde(default)]
    pub default_scope: Option<Value>,
}

/// A listener. The protocol is an open set of names (`HBONE` is Istio's).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    pub name: String,
    pub port: u16,
    pub protocol: String,
    #[serde(default)]
    pub allowed_routes: Option<AllowedRoutes>,
    #[serde(default)]
    pub hostname: Option<Value>,
    #[serde(default)]
    pub tls: Option<Value>,
}

impl Listener {
    /// The protocol of a waypoint's listener.
    pub const HBONE: &str = "HBONE";

    /// Whether it takes the traffic of a mesh.
    pub fn is_hbone(&self) -> bool {
        self.protocol == Self::HBONE && self.port == ports::HBONE
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowedRoutes {
    #[serde(default)]
    pub namespaces: Option<AllowedNamespaces>,
    #[serde(default)]
    pub kinds: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowedNamespaces {
    #[serde(default)]
    pub from: NamespacesFrom,
    /// Only with `from: Selector`.
    #[serde(default)]
    pub selector: Option<LabelSelector>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum NamespacesFrom {
    #[default]
    Same,
    All,
    Selector,
}
