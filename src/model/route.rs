//! HTTPRoutes and GRPCRoutes with Service parents (Gateway API v1; GEP-1226, GEP-1294, GEP-1324), and the `http` rules of
//! VirtualServices (Istio).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::{HeaderName, Method};

use super::Retry;
use crate::base::{ObjectKey, Regex, Str};
use crate::filter::{self, BackendRef, HeaderMatch, HttpFilter, TextMatch};

/// One HTTPRoute or GRPCRoute, or the rules of a VirtualService for hosts of one kind and, where they differ by it, one port.
#[derive(Clone, Debug, serde::Serialize)]
pub struct HttpRoute {
    pub kind: RouteKind,
    pub key: ObjectKey,
    /// `metadata.creationTimestamp` in seconds since the epoch; 0 when unknown. The older route wins a tie.
    pub created: i64,
    pub parents: Vec<RouteParent>,
    pub rules: Vec<HttpRule>,
    /// Of a VirtualService.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<Box<Holds>>,
}

/// For whom a VirtualService holds, and before which others.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Holds {
    /// Namespaces of clients; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exported: Option<Vec<Str>>,
    /// How specific its host is: the greater one holds. Exact ones are the greatest.
    pub specific: u32,
}

impl Holds {
    /// Whether clients of the namespace see it.
    pub fn is_for(&self, namespace: &str) -> bool {
        let exported = self.exported.as_ref();
        exported.is_none_or(|exported| exported.iter().any(|it| it == namespace))
    }
}

/// Of the routes on one port of a Service, only those of the most specific kind hold (GEP-1426): GRPCRoutes before
/// HTTPRoutes. VirtualServices come last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum RouteKind {
    /// Its first match in the order of the list holds, and not the most specific one.
    Virtual,
    #[default]
    Http,
    /// Backends are spoken to in HTTP/2 whatever their `appProtocol` says.
    Grpc,
}

/// The kind's name in the API.
impl std::fmt::Display for RouteKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RouteKind::Virtual => "VirtualService",
            RouteKind::Http => "HTTPRoute",
            RouteKind::Grpc => "GRPCRoute",
        })
    }
}

impl HttpRoute {
    /// The objects whose word a rule is.
    pub fn authors<'a>(&'a self, rule: &'a HttpRule) -> impl Iterator<Item = &'a ObjectKey> {
        std::iter::once(&self.key).chain(&rule.delegate)
    }

    /// The state of filters goes on, where the same rule has had one of the same type: a change elsewhere in the route does not
    /// make it start again.
    pub fn inherit(&mut self, before: &HttpRoute) {
        for (index, rule) in self.rules.iter_mut().enumerate() {
            let same = |(at, old): &(usize, &HttpRule)| match rule.name.is_empty() {
                true => *at == index && old.name.is_empty(),
                false => old.name == rule.name,
            };
            let Some((_, old)) = before.rules.iter().enumerate().find(same) else { continue };
            filter::inherit(&mut rule.filters, &old.filters);
            for (new, old) in rule.backends.iter_mut().zip(&old.backends) {
                filter::inherit(&mut new.filters, &old.filters);
            }
        }
    }
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
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct HttpRule {
    /// Empty when the route does not name it.
    pub name: Str,
    /// The VirtualService that the route has left the rule to (Istio, `delegate`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegate: Option<ObjectKey>,
    /// Never empty: a rule without matches has one that takes everything.
    pub matches: Vec<HttpMatch>,
    pub filters: Vec<HttpFilter>,
    pub backends: Vec<Backend>,
    #[serde(skip_serializing_if = "Timeouts::is_none")]
    pub timeouts: Timeouts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How many requests were split over `backends` so far: makes the split exact over short runs.
    /// Shared by the clones of a rule.
    #[serde(skip)]
    pub turn: Arc<AtomicU64>,
}

/// How long a request may take (GEP-1742; Istio); `None`: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Timeouts {
    /// From the request's arrival to the end of the response, with all attempts.
    pub request: Option<Duration>,
    /// The same for one attempt.
    pub backend_request: Option<Duration>,
    /// From the beginning of one attempt to the beginning of its response (Istio's `perTryTimeout`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try: Option<Duration>,
}

impl Timeouts {
    fn is_none(&self) -> bool {
        *self == Timeouts::default()
    }
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
    /// What only matches of VirtualServices have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<Box<MoreMatch>>,
}

/// Matches that Gateway API does not have (Istio, HTTPMatchRequest).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MoreMatch {
    /// Methods that are not given exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<TextMatch>,
    /// The header Host, or `:authority`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<TextMatch>,
    /// Headers that are there, with whatever value.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "texts")]
    pub present: Vec<HeaderName>,
    /// Query parameters that are there, with whatever value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub present_query: Vec<Str>,
    /// None of these matches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<Without>,
    /// The client's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_namespace: Option<Str>,
    /// The number of a selection of labels that selects the client ([`Workload::selected_by`](super::Workload)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_labels: Option<u32>,
}

/// A header that excludes a request.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Without {
    #[serde(serialize_with = "text")]
    pub name: HeaderName,
    /// `None`: with whatever value. A header that is missing counts as an empty one.
    pub value: Option<TextMatch>,
}

#[derive(Clone, Debug, serde::Serialize)]
pub enum PathMatch {
    Exact(Str),
    /// By characters, and not by segments.
    Starts(Str),
    /// As [`PathMatch::Exact`], whatever the case; in lower case.
    ExactAnyCase(Str),
    /// As [`PathMatch::Starts`], whatever the case; in lower case.
    StartsAnyCase(Str),
    /// By path segments, without a trailing slash except for `/` itself.
    Prefix(Str),
    /// The whole path.
    Regex(#[serde(serialize_with = "text")] Regex),
    /// `/service/method` (GRPCMethodMatch); `None`: any.
    Grpc {
        service: Option<TextMatch>,
        method: Option<TextMatch>,
    },
}

impl Default for PathMatch {
    fn default() -> Self {
        PathMatch::Prefix(arcstr::literal!("/"))
    }
}

/// One weighted backend.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Backend {
    pub weight: u32,
    pub target: BackendRef,
    /// The endpoints of the target that take requests, as a DestinationRule names them; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<Str>,
    /// For what goes to this backend only, after the rule's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<HttpFilter>,
}

fn text<T: std::fmt::Display, S: serde::Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

fn texts<T: std::fmt::Display, S: serde::Serializer>(
    values: &[T],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(ToString::to_string))
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
