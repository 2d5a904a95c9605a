//! Which policies guard a connection, by whom it addressed.

use super::*;

const PORT: u16 = 8080;

/// How somebody comes to pod `web`.
type Way = fn(&World) -> Addressed;

fn gate(world: &World, addressed: &Addressed) -> Gate {
    let workload = world.workload_at("10.0.0.1".parse().unwrap()).unwrap();
    Gate::new(world, workload, PORT, addressed)
}

fn served(world: &World, name: &str) -> Addressed {
    let service = world.service(&key(name)).unwrap().clone();
    Addressed::Service(Served { service, service_port: 80 })
}

fn through(world: &World, name: &str, verified: bool) -> Addressed {
    let service = world.service(&key(name)).unwrap().clone();
    Addressed::Route { service, ports: [80].into(), verified }
}

fn delete_is_denied(gate: &Gate) -> bool {
    let (client, headers) = (identity("curl"), HeaderMap::new());
    let connection = Connection {
        client: Some(&client),
        source: "10.0.9.9".parse().unwrap(),
        destination: "10.0.0.1:8080".parse().unwrap(),
        server_name: None,
    };
    let request =
        Request { method: &Method::DELETE, path: "/", host: "web.shop", headers: &headers };
    gate.decide(&connection, Some(&request)).is_err()
}

fn no_delete(name: &str, target: PolicyTarget) -> AuthorizationPolicy {
    policy(name, Action::Deny, Scope::Targets(vec![target]), vec![to(methods("DELETE"))])
}

/// Pod `web` behind `a` (waypoint `wa`), `b` (waypoint `wb`) and `plain` (none), itself bound to `wp`.
fn crowd() -> Fixture {
    crowd_around(bound_to("wp"))
}

fn crowd_around(waypoint_of_pod: Binding) -> Fixture {
    let pod = Workload { waypoint: waypoint_of_pod, ..workload("web", "10.0.0.1") };
    let behind = |name, vip, waypoint| Service { waypoint, ..service(name, vip, &[&pod]) };
    ["wa", "wb", "wp"]
        .into_iter()
        .fold(Fixture::default(), |fixture, name| fixture.waypoint(waypoint(name)))
        .service(behind("a", "10.96.0.1", bound_to("wa")))
        .service(behind("b", "10.96.0.2", bound_to("wb")))
        .service(behind("plain", "10.96.0.3", Binding::None))
        .workload(pod)
}

#[test]
fn each_way_meets_its_guards() {
    let service = |name: &str| PolicyTarget::Service(name.into());
    let gateway = |name: &str| PolicyTarget::Gateway(name.into());
    // Denied when: a, b, plain addressed; a claimed by route and verified; claimed only; the pod itself.
    for (target, expected) in [
        (service("a"), [true, false, false, true, true, true]),
        (gateway("wa"), [true, false, false, true, true, true]),
        (service("b"), [false, true, false, false, true, true]),
        (gateway("wp"), [false, false, false, false, true, true]),
        (service("plain"), [false; 6]),
    ] {
        let world = crowd().policy(no_delete("p", target.clone())).build();
        let ways = [
            served(&world, "a"),
            served(&world, "b"),
            served(&world, "plain"),
            through(&world, "a", true),
            through(&world, "a", false),
            Addressed::Workload,
        ];
        let denied = ways.map(|addressed| delete_is_denied(&gate(&world, &addressed)));
        assert_eq!(denied, expected, "{target:?}");
    }
}

#[test]
fn the_principal_of_the_waypoint_that_was_addressed_is_added() {
    let world = crowd().build();
    for (addressed, expected) in [
        (served(&world, "a"), Some("wa")),
        (served(&world, "b"), Some("wb")),
        (served(&world, "plain"), None),
        (through(&world, "a", true), Some("wa")),
        (Addressed::Workload, Some("wp")),
    ] {
        let gate = gate(&world, &addressed);
        assert_eq!(gate.waypoint().map(|it| it.key.clone()), expected.map(key), "{addressed:?}");
        let client = identity("curl");
        let connection = |client| Connection {
            client,
            source: "10.0.9.9".parse().unwrap(),
            destination: "10.0.0.1:8080".parse().unwrap(),
            server_name: None,
        };
        let permit = gate.decide(&connection(Some(&client)), None).unwrap();
        assert_eq!(permit.waypoint, expected.map(identity));
        assert_eq!(gate.decide(&connection(None), None).unwrap().waypoint, None, "plaintext");
    }
    let gate = gate(&world, &served(&world, "a"));
    assert_eq!(gate.service().map(|it| it.key.clone()), Some(key("a")));
}

