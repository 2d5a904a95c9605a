//! The TCPRoute, TLSRoutes or VirtualService that hold for a connection: groups (GEP-1324), and the precedence of kinds (GEP-1294).

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use super::select::is_attached;
use crate::model::{
    AppProtocol, NameMatch, Service, ServicePort, StreamKind, StreamMatch, StreamRoute, Workload,
};
use crate::world::World;

/// The routes that hold on a port for a client.
#[derive(Clone, Debug)]
pub enum Streams {
    /// The one that leads every connection.
    Tcp(Arc<StreamRoute>),
    /// Those of which the server's name selects one. Never empty.
    Tls(Vec<Arc<StreamRoute>>),
    /// Rules of a VirtualService for names of servers, of which the first that matches holds, and what takes everything else; `None`:
    /// the service itself.
    Named { rules: Vec<(Vec<NameMatch>, Arc<StreamRoute>)>, rest: Option<Arc<StreamRoute>> },
}

impl Streams {
    /// `None`: connections go to the service itself, or HTTPRoutes or GRPCRoutes hold. These count only where a port may speak HTTP.
    pub(super) fn on(
        world: &World,
        service: &Service,
        port: &ServicePort,
        client: &Workload,
        dialled: IpAddr,
    ) -> Option<Self> {
        let key = &service.key;
        if world.streams_of(key).is_empty() {
            return None;
        }
        let client_namespace = client.key.namespace.as_str();
        let http = |namespace: &str| {
            let rules = world
                .rules_of(key)
                .and_then(|rules| rules.from(namespace)?.on(port.port, client_namespace));
            port.protocol != AppProtocol::Tcp && rules.is_some()
        };
        let streams = |namespace| {
            let routes = world.streams_from(namespace, key).iter();
            routes.filter(|route| is_attached(&route.parents, key, port.port))
        };
        let seen = |route: &&Arc<StreamRoute>| {
            route.rules.as_ref().is_none_or(|rules| rules.holds.is_for(client_namespace))
        };
        let streams = |namespace| streams(namespace).filter(seen);
        let producer = key.namespace.as_str();
        let is_consumer = client_namespace != producer
            && (http(client_namespace) || streams(client_namespace).next().is_some());
        let namespace = if is_consumer { client_namespace } else { producer };
        if http(namespace) {
            return None;
        }
        if !is_consumer && streams(producer).next().is_none() {
            let root = world.names.root_namespace.as_str();
            let rules = world.rules_of(key).and_then(|rules| rules.from(root));
            let http = rules.and_then(|rules| rules.virtual_on(port.port, client_namespace));
            if port.protocol != AppProtocol::Tcp && http.is_some() {
                return None;
            }
            let virtuals = streams(root).filter(|route| route.kind == StreamKind::Virtual);
            return of_virtual_service(world, virtuals, client, dialled);
        }
        let of = |kind| streams(namespace).filter(move |route| route.kind == kind);
        let tls: Vec<_> = of(StreamKind::Tls).cloned().collect();
        if !tls.is_empty() {
            return Some(Streams::Tls(tls));
        }
        if let Some(route) = of(StreamKind::Tcp).min_by_key(|route| route.seniority()) {
            return Some(Streams::Tcp(route.clone()));
        }
        of_virtual_service(world, of(StreamKind::Virtual), client, dialled)
    }

    /// The route for a server's name: the most specific of their names that matches, then the oldest route.
    pub fn named<'a>(routes: &'a [Arc<StreamRoute>], name: &str) -> Option<&'a Arc<StreamRoute>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let matching = routes.iter().filter_map(|route| {
            let names = route.names.iter().filter(|it| it.matches(&name));
            Some((names.map(|it| it.rank()).max()?, route))
        });
        matching
            .max_by_key(|(rank, route)| (*rank, Reverse(route.seniority())))
            .map(|(_, route)| route)
    }
}

