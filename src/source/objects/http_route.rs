//! HTTPRoute (Gateway API v1). Matches and header filters are checked while reading, so a route with a bad one keeps
//! its last good version. Parts that the API has and we do not carry out are kept as they stand: the translator makes
//! the rule answer with an error rather than ignore them.

mod filter;
mod matches;

pub use filter::HttpRouteFilter;
pub use matches::RouteMatch;

use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{GATEWAY_GROUP, Resource};

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
    pub filters: Vec<HttpRouteFilter>,
    #[serde(default)]
    pub backend_refs: Vec<HttpBackendRef>,
    #[serde(default)]
    pub timeouts: Option<Value>,
    #[serde(default)]
    pub retry: Option<Value>,
    #[serde(default)]
    pub session_persistence: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpBackendRef {
    #[serde(default)]
    pub group: String,
    #[serde(default = "service_kind")]
    pub kind: String,
    #[serde(default)]
    pub namespace: Option<String>,
    pub name: String,
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(default = "one", deserialize_with = "weight")]
    pub weight: u32,
    #[serde(default)]
    pub filters: Vec<Value>,
}

impl HttpRouteRule {
    /// Fields that say something and that we do not carry out.
    pub fn unsupported(&self) -> impl Iterator<Item = &'static str> {
        let says = |value: &Option<Value>| {
            value.as_ref().is_some_and(|value| value.as_object().is_none_or(|map| !map.is_empty()))
        };
        [
            ("timeouts", says(&self.timeouts)),
            ("retry", says(&self.retry)),
            ("sessionPersistence", says(&self.session_persistence)),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
    }
}

fn gateway_group() -> String {
    GATEWAY_GROUP.to_owned()
}

fn gateway_kind() -> String {
    "Gateway".to_owned()
}

fn service_kind() -> String {
    "Service".to_owned()
}

fn one() -> u32 {
    1
}

fn weight<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let weight = Option::<u32>::deserialize(from)?.unwrap_or(1);
    if weight > MAX_WEIGHT {
        return Err(D::Error::custom(format!("must be from 0 to {MAX_WEIGHT}, not {weight}")));
    }
    Ok(weight)
}
