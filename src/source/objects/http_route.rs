//! HTTPRoute (Gateway API v1). Matches and header filters are checked while reading, so a route with a bad one keeps
//! its last good version. Parts that the API has and we do not carry out are kept as they stand: the translator makes
//! the rule answer with an error rather than ignore them.

mod limits;
mod matches;

pub use limits::{RawRetry, RawTimeouts};
pub use matches::RouteMatch;
pub(super) use matches::first_of_each;

use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{GATEWAY_GROUP, Resource};
use crate::filter::{BackendObject, Manifest, backend};

pub type HttpRoute = Resource<HttpRouteSpec>;

/// The largest weight that Gateway API allows.
const MAX_WEIGHT: u32 = 1_000_000;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteSpec {
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Without meaning for Service parents.
    #[serde(default)]
    pub hostnames: Vec<String>,
    #[serde(default)]
    pub rules: Vec<HttpRouteRule>,
    #[serde(default, rename = "useDefaultGateways")]
    _use_default_gateways: IgnoredAny,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    #[serde(default = "gateway_group")]
    pub group: String,
    #[serde(default = "gateway_kind")]
    pub kind: String,
    #[serde(default)]
    pub namespace: Option<String>,
    pub name: String,
    /// For a Service the name of one of its ports.
    #[serde(default)]
    pub section_name: Option<String>,
    #[serde(default)]
    pub port: Option<u16>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteRule {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub matches: Vec<RouteMatch>,
    #[serde(default)]
    pub filters: Vec<Manifest>,
    #[serde(default)]
    pub backend_refs: Vec<RouteBackendRef>,
    #[serde(default)]
    pub timeouts: Option<RawTimeouts>,
    #[serde(default)]
    pub retry: Option<RawRetry>,
    #[serde(default)]
    pub session_persistence: Option<Value>,
}

/// HTTPBackendRef or GRPCBackendRef.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "RawBackendRef")]
pub struct RouteBackendRef {
    pub object: BackendObject,
    pub weight: u32,
    pub filters: Vec<Manifest>,
}

/// Flat: serde cannot refuse unknown fields of a structure within a structure.
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
    #[serde(default)]
    filters: Vec<Manifest>,
}

impl From<RawBackendRef> for RouteBackendRef {
    fn from(raw: RawBackendRef) -> Self {
        let RawBackendRef { group, kind, namespace, name, port, weight, filters } = raw;
        Self { object: BackendObject { group, kind, namespace, name, port }, weight, filters }
    }
}

/// A part that says something that we do not carry out, or that nobody could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Relative to the rule.
    pub field: String,
    pub why: String,
}

impl Unsupported {
    pub(super) fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into() }
    }
}

/// Whether a field that is kept as it stands says anything.
pub fn says_something(value: &Option<Value>) -> bool {
    value.as_ref().is_some_and(|value| value.as_object().is_none_or(|map| !map.is_empty()))
}

fn gateway_group() -> String {
    GATEWAY_GROUP.to_owned()
}

fn gateway_kind() -> String {
    "Gateway".to_owned()
}

fn one() -> u32 {
    1
}

pub(super) fn weight<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let weight = Option::<u32>::deserialize(from)?.unwrap_or(1);
    if weight > MAX_WEIGHT {
        return Err(D::Error::custom(format!("must be from 0 to {MAX_WEIGHT}, not {weight}")));
    }
    Ok(weight)
}
