//! TCPRoutes and TLSRoutes with Service parents (Gateway API v1), and the `tcp` and `tls` rules of VirtualServices (Istio): what they
//! lead is chosen per connection, and no byte of it is parsed but the first message of TLS.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ipnet::IpNet;

use super::{Backend, Holds, RouteParent};
use crate::base::{ObjectKey, Str};

/// One TCPRoute or TLSRoute, each of which has one rule; or the rules of a VirtualService, as of an
/// [`HttpRoute`](super::HttpRoute).
#[derive(Clone, Debug, serde::Serialize)]
pub struct StreamRoute {
    pub kind: StreamKind,
    pub key: ObjectKey,
    /// As of an [`HttpRoute`](super::HttpRoute).
    pub created: i64,
    pub parents: Vec<RouteParent>,
    /// The server names that a TLSRoute takes; empty for a TCPRoute.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameMatch>,
    pub backends: Vec<Backend>,
    /// How many connections were split over `backends` so far, as of an [`HttpRule`](super::HttpRule).
    #[serde(skip)]
    pub turn: Arc<AtomicU64>,
    /// Of a VirtualService, which has neither names nor backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Box<StreamRules>>,
}

/// The rules of a VirtualService. Those of TLS come first, then the first in the list holds.
#[derive(Clone, Debug, serde::Serialize)]
pub struct StreamRules {
    pub holds: Holds,
    pub rules: Vec<StreamRule>,
}

/// One rule of a VirtualService.
#[derive(Clone, Debug, serde::Serialize)]
pub struct StreamRule {
    /// Never empty: a rule without matches has one that takes everything.
    pub matches: Vec<StreamMatch>,
    /// Its backends. A TLSRoute for a rule that needs the name of a server.
    pub route: Arc<StreamRoute>,
}

/// All parts must match (Istio, TLSMatchAttributes and L4MatchAttributes).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct StreamMatch {
    /// Of the server, of which one has to match; empty for a rule of `tcp`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameMatch>,
    /// Of the address that was dialled; empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<IpNet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_namespace: Option<Str>,
    /// As of a [`MoreMatch`](super::MoreMatch).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_labels: Option<u32>,
}

impl StreamRoute {
    /// The least is the oldest route's. One of unknown age counts as the youngest: no API server created it.
    pub fn seniority(&self) -> (i64, &ObjectKey) {
        (if self.created == 0 { i64::MAX } else { self.created }, &self.key)
    }
}

/// Of the routes on one port of a Service, only those of the most specific kind hold: these after HTTPRoutes and GRPCRoutes,
/// TLSRoutes before TCPRoutes, VirtualServices last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum StreamKind {
    Virtual,
    Tcp,
    Tls,
}

/// The kind's name in the API.
impl std::fmt::Display for StreamKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            StreamKind::Virtual => "VirtualService",
            StreamKind::Tcp => "TCPRoute",
            StreamKind::Tls => "TLSRoute",
        })
    }
}

/// A name of `hostnames`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum NameMatch {
    Exact(Str),
    /// `*.example.org` without its star: takes names with one more label or several.
    Below(Str),
}

impl NameMatch {
    /// As written in a route.
    pub fn new(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some(below) => NameMatch::Below(below.into()),
            None => NameMatch::Exact(text.into()),
        }
    }

    /// `name` is in lower case.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            NameMatch::Exact(exact) => name == exact.as_str(),
            NameMatch::Below(below) => {
                name.strip_suffix(below.as_str()).is_some_and(|labels| !labels.is_empty())
            }
        }
    }

    /// The more specific one is greater: exact names, then the longest.
    pub fn rank(&self) -> (bool, usize) {
        match self {
            NameMatch::Exact(exact) => (true, exact.len()),
            NameMatch::Below(below) => (false, below.len()),
        }
    }
}
