//! Authorization: pure over one snapshot. What applies to an inbound connection is a [`Gate`]; asking it gives a
//! [`Permit`] or a [`Denial`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::base::{Identity, ObjectKey, Str};
use crate::model::{Service, Workload};
use crate::world::{Served, World};

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

/// Whom the client addressed, as far as the destination can tell.
#[derive(Clone, Debug)]
pub enum Addressed {
    /// The service named in the tunnel, which leads to this workload and port.
    Service(Served),
    /// The service named in the tunnel reaches this workload and port only through a route; `verified`
    /// once the route function confirmed it for the request at hand.
    Route { service: Arc<Service>, verified: bool },
    /// The workload itself, or nobody said.
    Workload,
}

/// Leave to connect, with who gave it.
#[derive(Clone, Debug)]
pub struct Permit {
    /// The waypoint whose policies were passed: its principal counts beside the client's.
    pub waypoint: Option<Identity>,
    /// The policy that allowed, where one did.
    pub policy: Option<ObjectKey>,
}

/// A refusal.
#[derive(Clone, Debug)]
pub struct Denial {
    /// For the log: which policy and why.
    pub why: String,
}

/// All that applies to one inbound connection, from one snapshot.
pub struct Gate;

impl Gate {
    pub fn new(_world: &World, _workload: &Arc<Workload>, _port: u16, _addressed: &Addressed) -> Self {
        todo!()
    }
    /// Only the waypoint's part for a service, for destinations that are not captured.
    pub fn for_service(_world: &World, _service: &Service) -> Self {
        todo!()
    }
    /// Some policy looks at HTTP and the port may speak it: requests must be parsed.
    pub fn needs_http(&self) -> bool {
        todo!()
    }
    /// Whose worker parses.
    pub fn worker(&self) -> &Str {
        todo!()
    }
    /// Decides. Without a request, layer 4 is all there is (Istio's rule for TCP traffic).
    pub fn authorize(&self, _connection: &Connection<'_>, _request: Option<&Request<'_>>) -> Result<Permit, Denial> {
        todo!()
    }
}

/// Whom `forwarded_host` addresses at this workload and port.
pub fn addressed(_world: &World, _workload: &Workload, _port: u16, _forwarded_host: Option<&str>) -> Addressed {
    todo!()
}
