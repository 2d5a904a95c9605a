//! GRPCRoute (Gateway API v1). What it shares with HTTPRoute is read there.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::http_route::first_of_each;
use super::{ParentRef, Resource, RouteBackendRef};
use crate::filter::{Manifest, whole};
use crate::model::{HeaderMatch, HttpMatch, PathMatch, TextMatch};

pub type GrpcRoute = Resource<GrpcRouteSpec>;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRouteSpec {
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Without meaning for Service parents.
    #[serde(default)]
    pub hostnames: Vec<String>,
    #[serde(default)]
    pub rules: Vec<GrpcRouteRule>,
    #[serde(default, rename = "useDefaultGateways")]
    _use_default_gateways: IgnoredAny,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRouteRule {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub matches: Vec<GrpcRouteMatch>,
    #[serde(default)]
    pub filters: Vec<Manifest>,
    #[serde(default)]
    pub backend_refs: Vec<RouteBackendRef>,
    #[serde(default)]
    pub session_persistence: Option<Value>,
}

/// One entry of `matches`, read into the model's own type.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawMatch")]
pub struct GrpcRouteMatch(pub HttpMatch);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMatch {
    #[serde(default)]
    method: Option<RawMethod>,
    #[serde(default)]
    headers: Vec<HeaderMatch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMethod {
    #[serde(default, rename = "type")]
    kind: MethodMatchType,
    #[serde(default)]
    service: Option<String>,
    #[serde(default)]
    method: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
enum MethodMatchType {
    #[default]
    Exact,
    RegularExpression,
}

impl TryFrom<RawMatch> for GrpcRouteMatch {
    type Error = String;

    fn try_from(raw: RawMatch) -> Result<Self, String> {
        let (service, method) = match raw.method {
            None => (None, None),
            Some(RawMethod { service: None, method: None, .. }) => {
                return Err("method: needs a service, a method or both".to_owned());
            }
            Some(RawMethod { kind, service, method }) => {
                (part(kind, "service", service)?, part(kind, "method", method)?)
            }
        };
        Ok(Self(HttpMatch {
            path: PathMatch::Grpc { service, method },
            headers: first_of_each(raw.headers),
            ..HttpMatch::default()
        }))
    }
}

/// An empty text means any (GRPCMethodMatch).
fn part(
    kind: MethodMatchType,
    field: &str,
    value: Option<String>,
) -> Result<Option<TextMatch>, String> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    match kind {
        MethodMatchType::Exact if value.contains('/') => {
            Err(format!("method.{field}: {value:?} must not contain /"))
        }
        MethodMatchType::Exact => Ok(Some(TextMatch::Exact(value.into()))),
        MethodMatchType::RegularExpression => whole(&value)
            .map(|regex| Some(TextMatch::Regex(regex)))
            .map_err(|why| format!("method.{field}: {why}")),
    }
}
