//! The next hop of an outbound connection.

use std::net::SocketAddr;
use std::sync::Arc;

use super::streams::Streams;
use crate::base::{Reason, ports};
use crate::model::{AppProtocol, Binding, Resolution, Served, Service, Waypoint, Workload};
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
    /// The server below the service's wildcard that the first message of TLS names.
    Named {
        service: Arc<Service>,
    },
    /// A workload that was dialled by its address.
    Workload {
        workload: Arc<Workload>,
        port: u16,
    },
    /// The worker of this waypoint routes the requests. The port is the service's, which a gateway may not have dialled.
    Waypoint {
        service: Arc<Service>,
        port: u16,
        protocol: AppProtocol,
        waypoint: Arc<Waypoint>,
    },
}

/// Decides for a connection of `client` to `dialled`. An address of the mesh means the owner that the client's namespace
/// sees ([`World::owner_of`]); unknown destinations pass through, unless the client's `outboundTrafficPolicy` is REGISTRY_ONLY.
pub fn decide(world: &World, client: &Workload, dialled: SocketAddr) -> Decision {
    // An IPv4 connection of a dual-stack socket.
    let address = dialled.ip().to_canonical();
    let own_port = ports::ILLEGAL.contains(&dialled.port());
    match world.owner_of(address, dialled.port(), &client.key.namespace) {
        Some(Owner::Service(service)) => decide_service(world, client, service, dialled),
        Some(Owner::Workload(_)) if own_port => refuse_own_port(dialled),
        Some(Owner::Workload(workload)) => {
            let meant = client.gateway.then(|| of_gateway(world, client, workload, dialled));
            meant.flatten().unwrap_or_else(|| decide_workload(world, workload, dialled.port()))
        }
        None if own_port && (address.is_loopback() || address.is_unspecified()) => {
            refuse_own_port(dialled)
        }
        None => decide_unknown(client, dialled),
    }
}

/// An address that nobody owns whom the client sees. Within its own network namespace it may connect anywhere.
fn decide_unknown(client: &Workload, dialled: SocketAddr) -> Decision {
    let address = dialled.ip().to_canonical();
    match client.registry_only && !address.is_loopback() && !address.is_unspecified() {
        true => refuse_unregistered(dialled),
        false => Decision::Passthrough,
    }
}

fn refuse_unregistered(dialled: SocketAddr) -> Decision {
    let why = format!(
        "{dialled} is no address and port of a Service, ServiceEntry or pod that the client sees, and its \
         outboundTrafficPolicy is REGISTRY_ONLY"
    );
    Decision::Refuse { reason: Reason::NotRegistered, why }
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
            return if client.registry_only { refuse_unregistered(dialled) } else { to_service };
        }
        let why = format!("{service} has no port {port}");
        return Decision::Refuse { reason: Reason::NoHealthyUpstream, why };
    };
    let waypoint = match waypoint_of(world, service) {
        Ok(waypoint) => waypoint,
        Err(why) => return Decision::Refuse { reason: Reason::WaypointUnusable, why },
    };
    if service.resolution == Resolution::Dynamic && waypoint.is_none() {
        return refuse_unguarded(service);
    }
    if let Some(routes) =
        Streams::on(world, service, service_port, client, dialled.ip().to_canonical())
    {
        return Decision::Routed { service: service.clone(), routes };
    }
    let speaks_http = service_port.protocol != AppProtocol::Tcp;
    if service.resolution == Resolution::Dynamic && !speaks_http {
        return Decision::Named { service: service.clone() };
    }
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