#[test]
fn one_unusable_waypoint_closes_what_it_guards() {
    let unusable = || Binding::Unusable { waypoint: key("gone"), why: "it does not exist".into() };
    let pod = workload("web", "10.0.0.1");
    let closed = Service { waypoint: unusable(), ..service("closed", "10.96.0.1", &[&pod]) };
    let open = Service { waypoint: bound_to("wp"), ..service("open", "10.96.0.2", &[&pod]) };
    let world = Fixture::default()
        .waypoint(waypoint("wp"))
        .service(closed)
        .service(open)
        .workload(pod.clone())
        .build();
    let refused = |addressed: Addressed| delete_is_denied(&gate(&world, &addressed));
    assert!(refused(served(&world, "closed")));
    assert!(refused(Addressed::Workload), "the policies of its waypoint cannot be known");
    assert!(!refused(served(&world, "open")), "another service's waypoint does not concern it");
    let bound = Workload { waypoint: unusable(), ..pod.clone() };
    let world = Fixture::default()
        .waypoint(waypoint("wp"))
        .service(Service { waypoint: bound_to("wp"), ..service("open", "10.96.0.2", &[&pod]) })
        .workload(bound)
        .build();
    assert!(!delete_is_denied(&gate(&world, &served(&world, "open"))));
    let denial = by("curl").result(&world).unwrap_err();
    assert_eq!(denial.why, "waypoint shop/gone of Pod shop/web cannot be used: it does not exist");
}

#[test]
fn a_workload_that_is_gone_is_refused() {
    let world = Fixture::default().build();
    let gone = Arc::new(workload("web", "10.0.0.1"));
    assert!(delete_is_denied(&Gate::new(&world, &gone, PORT, &Addressed::Workload)));
}

#[test]
fn the_present_world_counts_not_the_workload_at_hand() {
    let old = Arc::new(workload("web", "10.0.0.1"));
    let mut pod = workload("web", "10.0.0.1");
    pod.peer_authentication.mode = Mode::Strict;
    let world = Fixture::default().workload(pod).build();
    let connection = Connection {
        client: None,
        source: "10.0.9.9".parse().unwrap(),
        destination: "10.0.0.1:8080".parse().unwrap(),
        server_name: None,
    };
    let gate = Gate::new(&world, &old, PORT, &Addressed::Workload);
    assert!(gate.decide(&connection, None).unwrap_err().why.contains("STRICT"));
}

#[test]
fn a_claim_counts_only_where_it_can_be_true() {
    let pods = [workload("web", "10.0.0.1"), workload("back", "10.0.0.2")];
    let route_to_web = |parent: &str| {
        let rules = vec![fixture::rule(vec![fixture::backend("web", 1)])];
        fixture::route(&format!("r-{parent}"), parent, rules)
    };
    let bound = |waypoint, service| Service { waypoint, ..service };
    let [web, back] = &pods;
    let world = Fixture::default()
        .waypoint(waypoint("wp"))
        .service(service("web", "10.96.0.1", &[web]))
        .service(bound(bound_to("wp"), service("routed", "10.96.0.2", &[back])))
        .service(bound(bound_to("wp"), service("unrouted", "10.96.0.3", &[back])))
        .service(service("unbound", "10.96.0.4", &[back]))
        .route(route_to_web("routed"))
        .route(route_to_web("unbound"))
        .workload(web.clone())
        .workload(back.clone())
        .build();
    let kind = |host: &str, port| match addressed(&world, web, port, Some(host), None) {
        Addressed::Service(_) => "service",
        Addressed::Route { verified: false, .. } => "route",
        Addressed::Route { verified: true, .. } => "verified",
        Addressed::Workload => "workload",
    };
    for (name, port, expected) in [
        ("web", 8080, "service"),
        ("web", 8081, "workload"),
        ("routed", 8080, "route"),
        ("routed", 8081, "workload"),
        ("unrouted", 8080, "workload"),
        ("unbound", 8080, "workload"),
        ("unknown", 8080, "workload"),
    ] {
        let host = format!("{name}.shop.svc.cluster.local");
        assert_eq!(kind(&host, port), expected, "{name} {port}");
    }
    assert_eq!(kind("", 8080), "workload");
}

#[test]
fn requests_are_parsed_only_where_something_needs_it() {
    let layer7 = || no_delete("p", PolicyTarget::Service("a".into()));
    let own = |rule| policy("own", Action::Allow, Scope::Namespace, vec![rule]);
    let selected = || own(from(principal("wa")));
    let unbound = || crowd_around(Binding::None);
    let needs = |fixture: Fixture, way: Way| {
        let world = fixture.build();
        let gate = gate(&world, &way(&world));
        (gate.needs_http(), gate.worker().to_string())
    };
    let (a, b): (Way, Way) = (|world| served(world, "a"), |world| served(world, "b"));
    let (claim, pod): (Way, Way) = (|world| through(world, "a", false), |_| Addressed::Workload);
    for (fixture, way, expected) in [
        (crowd(), a, false),
        (crowd().policy(layer7()), a, true),
        (crowd().policy(layer7()), b, false),
        (unbound().policy(layer7()), pod, true),
        (unbound(), pod, false),
        (crowd(), pod, true),
        (unbound(), claim, false),
        (unbound().policy(selected()), claim, true),
        (unbound().policy(selected()), pod, false),
        (unbound().policy(own(to(methods("GET")))), pod, true),
    ] {
        assert_eq!(needs(fixture, way), (expected, "shop".to_string()));
    }
}

