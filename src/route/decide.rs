//! The next hop of an outbound connection.

use std::net::SocketAddr;
use std::sync::Arc;

use super::streams::Streams;
use crate::base::{Reason, ports};
use crate::model::{AppProtocol, Binding, Resolution, Service, Waypoint, Workload};
use crate::world::{Owner, World};

/// The decision on an outbound connection.
#[derive(Clone, Debug)]
pub enum Decision {
    Refuse {
        reason: Reason,
        why: String,
    },
    /// Not in the mesh: connect as dialled.
    Passthrough,
    /// One of the endpoints of a service without a waypoint, or on a port whose bytes must not be parsed.
    Service {
        service: Arc<Service>,
        port: u16,
    },
    /// A backend of one of these routes of the service. Nothing but the first message of TLS is parsed.
    Routed {
        service: Arc<Service>,
        routes: Streams,
    },
    /// A workload that was dialled by its address.
    Workload {
        workload: Arc<Workload>,
        port: u16,
    },
    /// The worker of this waypoint routes the requests.
    Waypoint {
        service: Arc<Service>,
        port: u16,
        protocol: AppProtocol,
        waypoint: Arc<Waypoint>,
    },
}

/// Decides for a connection of `client` to `dialled`. An address of the mesh means the owner that the client's namespace
/// sees ([`World::owner_of`]); unknown destinations pass through, as in Istio's ambient mode.
pub fn decide(world: &World, client: &Workload, dialled: SocketAddr) -> Decision {
    // An IPv4 connection of a dual-stack socket.
    let address = dialled.ip().to_canonical();
    let own_port = ports::ILLEGAL.contains(&dialled.port());
    match world.owner_of(address, dialled.port(), &client.key.namespace) {
        Some(Owner::Service(service)) => decide_service(world, client, service, dialled),
        Some(Owner::Workload(_)) if own_port => refuse_own_port(dialled),
        Some(Owner::Workload(workload)) => decide_workload(world, workload, dialled.port()),
        None if own_port && (address.is_loopback() || address.is_unspecified()) => {
            refuse_own_port(dialled)
        }
        None => Decision::Passthrough,
    }
}

fn decide_service(
    world: &World,
    client: &Workload,
    service: &Arc<Service>,
    dialled: SocketAddr,
) -> Decision {
    let port = dialled.port();
    let to_service = Decision::Service { service: service.clone(), port };
    let Some(service_port) = service.port(port) else {
        // A service whose endpoint is the dialled address leads there on every port (as in ztunnel), unless a waypoint guards it.
        if service.resolution == Resolution::Dialled && service.waypoint == Binding::None {
            return to_service;
        }
        let why = format!("{service} has no port {port}");
        return Decision::Refuse { reason: Reason::NoHealthyUpstream, why };
    };
    let waypoint = match waypoint_of(world, service) {
        Ok(waypoint) => waypoint,
        Err(why) => return Decision::Refuse { reason: Reason::WaypointUnusable, why },
    };
    if let Some(routes) =
        Streams::on(world, service, service_port, client, dialled.ip().to_canonical())
    {
        return Decision::Routed { service: service.clone(), routes };
    }
    let speaks_http = service_port.protocol != AppProtocol::Tcp;
    match waypoint.filter(|waypoint| speaks_http && waypoint.for_services) {
        None => to_service,
        Some(waypoint) => Decision::Waypoint {
            service: service.clone(),
            port,
            protocol: service_port.protocol,
            waypoint: waypoint.clone(),
        },
    }
}

/// The waypoint of a service, if it is bound to one, or why traffic to the service is rejected.
pub fn waypoint_of<'a>(
    world: &'a World,
    service: &Service,
) -> Result<Option<&'a Arc<Waypoint>>, String> {
    match &service.waypoint {
        Binding::None => Ok(None),
        Binding::Unusable { waypoint, why } => {
            Err(format!("waypoint {waypoint} of {service} cannot be used: {why}"))
        }
        Binding::Waypoint(key) => match world.waypoint(key) {
            Some(waypoint) => Ok(Some(waypoint)),
            None => Err(format!("waypoint {key} of {service} does not exist")),
        },
    }
}

fn decide_workload(world: &World, workload: &Arc<Workload>, port: u16) -> Decision {
    let why = match &workload.waypoint {
        Binding::Unusable { waypoint, why } => {
            format!("waypoint {waypoint} of Pod {} cannot be used: {why}", workload.key)
        }
        Binding::Waypoint(key) if world.waypoint(key).is_none() => {
            format!("waypoint {key} of Pod {} does not exist", workload.key)
        }
        Binding::None | Binding::Waypoint(_) => {
            return Decision::Workload { workload: workload.clone(), port };
        }
    };
    Decision::Refuse { reason: Reason::WaypointUnusable, why }
}

fn refuse_own_port(dialled: SocketAddr) -> Decision {
    let why = format!("{dialled} is a port of the mesh's agent, not of an application");
    Decision::Refuse { reason: Reason::BadRequest, why }
}
