//! The filters of routes (Gateway API, HTTPRouteFilter), of TrafficPolicies and of VirtualServices (Istio, HTTPRoute). Each has one file with its data, its manifest,
//! its effect and its tests.
//!
//! The table below registers them. The enumerations, the manifests' types and the static dispatch are generated from it. A
//! filter that no rule uses costs nothing.
//!
//! A filter has three moments. [`Filter::request`] decides on the request as the client sent it, and may answer.
//! [`Filter::change`] changes what is forwarded, and is pure: the destination computes it again to verify that what
//! arrived is what the client sent. [`Filter::response`] changes the response. A header that `request` sets to something
//! that the destination cannot compute must be declared in [`Filter::volatile`]; otherwise the destination would take what
//! arrived for what the client sent, and a policy on the original path would stop matching.
//!
//! This room knows no sockets and no objects beside its own parts of them.

mod answer;
pub mod backend;
mod chain;
mod circuit_breaker;
mod concurrency_limit;
mod cors;
mod external_auth;
mod fault;
mod grpc;
mod header_modifier;
mod hedging;
mod held;
mod matches;
mod mirror;
mod path;
mod policy;
mod priority;
mod rate_limit;
mod redirect;
mod rewrite;
mod session_persistence;
mod share;
mod table;
mod tcp_rate_limit;
mod virtual_service;

pub use answer::{Answer, Flow, Passing, Waited};
pub use backend::{BackendObject, BackendRef};
pub use chain::{
    Pair, Seen, change, changes, has_type_of, inherit, is_limit, remember, respond, runs_on,
    volatile,
};
pub use circuit_breaker::{Bounds, CircuitBreaker, Opening, circuit_breaker};
pub use concurrency_limit::{Adaptive, ConcurrencyLimit, LimitInUse, MinRtt, Shed, limits_in_use};
pub use cors::{Cors, OriginPattern, Permitted};
pub use external_auth::{AuthProtocol, ExternalAuth};
pub use fault::{Abort, Delay, Injection};
pub use header_modifier::{HeaderFilter, RequestHeaders, ResponseHeaders};
pub use hedging::Hedging;
pub use held::Held;
pub use matches::{HeaderMatch, TextMatch, WrittenMatch, sent_text, whole};
pub use mirror::Mirror;
pub use path::PathRewrite;
pub use policy::{PolicyTarget, judge_spec};
pub use priority::{Level, Priority, level};
pub use rate_limit::shared::{
    Lacking, Part, Parts, Pods, Spread, UNIT, burst_of_part, id_of, rate_of_part,
};
pub use rate_limit::{
    Buckets, Charges, Global, Key, LIMIT_HEADERS, Limit, Question, Quota, Rate, RateLimit,
    SharedLimit, Taken,
};
pub use redirect::{Redirect, without_port};
pub use rewrite::Rewrite;
pub use session_persistence::{
    SessionCarrier, SessionPersistence, Token, WrittenSession, session_persistence,
};
pub use share::Share;
pub use tcp_rate_limit::{Counter, Meter, Opened, TcpRateLimit};
pub use virtual_service::{
    CorsPolicy, DirectResponse, Operations, Percent, RedirectTo, StringMatch, UriRewrite,
    WrittenCorsPolicy, WrittenDirectResponse, WrittenFault, WrittenHeaders, WrittenRedirect,
    WrittenRewrite,
};

use std::borrow::Cow;
use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use serde::de::DeserializeOwned;

use crate::base::{Identity, ObjectKey, Str, schema};
use Place::{Grpc, Http};

