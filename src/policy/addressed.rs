//! Whom did the client address? The tunnel's request may name a service; it counts only where the service really leads
//! to this workload and port (design, "Which service was addressed").

use std::sync::Arc;

use crate::model::{BackendRef, Binding, Service, Workload};
use crate::world::{Served, World};

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

/// Whom `forwarded_host` addresses at this workload and port.
pub fn addressed(
    world: &World,
    workload: &Workload,
    port: u16,
    forwarded_host: Option<&str>,
) -> Addressed {
    let Some(service) = forwarded_host.and_then(|host| world.service_named(host)) else {
        return Addressed::Workload;
    };
    let direct = world.served_by(workload, port).find(|served| served.service.key == service.key);
    if let Some(served) = direct {
        return Addressed::Service(served);
    }
    // Routes hold only where a waypoint applies them; without one nobody could have come this way.
    let routed = service.waypoint != Binding::None;
    if routed && routes_reach(world, service, workload, port) {
        return Addressed::Route { service: service.clone(), verified: false };
    }
    Addressed::Workload
}

/// Some rule of some route of `service` has a backend that leads to this workload and port.
fn routes_reach(world: &World, service: &Service, workload: &Workload, port: u16) -> bool {
    let backends = world
        .routes_of(&service.key)
        .iter()
        .flat_map(|route| route.rules.iter())
        .flat_map(|rule| rule.backends.iter());
    let mut targets = backends.filter_map(|backend| match &backend.target {
        BackendRef::Service { service, port } => Some((service, *port)),
        BackendRef::Invalid { .. } => None,
    });
    targets.any(|(backend, backend_port)| {
        world
            .served_by(workload, port)
            .any(|served| served.service.key == *backend && served.service_port == backend_port)
    })
}
