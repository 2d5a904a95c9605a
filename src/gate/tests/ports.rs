//! Which port `ports` and `destination.port` mean, by what the policy is attached to and by the way that the client takes.

use super::*;
use Action::{Allow, Deny};

const WEB_HOST: &str = "web.shop.svc.cluster.local";

/// Service ports, and the pod's that each leads to.
type Ports<'a> = &'a [(u16, u16)];

fn with_ports(ports: Ports<'_>, service: Service) -> Service {
    let of = |(port, _): &(u16, u16)| ServicePort {
        name: format!("http-{port}").into(),
        port: *port,
        protocol: AppProtocol::Http,
    };
    let mappings: Vec<_> =
        ports.iter().map(|(port, target)| PortMapping { port: *port, target: *target }).collect();
    let endpoints = service.endpoints.iter().cloned();
    Service {
        ports: ports.iter().map(of).collect(),
        endpoints: endpoints.map(|it| Endpoint { ports: mappings.clone(), ..it }).collect(),
        waypoint: bound_to("wp"),
        ..service
    }
}

/// Pod `web` (10.0.0.1) behind service `web` with these ports, under one policy.
fn world(ports: Ports<'_>, policy: AuthorizationPolicy) -> Arc<World> {
    let pod = workload("web", "10.0.0.1");
    let web = with_ports(ports, service("web", "10.96.0.1", &[&pod]));
    Fixture::default().workload(pod).service(web).waypoint(waypoint("wp")).policy(policy).build()
}

fn listed(any: &[u16], none: &[u16]) -> Rule {
    let ports = Values { any: any.to_vec(), none: none.to_vec() };
    to(Operation { ports, ..Operation::default() })
}

fn on(target: PolicyTarget) -> Scope {
    Scope::Targets(vec![target])
}

/// A connection through a tunnel that names `host`, or in the pod's own name, to a port of pod `web`.
fn arrives(world: &World, host: Option<&str>, port: u16) -> bool {
    let workload = world.workload_at("10.0.0.1".parse().unwrap()).unwrap();
    let client = identity("curl");
    let addressed = addressed(world, workload, port, host, Some(&client));
    let connection = Connection {
        client: Some(&client),
        source: "10.0.9.9".parse().unwrap(),
        destination: format!("10.0.0.1:{port}").parse().unwrap(),
        server_name: None,
    };
    Gate::new(world, workload, port, &addressed).decide(&connection, None).is_ok()
}

/// A connection that the client's half judges: a port of a service was dialled, and leads to an address.
fn leaves(world: &World, name: &str, port: u16, to: &str) -> bool {
    let service = world.service(&key(name)).unwrap();
    let client = identity("curl");
    let destination = to.parse().unwrap();
    let connection = Connection {
        client: Some(&client),
        source: "10.0.9.9".parse().unwrap(),
        destination,
        server_name: None,
    };
    let backend = (&**service, port);
    let way = Way {
        addressed: service,
        port,
        route: None,
        delegate: None,
        backend,
        workload: None,
        destination,
    };
    Gate::for_uncaptured(world, &way).decide(&connection, None).is_ok()
}

const ONE: Ports<'_> = &[(80, 8080)];
const TWINS: Ports<'_> = &[(80, 8080), (81, 8080)];
/// A number means one port to clients and another one to the pod.
const CROSSED: Ports<'_> = &[(80, 8080), (8080, 9090)];

