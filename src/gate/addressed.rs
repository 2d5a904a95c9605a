//! Whom did the client address? The tunnel's request may name a service; it counts only where the service really leads
//! to this workload and port (design, "Which service was addressed").

use std::sync::Arc;

use crate::base::Identity;
use crate::model::{BackendRef, Binding, HttpRoute, RouteKind, Served, Service, Workload};
use crate::policy::speaks_for;
use crate::world::World;

/// Whom the client addressed, as far as the destination can tell.
#[derive(Clone, Debug)]
pub enum Addressed {
    /// The service named in the tunnel, which leads to this workload and port.
    Service(Served),
    /// The service named in the tunnel reaches this workload and port only through a route, of these ports of it; `verified`
    /// once the route function confirmed it for the request at hand.
    Route { service: Arc<Service>, ports: Arc<[u16]>, verified: bool },
    /// The workload itself, or nobody said.
    Workload,
}

impl Addressed {
    /// The addressed service, as far as its name counts.
    pub fn service(&self) -> Option<&Arc<Service>> {
        match self {
            Addressed::Service(served) => Some(&served.service),
            Addressed::Route { service, .. } => Some(service),
            Addressed::Workload => None,
        }
    }

    /// The ports of the addressed service that lead to the workload's.
    pub(super) fn ways(&self, world: &World, workload: &Workload, port: u16) -> Vec<Served> {
        match self {
            Addressed::Service(served) => {
                world.ways_of(&served.service.key, workload, port).collect()
            }
            Addressed::Route { service, ports, .. } => {
                let way = |port: &u16| Served { service: service.clone(), service_port: *port };
                ports.iter().map(way).collect()
            }
            Addressed::Workload => Vec::new(),
        }
    }

    /// Both mean the very same service in the very same way.
    pub fn is_same(&self, other: &Self) -> bool {
        use Addressed::{Route, Service, Workload};
        match (self, other) {
            (Service(one), Service(two)) => {
                one.service_port == two.service_port && Arc::ptr_eq(&one.service, &two.service)
            }
            (
                Route { service, ports, verified },
                Route { service: other, ports: others, verified: same },
            ) => verified == same && ports == others && Arc::ptr_eq(service, other),
            (Workload, Workload) => true,
            _ => false,
        }
    }
}

/// Whom `forwarded_host` addresses at this workload and port. Of several services of one name that the client sees, one that
/// speaks for the workload and leads there is meant, and otherwise the first.
pub fn addressed(
    world: &World,
    workload: &Workload,
    port: u16,
    forwarded_host: Option<&str>,
    client: Option<&Identity>,
) -> Addressed {
    let Some(host) = forwarded_host else { return Addressed::Workload };
    let namespace = client.map(|client| client.namespace.as_str());
    let mut first = None;
    for service in world.services_named(host, namespace) {
        let found = reached(world, workload, port, service, namespace);
        let speaks = speaks_for(&service.key, None, &workload.key.namespace);
        if speaks && !matches!(found, Addressed::Workload) {
            return found;
        }
        first.get_or_insert(found);
    }
    first.unwrap_or(Addressed::Workload)
}

/// How `service` leads clients of a namespace to this workload and port.
fn reached(
    world: &World,
    workload: &Workload,
    port: u16,
    service: &Arc<Service>,
    client: Option<&str>,
) -> Addressed {
    if let Some(served) = world.ways_of(&service.key, workload, port).next() {
        return Addressed::Service(served);
    }
    // Routes hold only where a waypoint applies them; without one nobody could have come this way.
    if service.waypoint == Binding::None {
        return Addressed::Workload;
    }
    let ports = ports_that_reach(world, service, client, workload, port);
    match ports.is_empty() {
        true => Addressed::Workload,
        false => Addressed::Route { service: service.clone(), ports, verified: false },
    }
}

/// The ports of `service` on which some rule of a route that holds for the client, a producer's, one of the client's own
/// namespace or a VirtualService of the root namespace, has a backend that leads to this workload and port. Other namespaces' routes cost this client nothing, however
/// many there are.
fn ports_that_reach(
    world: &World,
    service: &Service,
    client: Option<&str>,
    workload: &Workload,
    port: u16,
) -> Arc<[u16]> {
    let producer = service.key.namespace.as_str();
    let consumer = client.filter(|client| *client != producer);
    let near = std::iter::once(producer).chain(consumer);
    let near = near.flat_map(|namespace| world.routes_from(namespace, &service.key));
    let root = world.names.root_namespace.as_str();
    let of_root = world.routes_from(root, &service.key).iter();
    let routes = near.chain(of_root.filter(|route| route.kind == RouteKind::Virtual));
    let is_seen = |route: &HttpRoute| {
        let holds = route.holds.as_ref();
        holds.is_none_or(|holds| client.is_some_and(|client| holds.is_for(client)))
    };
    let routes = routes.filter(|route| is_seen(route));
    let leading: Vec<_> = routes.filter(|route| leads(world, route, workload, port)).collect();
    let parents = || leading.iter().flat_map(|route| &route.parents);
    let own = || parents().filter(|parent| parent.service == service.key);
    let ports = service.ports.iter().map(|port| port.port);
    ports.filter(|port| own().any(|it| it.port.is_none_or(|of| of == *port))).collect()
}

/// Some rule of the route has a backend that leads to this workload and port.
fn leads(world: &World, route: &HttpRoute, workload: &Workload, port: u16) -> bool {
    let backends = route.rules.iter().flat_map(|rule| rule.backends.iter());
    let mut targets = backends.filter_map(|backend| match &backend.target {
        BackendRef::Service { service, port } => Some((service, *port)),
        BackendRef::Invalid { .. } => None,
    });
    targets.any(|(backend, backend_port)| {
        world.ways_of(backend, workload, port).any(|served| served.service_port == backend_port)
    })
}