#[test]
fn the_declared_protocol_decides_whether_a_port_may_be_parsed() {
    let pod = workload("web", "10.0.0.1");
    let speaking = |name, vip, protocol| {
        let mut service = service(name, vip, &[&pod]);
        service.ports[0].protocol = protocol;
        service
    };
    let needs = |protocols: &[AppProtocol]| {
        let rule = to(methods("GET"));
        let start = Fixture::default().workload(pod.clone()).policy(policy(
            "p",
            Action::Allow,
            Scope::Namespace,
            vec![rule],
        ));
        let vips = ["10.96.0.1", "10.96.0.2"];
        let world = protocols
            .iter()
            .zip(vips)
            .fold(start, |all, (protocol, vip)| all.service(speaking(vip, vip, *protocol)))
            .build();
        let gate = gate(&world, &Addressed::Workload);
        assert!(delete_is_denied(&gate), "whatever it speaks");
        gate.needs_http()
    };
    use AppProtocol::{Detect, Http, Http2, Tcp};
    for (protocols, expected) in [
        (&[][..], true),
        (&[Detect], true),
        (&[Http], true),
        (&[Http2], true),
        (&[Tcp], false),
        (&[Tcp, Http], true),
        (&[Tcp, Tcp], false),
    ] {
        assert_eq!(needs(protocols), expected, "{protocols:?}");
    }
}

#[test]
fn the_worker_is_the_waypoints_and_elsewhere_the_workloads() {
    let pod = workload("web", "10.0.0.1");
    let far = Service { waypoint: bound_to("infra/wp"), ..service("a", "10.96.0.1", &[&pod]) };
    let world = Fixture::default()
        .waypoint(waypoint("infra/wp"))
        .service(far)
        .service(service("plain", "10.96.0.2", &[&pod]))
        .workload(pod)
        .build();
    assert_eq!(gate(&world, &served(&world, "a")).worker(), "infra");
    assert_eq!(gate(&world, &Addressed::Workload).worker(), "infra");
    assert_eq!(gate(&world, &served(&world, "plain")).worker(), "shop");
}

#[test]
fn tunnels_are_served_where_their_requests_are_judged() {
    let home = |fixture: Fixture| {
        let world = fixture.build();
        let workload = world.workload_at("10.0.0.1".parse().unwrap()).unwrap();
        home(&world, workload).map(|namespace| namespace.to_string())
    };
    let layer7 = |name: &str| no_delete("p", PolicyTarget::Service(name.into()));
    let own = || policy("own", Action::Allow, Scope::Namespace, vec![to(methods("GET"))]);
    let pod = || workload("web", "10.0.0.1");
    let alone = || Fixture::default().workload(pod()).policy(own());
    let bytes = || {
        let mut service = service("bytes", "10.96.0.1", &[&pod()]);
        service.ports[0].protocol = AppProtocol::Tcp;
        service
    };
    let far = || {
        let far =
            Service { waypoint: bound_to("infra/wp"), ..service("a", "10.96.0.1", &[&pod()]) };
        Fixture::default().workload(pod()).waypoint(waypoint("infra/wp")).service(far)
    };
    for (fixture, expected) in [
        (crowd(), None),
        (crowd().policy(layer7("a")), Some("shop")),
        (crowd().policy(layer7("b")), Some("shop")),
        (Fixture::default().workload(pod()), None),
        (alone(), Some("shop")),
        (alone().service(bytes()), None),
        (far(), None),
        (far().policy(own()), Some("infra")),
    ] {
        assert_eq!(home(fixture).as_deref(), expected);
    }
}

#[test]
fn the_clients_half_asks_the_waypoint_only() {
    let own = policy("own", Action::Deny, Scope::Namespace, vec![Rule::default()]);
    let world =
        crowd().policy(no_delete("p", PolicyTarget::Service("a".into()))).policy(own).build();
    let of = |name: &str| {
        let service = world.service(&key(name)).unwrap();
        let workload = world.workload_at("10.0.0.1".parse().unwrap());
        let destination = "10.0.0.1:8080".parse().unwrap();
        let workload = workload.map(|it| &**it);
        let way = super::super::Way {
            addressed: service,
            port: 80,
            route: None,
            delegate: None,
            backend: (service, 80),
            workload,
            destination,
        };
        Gate::for_uncaptured(&world, &way)
    };
    assert!(delete_is_denied(&of("a")) && of("a").needs_http());
    assert!(!delete_is_denied(&of("b")) && !of("b").needs_http());
    assert!(!delete_is_denied(&of("plain")));
}