/// The rules of the VirtualService with the most specific host, of several the oldest. `None`: none is for this connection, which goes
/// to the service itself.
fn of_virtual_service<'a>(
    world: &World,
    all: impl Iterator<Item = &'a Arc<StreamRoute>>,
    client: &Workload,
    dialled: IpAddr,
) -> Option<Streams> {
    let specific = |route: &StreamRoute| route.rules.as_ref().map_or(0, |it| it.holds.specific);
    let held = all.min_by_key(|route| (Reverse(specific(route)), route.seniority()))?;
    let rules = held.rules.as_ref()?;
    // As it is in this snapshot: its labels may have changed.
    let selected_by = &world.workload(&client.uid).map_or(client, |it| it).selected_by;
    let is_for = |matched: &&StreamMatch| {
        let StreamMatch { names: _, subnets, source_namespace, source_labels } = matched;
        (subnets.is_empty() || subnets.iter().any(|it| it.contains(&dialled)))
            && source_namespace.as_ref().is_none_or(|it| *it == client.key.namespace)
            && source_labels.is_none_or(|number| selected_by.contains(number))
    };
    let (mut named, mut rest) = (Vec::new(), None);
    for rule in &rules.rules {
        for matched in rule.matches.iter().filter(is_for) {
            match rule.route.kind {
                StreamKind::Tls => named.push((matched.names.clone(), rule.route.clone())),
                StreamKind::Tcp | StreamKind::Virtual => {
                    rest.get_or_insert_with(|| rule.route.clone());
                }
            }
        }
    }
    match (named.is_empty(), rest) {
        (true, rest) => rest.map(Streams::Tcp),
        (false, rest) => Some(Streams::Named { rules: named, rest }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HttpRoute, RouteParent};
    use crate::route::{Decision, decide};
    use crate::world::fixture::{
        self, Fixture, backend, bound_to, key, service, waypoint, workload,
    };

    fn stream(name: &str, kind: StreamKind, created: i64, names: &[&str]) -> StreamRoute {
        StreamRoute {
            kind,
            key: key(name),
            created,
            parents: vec![RouteParent { service: key("echo"), port: None }],
            names: names.iter().map(|name| NameMatch::new(name)).collect(),
            backends: vec![backend("other", 1)],
            turn: Arc::default(),
            rules: None,
        }
    }

    fn tcp(name: &str, created: i64) -> StreamRoute {
        stream(name, StreamKind::Tcp, created, &[])
    }

    fn http(name: &str) -> HttpRoute {
        fixture::route(name, "echo", vec![fixture::rule(vec![backend("echo", 1)])])
    }

    /// A service whose port says nothing, or that it does not speak HTTP.
    fn echo(protocol: AppProtocol) -> Fixture {
        let pod = workload("echo-1", "10.0.0.1");
        let mut service =
            Service { waypoint: bound_to("wp"), ..service("echo", "10.96.0.1", &[&pod]) };
        service.ports[0].protocol = protocol;
        Fixture::default().service(service).workload(pod).waypoint(waypoint("wp"))
    }

    fn held(world: &World, namespace: &str) -> String {
        let client = Workload {
            key: crate::base::ObjectKey::new(namespace, "client"),
            ..workload("client", "10.0.0.9")
        };
        match decide(world, &client, "10.96.0.1:80".parse().unwrap()) {
            Decision::Routed { routes: Streams::Tcp(route), .. } => route.key.to_string(),
            Decision::Routed { routes: Streams::Tls(routes), .. } => {
                format!("{} with TLS", routes.len())
            }
            Decision::Waypoint { .. } => "waypoint".to_owned(),
            Decision::Service { .. } => "service".to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_most_specific_kind_holds_and_of_tcp_routes_the_oldest() {
        use AppProtocol::{Detect, Tcp};
        let (old, young) = (|| tcp("z-old", 10), || tcp("a-young", 20));
        let tls = || stream("tls", StreamKind::Tls, 5, &["a.example"]);
        for (world, expected) in [
            (echo(Detect), "waypoint"),
            (echo(Tcp), "service"),
            (echo(Detect).stream_route(young()).stream_route(old()), "shop/z-old"),
            (echo(Detect).stream_route(young()).stream_route(tcp("unknown", 0)), "shop/a-young"),
            (echo(Detect).stream_route(old()).stream_route(tls()), "1 with TLS"),
            (echo(Detect).stream_route(old()).stream_route(tls()).route(http("r")), "waypoint"),
            (echo(Tcp).stream_route(old()).route(http("r")), "shop/z-old"),
        ] {
            assert_eq!(held(&world.build(), "shop"), expected);
        }
        let mut elsewhere = old();
        elsewhere.parents[0].port = Some(81);
        assert_eq!(held(&echo(Detect).stream_route(elsewhere).build(), "shop"), "waypoint");
    }

    #[test]
    fn a_consumers_route_of_any_kind_replaces_the_producers() {
        let consumer = || tcp("client/c", 0);
        let world = echo(AppProtocol::Detect).route(http("p")).stream_route(consumer()).build();
        assert_eq!(held(&world, "client"), "client/c");
        assert_eq!(held(&world, "shop"), "waypoint");
        assert_eq!(held(&world, "third"), "waypoint");
        let world = echo(AppProtocol::Detect).stream_route(tcp("p", 0)).route(http("client/c"));
        let world = world.build();
        assert_eq!(held(&world, "client"), "waypoint");
        assert_eq!(held(&world, "third"), "shop/p");
    }

    #[test]
    fn names_select_the_most_specific_route() {
        let route = |name: &str, created, names: &[&str]| {
            Arc::new(stream(name, StreamKind::Tls, created, names))
        };
        let routes = [
            route("wide", 1, &["*.example.org"]),
            route("narrow", 2, &["*.shop.example.org"]),
            route("exact", 3, &["cart.shop.example.org", "*.unused.example"]),
            route("twin", 2, &["*.shop.example.org"]),
        ];
        for (name, expected) in [
            ("cart.shop.example.org", Some("shop/exact")),
            ("CART.shop.Example.org.", Some("shop/exact")),
            ("x.cart.shop.example.org", Some("shop/narrow")),
            ("pay.shop.example.org", Some("shop/narrow")),
            ("shop.example.org", Some("shop/wide")),
            ("example.org", None),
            (".example.org", None),
            ("badexample.org", None),
            ("", None),
        ] {
            let found = Streams::named(&routes, name).map(|route| route.key.to_string());
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }
}
