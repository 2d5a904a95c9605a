//! What is asked of a gate, and what it answers.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method};

use super::speaks_for;
use crate::base::{Identity, ObjectKey, PolicyNote};
use crate::model::{Service, Workload};

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Proven by mutual TLS.
    pub client: Option<&'a Identity>,
    pub source: IpAddr,
    /// The workload's own address and port.
    pub destination: SocketAddr,
}

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a Method,
    /// With the query.
    pub path: &'a str,
    /// `Host` or `:authority`, as sent.
    pub host: &'a str,
    pub headers: &'a HeaderMap,
}

/// A request that a route may have changed on its way. Policies of the namespace that the addressed service belongs to see it
/// as it was sent, all others as it arrives.
#[derive(Clone, Copy, Debug)]
pub struct Views<'a> {
    pub arrived: &'a Request<'a>,
    /// Before the route's filters, where the route is of the addressed service's own namespace; otherwise as `arrived`.
    pub sent: &'a Request<'a>,
}

impl<'a> Views<'a> {
    /// A request that nothing has changed.
    pub fn same(request: &'a Request<'a>) -> Self {
        Self { arrived: request, sent: request }
    }
}

/// A way to a destination where nobody judges, as the client's half knows it.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// What the client dialled.
    pub addressed: &'a Service,
    /// The port that it dialled there.
    pub port: u16,
    /// The route that led on from there.
    pub route: Option<&'a ObjectKey>,
    /// Whose endpoint the destination is, and the port that leads there.
    pub backend: (&'a Service, u16),
    /// What is known to be there.
    pub workload: Option<&'a Workload>,
    pub destination: SocketAddr,
}

impl Way<'_> {
    /// Whether what was addressed, and the route, speak for the destination: for the workload there, and for the backend's
    /// service where none is known.
    pub fn speaks(&self) -> bool {
        let destination = self.workload.map_or(&self.backend.0.key, |workload| &workload.key);
        speaks_for(&self.addressed.key, self.route, &destination.namespace)
    }
}

/// Leave to connect, with who gave it.
#[derive(Clone, Debug)]
pub struct Permit {
    /// The waypoint whose policies were passed: its principal counts beside the client's.
    pub waypoint: Option<Identity>,
    /// The application is to be told who the client is.
    pub names_client: bool,
    /// The policy that allowed, where one did.
    pub policy: Option<ObjectKey>,
    /// What policies that decide nothing have to say (AUDIT, dry-run).
    pub notes: Vec<PolicyNote>,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// For the log: which policy and why.
    pub why: String,
    /// As for a [`Permit`].
    pub notes: Vec<PolicyNote>,
    /// Who asks is not known, rather than not permitted: the request brings a token that is not verified.
    pub unauthenticated: bool,
}

impl Denial {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), notes: Vec::new(), unauthenticated: false }
    }
}