#[test]
fn a_targeted_policy_means_the_port_that_was_dialled() {
    let service = || on(PolicyTarget::Service("web".into()));
    let gateway = || on(PolicyTarget::Gateway("wp".into()));
    for scope in [service(), gateway()] {
        for (ports, action, rule, at, expected) in [
            (ONE, Deny, listed(&[80], &[]), 8080, false),
            (ONE, Allow, listed(&[80], &[]), 8080, true),
            // No port of the service, so the pod's.
            (ONE, Deny, listed(&[8080], &[]), 8080, false),
            (ONE, Allow, listed(&[8080], &[]), 8080, true),
            (ONE, Deny, listed(&[443], &[]), 8080, true),
            (ONE, Allow, listed(&[443], &[]), 8080, false),
            (ONE, Deny, listed(&[], &[80]), 8080, true),
            (ONE, Deny, listed(&[], &[443]), 8080, false),
            (ONE, Allow, listed(&[], &[80]), 8080, false),
            (ONE, Allow, listed(&[], &[8080]), 8080, false),
            (ONE, Allow, listed(&[], &[443]), 8080, true),
            // Nobody can tell which of the two was dialled.
            (TWINS, Deny, listed(&[81], &[]), 8080, false),
            (TWINS, Deny, listed(&[], &[80]), 8080, false),
            (TWINS, Deny, listed(&[], &[80, 81]), 8080, true),
            (TWINS, Allow, listed(&[80], &[]), 8080, false),
            (TWINS, Allow, listed(&[80, 81], &[]), 8080, true),
            (TWINS, Allow, listed(&[], &[81]), 8080, false),
            // An ALLOW means what was dialled; a DENY whatever it can mean.
            (CROSSED, Allow, listed(&[8080], &[]), 9090, true),
            (CROSSED, Allow, listed(&[8080], &[]), 8080, false),
            (CROSSED, Deny, listed(&[8080], &[]), 9090, false),
            (CROSSED, Deny, listed(&[8080], &[]), 8080, false),
            (CROSSED, Deny, listed(&[80], &[]), 9090, true),
            (CROSSED, Deny, listed(&[9090], &[]), 9090, false),
        ] {
            let world = world(ports, policy("p", action, scope.clone(), vec![rule.clone()]));
            for host in [Some(WEB_HOST), None] {
                let passes = arrives(&world, host, at);
                assert_eq!(passes, expected, "{scope:?} {ports:?} {action:?} {rule:?} {host:?}");
            }
        }
    }
}

#[test]
fn a_policy_of_the_workload_means_its_own_port() {
    for (action, rule, expected) in [
        (Deny, listed(&[80], &[]), true),
        (Deny, listed(&[8080], &[]), false),
        (Allow, listed(&[80], &[]), false),
        (Allow, listed(&[8080], &[]), true),
        (Deny, listed(&[], &[80]), false),
    ] {
        let world = world(ONE, policy("p", action, Scope::Namespace, vec![rule.clone()]));
        for host in [Some(WEB_HOST), None] {
            assert_eq!(arrives(&world, host, 8080), expected, "{action:?} {rule:?} {host:?}");
        }
    }
}

/// One Gateway guards two services with one endpoint, and the pod itself.
#[test]
fn a_gateway_means_the_port_of_whatever_was_dialled() {
    let pod = || Workload { waypoint: bound_to("wp"), ..workload("web", "10.0.0.1") };
    let of = |action, rule| {
        let other = with_ports(&[(9080, 8080)], service("other", "10.96.0.2", &[&pod()]));
        let web = with_ports(ONE, service("web", "10.96.0.1", &[&pod()]));
        Fixture::default()
            .workload(pod())
            .service(other)
            .service(web)
            .waypoint(waypoint("wp"))
            .policy(policy("p", action, on(PolicyTarget::Gateway("wp".into())), vec![rule]))
            .build()
    };
    for (action, ports, by_web, by_other, by_pod) in [
        (Deny, &[80][..], false, true, false),
        (Deny, &[9080], true, false, false),
        (Deny, &[8080], false, false, false),
        (Allow, &[80], true, false, false),
        (Allow, &[80, 9080], true, true, false),
        (Allow, &[80, 9080, 8080], true, true, true),
    ] {
        let world = of(action, listed(ports, &[]));
        let other = "other.shop.svc.cluster.local";
        let passes = [Some(WEB_HOST), Some(other), None].map(|host| arrives(&world, host, 8080));
        assert_eq!(passes, [by_web, by_other, by_pod], "{action:?} {ports:?}");
    }
}

#[test]
fn through_a_route_the_port_is_that_of_the_service_that_was_dialled() {
    let (web, back) = (workload("web", "10.0.0.1"), workload("back", "10.0.0.2"));
    let front = with_ports(&[(443, 1), (8000, 2)], service("front", "10.96.0.2", &[&back]));
    let mut route =
        fixture::route("r", "front", vec![fixture::rule(vec![fixture::backend("web", 1)])]);
    route.parents[0].port = Some(8000);
    let of = |action, ports: &[u16]| {
        let scope = on(PolicyTarget::Service("front".into()));
        Fixture::default()
            .service(front.clone())
            .service(service("web", "10.96.0.1", &[&web]))
            .workload(web.clone())
            .workload(back.clone())
            .waypoint(waypoint("wp"))
            .route(route.clone())
            .policy(policy("p", action, scope, vec![listed(ports, &[])]))
            .build()
    };
    for (action, ports, expected) in [
        (Deny, &[8000][..], false),
        (Deny, &[443], true),
        (Deny, &[8080], false),
        (Allow, &[8000], true),
        (Allow, &[443], false),
    ] {
        let world = of(action, ports);
        let front = "front.shop.svc.cluster.local";
        assert_eq!(arrives(&world, Some(front), 8080), expected, "{action:?} {ports:?}");
    }
}

