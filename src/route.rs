//! Where traffic goes: the next hop of a connection, and the HTTPRoute rule of a request. Pure over one snapshot.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::base::Reason;
use crate::model::{AppProtocol, Backend, HttpRoute, HttpRule, Service, Waypoint, Workload};
use crate::world::World;

/// What to do with an outbound connection.
#[derive(Clone, Debug)]
pub enum Decision {
    Refuse { reason: Reason, why: String },
    /// Not ours: as dialled, without the mesh.
    Passthrough,
    /// One of the endpoints of a service without a waypoint (or on a port that nobody may parse).
    Service { service: Arc<Service>, port: u16 },
    /// A workload that was dialled by its own address.
    Workload { workload: Arc<Workload>, port: u16 },
    /// The worker of this waypoint routes the requests.
    Waypoint { service: Arc<Service>, port: u16, protocol: AppProtocol, waypoint: Arc<Waypoint> },
}

pub fn decide(_world: &World, _client: &Workload, _dialled: SocketAddr) -> Decision {
    todo!()
}

/// The head of a request, as routes look at it.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
}

/// Which rule holds for a request.
#[derive(Clone, Debug)]
pub enum Selection {
    /// The service has no route on this port for this client: straight to the service.
    NoRoutes,
    /// It has, and none matches: 404.
    NoMatch,
    /// `route.rules[rule]`.
    Rule { route: Arc<HttpRoute>, rule: usize },
}

/// Gateway API precedence; consumer routes of the client's namespace come before the producer's (GEP-1324).
pub fn select(_world: &World, _service: &Service, _port: u16, _client_namespace: &str, _head: &Head<'_>) -> Selection {
    todo!()
}

/// The backend whose turn it is; `None` when the rule has none or all weights are zero.
pub fn next_backend(_rule: &HttpRule) -> Option<&Backend> {
    todo!()
}

/// Applies the rule's request filters; tells whether anything changed.
pub fn filter_request(_rule: &HttpRule, _headers: &mut HeaderMap) -> bool {
    todo!()
}

pub fn filter_response(_rule: &HttpRule, _headers: &mut HeaderMap) {
    todo!()
}
