//! TCPRoute and TLSRoute (Gateway API v1). What they share with HTTPRoute is read there.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::http_route::weight;
use super::{ParentRef, Resource};
use crate::filter::{BackendObject, backend};

pub type TcpRoute = Resource<TcpRouteSpec>;
pub type TlsRoute = Resource<TlsRouteSpec>;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRouteSpec {
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Exactly one since v1.
    #[serde(default)]
    pub rules: Vec<StreamRule>,
    #[serde(default, rename = "useDefaultGateways")]
    _use_default_gateways: IgnoredAny,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsRouteSpec {
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Names of servers (SNI); a first label may be `*`.
    #[serde(default)]
    pub hostnames: Vec<String>,
    #[serde(default)]
    pub rules: Vec<StreamRule>,
    #[serde(default, rename = "useDefaultGateways")]
    _use_default_gateways: IgnoredAny,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamRule {
    #[serde(default, rename = "name")]
    _name: IgnoredAny,
    #[serde(default)]
    pub backend_refs: Vec<StreamBackendRef>,
}

/// BackendRef: without filters.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "RawBackendRef")]
pub struct StreamBackendRef {
    pub object: BackendObject,
    pub weight: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawBackendRef {
    #[serde(default)]
    group: String,
    #[serde(default = "backend::service_kind")]
    kind: String,
    #[serde(default)]
    namespace: Option<String>,
    name: String,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default = "one", deserialize_with = "weight")]
    weight: u32,
}

impl From<RawBackendRef> for StreamBackendRef {
    fn from(raw: RawBackendRef) -> Self {
        let RawBackendRef { group, kind, namespace, name, port, weight } = raw;
        Self { object: BackendObject { group, kind, namespace, name, port }, weight }
    }
}

fn one() -> u32 {
    1
}
