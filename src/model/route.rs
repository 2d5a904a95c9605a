//! HTTPRoutes with Service parents (Gateway API v1; GEP-1226, GEP-1294, GEP-1324).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::base::{ObjectKey, Str};

/// One HTTPRoute.
#[derive(Clone, Debug, serde::Serialize)]
pub struct HttpRoute {
    pub key: ObjectKey,
    /// `metadata.creationTimestamp` in seconds since the epoch; 0 when unknown. The older route wins a tie.
    pub created: i64,
    pub parents: Vec<RouteParent>,
    pub rules: Vec<HttpRule>,
}

/// A Service that the route is attached to. In the service's namespace the route is a producer's and holds for
/// every client; elsewhere it is a consumer's and holds for clients of its own namespace (GEP-1324).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RouteParent {
    pub service: ObjectKey,
    /// `None`: every port of the service.
    pub port: Option<u16>,
}

/// One rule.
#[derive(Clone, Debug, serde::Serialize)]
pub struct HttpRule {
    /// Empty when the route does not name it.
    pub name: Str,
    /// Never empty: a rule without matches has one that takes everything.
    pub matches: Vec<HttpMatch>,
    pub filters: Vec<HttpFilter>,
    pub backends: Vec<Backend>,
    /// How many requests were split over `backends` so far: makes the split exact over short runs.
    /// Shared by the clones of a rule.
    #[serde(skip)]
    pub turn: Arc<AtomicU64>,
}

/// All parts must match.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct HttpMatch {
    pub path: PathMatch,
    pub headers: Vec<HeaderMatch>,
    /// Name and match of query parameters.
    pub query: Vec<(Str, TextMatch)>,
    #[serde(serialize_with = "text_option")]
    pub method: Option<Method>,
}

#[derive(Clone, Debug, serde::Serialize)]
pub enum PathMatch {
    Exact(Str),
    /// By path segments, without a trailing slash except for `/` itself.
    Prefix(Str),
    /// The whole path.
    Regex(#[serde(serialize_with = "text")] regex::Regex),
}

impl Default for PathMatch {
    fn default() -> Self {
        PathMatch::Prefix(arcstr::literal!("/"))
    }
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct HeaderMatch {
    #[serde(serialize_with = "text")]
    pub name: HeaderName,
    pub value: TextMatch,
}

#[derive(Clone, Debug, serde::Serialize)]
pub enum TextMatch {
    Exact(Str),
    /// The whole text.
    Regex(#[serde(serialize_with = "text")] regex::Regex),
}

/// What a rule does to a request or a response.
#[derive(Clone, Debug, serde::Serialize)]
pub enum HttpFilter {
    RequestHeaders(HeaderFilter),
    ResponseHeaders(HeaderFilter),
}

/// `set`, then `add`, then `remove` (Gateway API, HTTPHeaderFilter).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct HeaderFilter {
    #[serde(serialize_with = "pairs")]
    pub set: Vec<(HeaderName, HeaderValue)>,
    #[serde(serialize_with = "pairs")]
    pub add: Vec<(HeaderName, HeaderValue)>,
    #[serde(serialize_with = "texts")]
    pub remove: Vec<HeaderName>,
}

/// One weighted backend.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Backend {
    pub weight: u32,
    pub target: BackendRef,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum BackendRef {
    Service {
        service: ObjectKey,
        port: u16,
    },
    /// Cannot be used: its share of requests is answered with this status (500), not given to the others.
    Invalid {
        #[serde(serialize_with = "text")]
        status: StatusCode,
        why: Str,
    },
}

fn text<T: std::fmt::Display, S: serde::Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

fn text_option<T: std::fmt::Display, S: serde::Serializer>(
    value: &Option<T>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

fn texts<T: std::fmt::Display, S: serde::Serializer>(
    values: &[T],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(ToString::to_string))
}

fn pairs<S: serde::Serializer>(
    values: &[(HeaderName, HeaderValue)],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(
        values
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))),
    )
}
