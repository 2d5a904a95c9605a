//! Gateway (Gateway API v1): what a waypoint needs of it. Addresses and infrastructure mean nothing to an agent that
//! deploys no proxy, so they are accepted and not read.

use serde::Deserialize;
use serde::de::IgnoredAny;

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
    #[serde(default, rename = "addresses")]
    _addresses: IgnoredAny,
    #[serde(default, rename = "infrastructure")]
    _infrastructure: IgnoredAny,
    #[serde(default, rename = "allowedListeners")]
    _allowed_listeners: IgnoredAny,
    #[serde(default, rename = "tls")]
    _tls: IgnoredAny,
    #[serde(default, rename = "backendTLS")]
    _backend_tls: IgnoredAny,
    #[serde(default, rename = "defaultScope")]
    _default_scope: IgnoredAny,
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
    #[serde(default, rename = "hostname")]
    _hostname: IgnoredAny,
    #[serde(default, rename = "tls")]
    _tls: IgnoredAny,
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
    #[serde(default, rename = "kinds")]
    _kinds: IgnoredAny,
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