/// Outside of the mesh there is no workload whose port could be meant.
#[test]
fn an_entry_means_its_own_port() {
    let of = |action, ports: &[u16]| {
        let entry = service("vendor/api.example", "240.240.0.1", &[]);
        let entry = Service { entry: Some("vendor".into()), ..with_ports(TWINS, entry) };
        let scope = on(PolicyTarget::ServiceEntry("vendor".into()));
        let policy = policy("vendor/p", action, scope, vec![listed(ports, &[])]);
        Fixture::default().service(entry).waypoint(waypoint("wp")).policy(policy).build()
    };
    for (action, ports, dialled, expected) in [
        (Deny, &[80][..], 80, false),
        (Deny, &[80], 81, true),
        (Deny, &[8080], 80, false),
        (Allow, &[80], 80, true),
        (Allow, &[80], 81, false),
        (Allow, &[8080], 80, true),
        (Allow, &[443], 80, false),
    ] {
        let world = of(action, ports);
        let passes = leaves(&world, "vendor/api.example", dialled, "192.0.2.1:8080");
        assert_eq!(passes, expected, "{action:?} {ports:?} {dialled}");
    }
}

#[test]
fn an_answer_without_an_endpoint_is_judged_by_the_port_that_was_dialled() {
    let rule = listed(&[80], &[]);
    let world =
        world(TWINS, policy("p", Deny, on(PolicyTarget::Service("web".into())), vec![rule]));
    let service = world.service(&key("web")).unwrap();
    let client = identity("curl");
    for (port, expected) in [(80, false), (81, true)] {
        let destination = service.an_endpoint(format!("10.96.0.1:{port}").parse().unwrap());
        let source = "10.0.9.9".parse().unwrap();
        let connection =
            Connection { client: Some(&client), source, destination, server_name: None };
        let gate = Gate::for_service(&world, service, port);
        assert_eq!(gate.decide(&connection, None).is_ok(), expected, "{port}");
    }
}

#[test]
fn a_virtual_address_is_a_destination_too() {
    let block = |text: &str| Values { any: vec![text.parse().unwrap()], none: Vec::new() };
    for (action, text, by_service, by_pod) in [
        (Deny, "10.96.0.1/32", false, false),
        (Allow, "10.96.0.1/32", true, true),
        (Deny, "10.0.0.1/32", false, false),
        (Allow, "10.0.0.1/32", true, true),
        (Deny, "10.96.0.2/32", true, true),
        (Allow, "10.96.0.2/32", false, false),
    ] {
        let when = vec![Condition::DestinationIp(block(text))];
        let rule = Rule { when, ..Rule::default() };
        let scope = on(PolicyTarget::Service("web".into()));
        let world = world(ONE, policy("p", action, scope, vec![rule]));
        let passes = [Some(WEB_HOST), None].map(|host| arrives(&world, host, 8080));
        assert_eq!(passes, [by_service, by_pod], "{action:?} {text}");
    }
}

/// Open connections are judged anew when the ports of the service change their meaning.
#[test]
fn gates_differ_with_the_ports_that_were_dialled() {
    let gate = |ports, rule: Rule| {
        let scope = on(PolicyTarget::Service("web".into()));
        let world = world(ports, policy("p", Deny, scope, vec![rule]));
        let workload = world.workload_at("10.0.0.1".parse().unwrap()).unwrap();
        let addressed = addressed(&world, workload, 8080, Some(WEB_HOST), None);
        Gate::new(&world, workload, 8080, &addressed)
    };
    let ports = || listed(&[80], &[]);
    assert!(gate(ONE, ports()) == gate(ONE, ports()));
    assert!(gate(ONE, ports()) != gate(TWINS, ports()));
    assert!(gate(ONE, ports()) != gate(CROSSED, ports()));
    let other = || to(methods("GET"));
    assert!(gate(ONE, other()) == gate(TWINS, other()), "no policy looks at it");
}