/// Istio's wildcards apply once they are bound to a waypoint, which resolves the names.
fn refuse_unguarded(service: &Service) -> Decision {
    let why = format!(
        "{service} has the resolution DYNAMIC_DNS and is bound to no waypoint, which resolves the names below its wildcard"
    );
    Decision::Refuse { reason: Reason::WaypointUnusable, why }
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

/// What a gateway means that dials a pod: the only service of this pod and port that wants the traffic of gateways to pass its
/// waypoint (Istio, `istio.io/ingress-use-waypoint`). Gateways select endpoints themselves, and dial no service. Where several
/// services want it, nobody knows which one the gateway means, and the pod is what it has dialled.
fn of_gateway(
    world: &World,
    client: &Workload,
    workload: &Workload,
    dialled: SocketAddr,
) -> Option<Decision> {
    let namespace = &workload.key.namespace;
    let mut wanted = world.served_by(namespace, workload, dialled.port()).filter(|served| {
        served.service.ingress && served.service.visibility.includes(&client.key.namespace)
    });
    let Served { service, service_port } = wanted.next()?;
    if wanted.any(|other| other.service.key != service.key) {
        return None;
    }
    let addressed = SocketAddr::new(dialled.ip(), service_port);
    match decide_service(world, client, &service, addressed) {
        // Nothing is routed there, so it needs no other endpoint.
        Decision::Service { .. } | Decision::Routed { .. } | Decision::Named { .. } => None,
        routed => Some(routed),
    }
}

/// The waypoint that takes a connection to the service which has drawn this number, from 0 to 99: `waypoint`, or the canary.
pub fn drawn(world: &World, service: &Service, waypoint: Arc<Waypoint>, draw: u8) -> Arc<Waypoint> {
    let canary = service.canary.as_ref().filter(|canary| canary.takes(draw));
    canary.and_then(|canary| world.waypoint(&canary.waypoint)).cloned().unwrap_or(waypoint)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ServicePort, Visibility};
    use crate::world::fixture::{Fixture, bound_to, key, service, waypoint, workload};

    /// An entry of the client's namespace for these networks.
    fn entry(name: &str, networks: &[&str], port: u16) -> Service {
        let mut entry = service(name, "240.240.0.1", &[]);
        entry.entry = Some(name.into());
        entry.hostname = format!("{name}.example").into();
        entry.vips.clear();
        entry.networks = networks.iter().map(|text| text.parse().unwrap()).collect();
        entry.resolution = Resolution::Dialled;
        entry.ports[0].port = port;
        entry
    }

    fn hidden(name: &str, vip: &str, from: &str) -> Service {
        let visibility = Visibility::Namespaces(vec![from.into()]);
        let entry = entry(name, &[&format!("{vip}/32")], 443);
        Service { visibility, key: key(&format!("{from}/{name}")), ..entry }
    }

    #[test]
    fn under_registry_only_nothing_is_reached_that_the_client_does_not_see_in_the_registry() {
        let pod = workload("pod", "10.0.0.1");
        let outside = Workload { enrolled: false, ..workload("else/outside", "10.0.0.2") };
        let on_the_node = Workload { host_network: true, ..workload("else/node", "10.0.0.250") };
        let guarded =
            Service { waypoint: bound_to("wp"), ..entry("guarded", &["198.18.0.0/24"], 443) };
        let world = [
            service("web", "10.96.0.1", &[&pod]),
            service("else/other", "10.96.0.2", &[&outside]),
            entry("external", &["203.0.113.0/24", "2001:db8::/64"], 443),
            hidden("secret", "198.51.100.1", "else"),
            guarded,
        ]
        .into_iter()
        .fold(Fixture::default(), Fixture::service)
        .workload(pod)
        .workload(outside)
        .workload(on_the_node)
        .waypoint(waypoint("wp"))
        .build();
        let locked = Reason::NotRegistered.flag();
        let no_port = Reason::NoHealthyUpstream.flag();
        for (to, bound, free) in [
            // What the registry has.
            ("10.96.0.1:80", "service", "service"),
            ("10.96.0.2:80", "service", "service"),
            ("10.0.0.2:9000", "workload", "workload"),
            ("203.0.113.7:443", "service", "service"),
            ("[::ffff:203.0.113.7]:443", "service", "service"),
            ("[2001:db8::7]:443", "service", "service"),
            ("198.18.0.1:443", "waypoint", "waypoint"),
            // Another port of it.
            ("10.96.0.1:81", no_port, no_port),
            ("203.0.113.7:22", locked, "service"),
            ("[::ffff:203.0.113.7]:22", locked, "service"),
            ("198.18.0.1:22", no_port, no_port),
            // What it has for others, and what it does not have: also nodes, metadata of clouds, and whatever comes in other forms.
            ("198.51.100.1:443", locked, "pass"),
            ("192.0.2.1:443", locked, "pass"),
            ("10.0.0.250:10250", locked, "pass"),
            ("169.254.169.254:80", locked, "pass"),
            ("[::ffff:192.0.2.1]:443", locked, "pass"),
            ("[2001:db8:0:1::7]:443", locked, "pass"),
            ("[64:ff9b::cb00:7107]:443", locked, "pass"),
            ("[fe80::1]:80", locked, "pass"),
            ("192.0.2.1:15008", locked, "pass"),
            // Within its own network namespace.
            ("127.0.0.1:80", "pass", "pass"),
            ("[::1]:80", "pass", "pass"),
            ("0.0.0.0:80", "pass", "pass"),
        ] {
            for (registry_only, expected) in [(true, bound), (false, free)] {
                let client = Workload { registry_only, ..workload("client", "10.0.0.9") };
                let outcome = match decide(&world, &client, to.parse().unwrap()) {
                    Decision::Service { .. } => "service",
                    Decision::Workload { .. } => "workload",
                    Decision::Waypoint { .. } => "waypoint",
                    Decision::Passthrough => "pass",
                    Decision::Refuse { reason, .. } => reason.flag(),
                    Decision::Routed { .. } => "routed",
                    Decision::Named { .. } => "named",
                };
                assert_eq!(outcome, expected, "{to} {registry_only}");
            }
        }
    }

    #[test]
    fn a_wildcard_of_which_names_are_resolved_needs_its_waypoint() {
        let wildcard = |waypoint| {
            let mut entry = service("wide", "240.240.0.1", &[]);
            let tls = ServicePort { name: "tls".into(), port: 443, protocol: AppProtocol::Tcp };
            entry.ports.push(tls);
            let hostname = "*.example.org".into();
            let entry = Service { entry: Some("wide".into()), hostname, waypoint, ..entry };
            Service { resolution: Resolution::Dynamic, ..entry }
        };
        for (waypoint, port, expected) in [
            (bound_to("wp"), 80, "waypoint"),
            (bound_to("wp"), 443, "named"),
            (bound_to("wp"), 22, "UH"),
            (bound_to("gone"), 80, "WAYPOINT"),
            (bound_to("gone"), 443, "WAYPOINT"),
            (Binding::None, 80, "WAYPOINT"),
            (Binding::None, 443, "WAYPOINT"),
        ] {
            let mesh = Fixture::default()
                .service(wildcard(waypoint))
                .waypoint(crate::world::fixture::waypoint("wp"));
            let client = workload("client", "10.0.0.9");
            let dialled = SocketAddr::from(([240, 240, 0, 1], port));
            let outcome = match decide(&mesh.build(), &client, dialled) {
                Decision::Waypoint { .. } => "waypoint",
                Decision::Named { .. } => "named",
                Decision::Refuse { reason, .. } => reason.flag(),
                other => panic!("{other:?}"),
            };
            assert_eq!(outcome, expected, "{port}");
        }
    }
}