table::filters! {
    // Types that Gateway API defines: the API server rejects a route with any other.
    routes {
        // Variant, type: its type in the API, its field, on which routes, how often in a list, never beside.
        RequestHeaders(RequestHeaders): "RequestHeaderModifier", "requestHeaderModifier", [Http, Grpc], Once, [];
        ResponseHeaders(ResponseHeaders): "ResponseHeaderModifier", "responseHeaderModifier", [Http, Grpc], Once, [];
        Mirror(Mirror): "RequestMirror", "requestMirror", [Http, Grpc], Often, [];
        Redirect(Redirect): "RequestRedirect", "requestRedirect", [Http], Once, ["URLRewrite"];
        Rewrite(Rewrite): "URLRewrite", "urlRewrite", [Http], Once, [];
        Cors(Cors): "CORS", "cors", [Http], Once, [];
        ExternalAuth(ExternalAuth): "ExternalAuth", "externalAuth", [Http], Once, ["RequestRedirect"];
    }
    policies {
        // Variant, type: its field in the spec of a TrafficPolicy.
        Fault(Injection): "fault";
        RateLimit(RateLimit): "rateLimit";
        SessionPersistence(SessionPersistence): "sessionPersistence";
        CircuitBreaker(CircuitBreaker): "circuitBreaker";
        Priority(Priority): "priority";
        ConcurrencyLimit(ConcurrencyLimit): "concurrencyLimit";
        Hedging(Hedging): "hedging";
        TcpRateLimit(TcpRateLimit): "tcpRateLimit";
    }
    virtual_services {
        // Variant, type: its field in an HTTPRoute of a VirtualService, which may have a `fault` as well.
        CorsPolicy(CorsPolicy): "corsPolicy";
        RedirectTo(RedirectTo): "redirect";
        DirectResponse(DirectResponse): "directResponse";
        UriRewrite(UriRewrite): "rewrite";
        Operations(Operations): "headers";
    }
}

/// Unsupported types of the API, with their fields: a rule with one is dropped.
pub const UNSUPPORTED: [(&str, &str); 1] = [("ExtensionRef", "extensionRef")];

/// One filter.
pub trait Filter: Sized {
    /// The filter as it is written. Values that do not fit this type, and unknown fields, reject the whole object.
    type Manifest: DeserializeOwned + Clone + Debug;
    /// The values that the API server accepts.
    const SCHEMA: schema::Rule;
    /// [`Filter::change`] may change something.
    const CHANGES: bool = false;
    /// The filter answers every request, so that nothing is forwarded.
    const ANSWERS: bool = false;
    /// The half that calls [`Filter::request`].
    const HALF: Half = Half::Client;

    /// From the manifest, with what the rule around it says. Pure. A fault drops the rule.
    fn read(manifest: &Self::Manifest, rule: &dyn RuleContext) -> Result<Self, Fault>;

    /// Decides on the request as the client sent it, once, at its half. Headers that it sets are `volatile`.
    fn request(&self, _head: &mut RequestHead<'_>, _cx: &Cx<'_>) -> Flow {
        Flow::Next
    }

    /// Changes what is forwarded. Pure: the destination computes it again.
    fn change(&self, _uri: &mut Uri, _headers: &mut HeaderMap) {}

    /// A header of the request as the client sent it that `response` looks at.
    fn remembers(&self) -> Option<HeaderName> {
        None
    }

    /// Changes the head of the response, once, at the client's half. Answers of filters do not pass here.
    fn response(&self, _head: &mut ResponseHead<'_>, _seen: &Seen) {}

    /// Whether `request` looks at claims ([`Cx::claims`]), which are kept only for filters that do.
    fn reads_claims(&self) -> bool {
        false
    }

    /// Headers that `request` may set to anything.
    fn volatile(&self) -> &[HeaderName] {
        &[]
    }

    /// Takes over the state of the previous filter at this place, after a change of the route.
    fn inherit(&mut self, _before: &Self) {}

    /// Manifests, for the tests of the table.
    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value>;
}

/// The head of a request in canonical form, as the client sent it.
pub struct RequestHead<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a mut HeaderMap,
}

/// The head of a response, as it comes from the destination.
pub struct ResponseHead<'a> {
    pub status: StatusCode,
    pub headers: &'a mut HeaderMap,
}

