//! TCPRoutes and TLSRoutes with Service parents (Gateway API v1): what they lead is chosen per connection, and no byte of it is
//! parsed but the first message of TLS.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::{Backend, RouteParent};
use crate::base::{ObjectKey, Str};

/// One TCPRoute or TLSRoute. Each has one rule.
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
}

impl StreamRoute {
    /// The least is the oldest route's. One of unknown age counts as the youngest: no API server created it.
    pub fn seniority(&self) -> (i64, &ObjectKey) {
        (if self.created == 0 { i64::MAX } else { self.created }, &self.key)
    }
}

/// Of the routes on one port of a Service, only those of the most specific kind hold: these after HTTPRoutes and GRPCRoutes,
/// TLSRoutes before TCPRoutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum StreamKind {
    Tcp,
    Tls,
}

/// The kind's name in the API.
impl std::fmt::Display for StreamKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
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