/// The context of a request.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    /// The port that was dialled.
    pub port: u16,
    /// The client's, proven by mutual TLS.
    pub identity: Option<&'a Identity>,
    /// The client's.
    pub address: IpAddr,
    /// The service that was addressed, or that guards the destination.
    pub service: Option<&'a ObjectKey>,
    /// The request's destination, as far as it is known; at the destination's half the pod.
    pub pod: &'a str,
    /// The route, and the number of its rule.
    pub route: Option<(&'a ObjectKey, usize)>,
    /// Where the service's pods are; at the destination's half only.
    pub spread: Option<&'a dyn Spread>,
    /// Of the token that was verified; `None` without one, and at the client's half.
    pub claims: Option<&'a dyn Claims>,
    /// How soon it is shed; `None` where no policy says so.
    pub level: Option<Level>,
}

#[cfg(test)]
impl Cx<'_> {
    /// Of a request that says nothing: to port 80 of `pod`, by nobody, from 10.0.0.1.
    pub fn fixture() -> Self {
        Self {
            port: 80,
            identity: None,
            address: IpAddr::from([10, 0, 0, 1]),
            service: None,
            pod: "pod",
            route: None,
            spread: None,
            claims: None,
            level: None,
        }
    }
}

/// What a verified token says.
pub trait Claims: Sync {
    /// The texts of a claim: by its name, or else by the path that dots part. Empty where the token does not say.
    fn texts(&self, path: &str) -> Vec<Cow<'_, str>>;
}

/// The two halves of a waypoint, and layer 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// On the client's node, before an endpoint is chosen.
    Client,
    /// On the application's node, after the request was authorized.
    Destination,
    /// On the application's node, when a connection begins: requests are not asked about.
    Connection,
}

/// The rule around a filter, while it is read.
pub trait RuleContext {
    /// The policy whose filter it is.
    fn policy(&self) -> ObjectKey {
        ObjectKey::new("", "")
    }

    /// The prefix by which the rule matches, without a slash at its end; `None` unless it has exactly one match, of that
    /// type.
    fn prefix(&self) -> Option<Str> {
        None
    }

    /// The target of a reference. `None` if it has none; the implementation reports that, with the reference's field and the
    /// outcome.
    fn backend(&self, _field: &str, _object: &BackendObject, _outcome: &str) -> Option<BackendRef> {
        None
    }
}

/// Why a filter is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A field has an unsupported or invalid value.
    Field { field: String, why: String },
    /// The filter does not fit the rule around it; the field is relative to the entry in the list.
    Rule { field: &'static str, why: String },
    /// A reference leads nowhere; the rule continues without the filter.
    LeadsNowhere,
}

impl Fault {
    pub fn field(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Field { field: field.into(), why: why.into() }
    }
}

/// A filter type of routes.
#[derive(Debug)]
pub struct Row {
    /// Its type in the API.
    pub name: &'static str,
    /// The member that goes with the type.
    pub field: &'static str,
    /// The kinds of routes that it is for.
    pub on: &'static [Place],
    pub often: Often,
    /// Types of the API that exclude it.
    pub never_beside: &'static [&'static str],
    /// See [`Filter::ANSWERS`].
    pub answers: bool,
    /// See [`Filter::HALF`]. The destination does not know the backend, so its filters are those of rules.
    pub half: Half,
}

/// The kinds of routes that a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Http,
    Grpc,
}

/// How often a filter may stand in one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Often {
    Once,
    Often,
}

impl Row {
    pub fn named(name: &str) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.name == name)
    }

    /// Whether both exclude each other.
    pub fn excludes(&self, other: &Row) -> bool {
        self.never_beside.contains(&other.name) || other.never_beside.contains(&self.name)
    }
}

fn text<T: std::fmt::Display, S: serde::Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// For people.
fn duration<S: serde::Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{value:?}"))
}

#[cfg(test)]
mod tests;
