//! Where a connection goes.

use super::*;

#[test]
fn decisions() {
    let pod = workload("pod", "10.0.0.1");
    let with = |binding| {
        let service = Service { waypoint: binding, ..service("echo", "10.96.0.1", &[&pod]) };
        let base = Fixture::default().workload(pod.clone()).service(service);
        base.waypoint(waypoint("wp")).build()
    };
    let outcome = |world: &World, to: &str| match decide(world, &pod, to.parse().unwrap()) {
        Decision::Refuse { reason, .. } => reason.flag().to_string(),
        Decision::Passthrough => "passthrough".into(),
        Decision::Service { port, .. } => format!("service {port}"),
        Decision::Workload { port, .. } => format!("workload {port}"),
        Decision::Waypoint { waypoint, .. } => format!("waypoint {}", waypoint.key),
        Decision::Routed { routes: Streams::Tcp(route), .. } => format!("tcp {}", route.key),
        Decision::Routed { routes: Streams::Tls(routes), .. } => {
            let keys: Vec<String> = routes.iter().map(|route| route.key.to_string()).collect();
            format!("tls {}", keys.join(" "))
        }
        Decision::Routed { routes: Streams::Named { .. }, .. } => "named".into(),
        Decision::Named { .. } => "by its server's name".into(),
    };
    let unusable = Binding::Unusable { waypoint: key("gone"), why: "it does not exist".into() };
    for (binding, to, expected) in [
        (Binding::None, "10.96.0.1:80", "service 80"),
        (Binding::None, "10.96.0.1:81", Reason::NoHealthyUpstream.flag()),
        (Binding::None, "10.0.0.1:8080", "workload 8080"),
        (Binding::None, "10.0.0.1:15008", Reason::BadRequest.flag()),
        (Binding::None, "127.0.0.1:15001", Reason::BadRequest.flag()),
        (Binding::None, "192.0.2.1:15008", "passthrough"),
        (Binding::None, "192.0.2.1:443", "passthrough"),
        (bound_to("wp"), "10.96.0.1:80", "waypoint shop/wp"),
        (bound_to("wp"), "10.0.0.1:8080", "workload 8080"),
        (bound_to("gone"), "10.96.0.1:80", Reason::WaypointUnusable.flag()),
        (unusable, "10.96.0.1:80", Reason::WaypointUnusable.flag()),
        (Binding::None, "[::ffff:10.96.0.1]:80", "service 80"),
        (Binding::None, "[::ffff:127.0.0.1]:15006", Reason::BadRequest.flag()),
        (Binding::None, "[::1]:15008", Reason::BadRequest.flag()),
        (Binding::None, "0.0.0.0:15001", Reason::BadRequest.flag()),
        (Binding::None, "127.0.0.1:80", "passthrough"),
    ] {
        assert_eq!(outcome(&with(binding.clone()), to), expected, "{binding:?} {to}");
    }
}

/// Of the hundred numbers that connections draw, exactly the canary's share falls to it.
#[test]
fn a_canary_takes_its_share_of_connections() {
    for weight in [0, 1, 5, 50, 99, 100] {
        let canary = Some(Canary { waypoint: key("next"), weight });
        let echo =
            Service { waypoint: bound_to("wp"), canary, ..service("echo", "10.96.0.1", &[]) };
        let mesh = Fixture::default().service(echo.clone());
        let world = mesh.waypoint(waypoint("wp")).waypoint(waypoint("next")).build();
        let first = world.waypoint(&key("wp")).unwrap();
        let taken =
            (0..100).filter(|draw| drawn(&world, &echo, first.clone(), *draw).key == key("next"));
        assert_eq!(taken.count(), usize::from(weight));
        // One that is gone takes nothing.
        let world = Fixture::default().service(echo.clone()).waypoint(waypoint("wp")).build();
        assert!((0..100).all(|draw| drawn(&world, &echo, first.clone(), draw).key == key("wp")));
    }
}

/// A gateway that dials a pod means the service that wants it to pass its waypoint, where that is one.
#[test]
fn what_a_gateway_means_that_dials_a_pod() {
    let pod = workload("pod", "10.0.0.1");
    let client = |gateway| Workload { gateway, ..workload("gateway", "10.0.9.9") };
    let of = |name: &str, binding: Binding, ingress| Service {
        waypoint: binding,
        ingress,
        ..service(name, "10.96.0.1", &[&pod])
    };
    let hidden = |name: &str| Service {
        visibility: Visibility::Namespaces(vec!["elsewhere".into()]),
        ..of(name, bound_to("wp"), true)
    };
    for (gateway, services, to, expected) in [
        (true, vec![of("a", bound_to("wp"), true)], "10.0.0.1:8080", "waypoint a 80"),
        (false, vec![of("a", bound_to("wp"), true)], "10.0.0.1:8080", "workload 8080"),
        (true, vec![of("a", bound_to("wp"), false)], "10.0.0.1:8080", "workload 8080"),
        (true, vec![of("a", bound_to("wp"), true)], "10.0.0.1:9090", "workload 9090"),
        (true, vec![of("a", Binding::None, true)], "10.0.0.1:8080", "workload 8080"),
        (
            true,
            vec![of("a", bound_to("gone"), true)],
            "10.0.0.1:8080",
            Reason::WaypointUnusable.flag(),
        ),
        (
            true,
            vec![of("a", bound_to("wp"), true), of("b", bound_to("wp"), false)],
            "10.0.0.1:8080",
            "waypoint a 80",
        ),
        (
            true,
            vec![of("a", bound_to("wp"), true), of("b", bound_to("wp"), true)],
            "10.0.0.1:8080",
            "workload 8080",
        ),
        (true, vec![hidden("a")], "10.0.0.1:8080", "workload 8080"),
        (true, vec![of("a", bound_to("wp"), true)], "10.0.0.1:15008", Reason::BadRequest.flag()),
    ] {
        let mesh = Fixture::default().workload(pod.clone()).waypoint(waypoint("wp"));
        let world = services.iter().fold(mesh, |mesh, it| mesh.service(it.clone())).build();
        let outcome = match decide(&world, &client(gateway), to.parse().unwrap()) {
            Decision::Refuse { reason, .. } => reason.flag().to_string(),
            Decision::Workload { port, .. } => format!("workload {port}"),
            Decision::Waypoint { service, port, .. } => {
                format!("waypoint {} {port}", service.key.name)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(outcome, expected, "{gateway} {to} {services:?}");
    }
}

#[test]
fn a_waypoint_takes_only_what_may_be_http_and_is_for_services() {
    let pod = workload("pod", "10.0.0.1");
    let outcome = |protocol, for_services| {
        let mut service =
            Service { waypoint: bound_to("wp"), ..service("echo", "10.96.0.1", &[&pod]) };
        service.ports[0].protocol = protocol;
        let waypoint = Waypoint { for_services, ..waypoint("wp") };
        let world =
            Fixture::default().workload(pod.clone()).service(service).waypoint(waypoint).build();
        match decide(&world, &pod, "10.96.0.1:80".parse().unwrap()) {
            Decision::Waypoint { protocol, .. } => Some(protocol),
            Decision::Service { .. } => None,
            other => panic!("{other:?}"),
        }
    };
    for protocol in [AppProtocol::Http, AppProtocol::Http2, AppProtocol::Detect] {
        assert_eq!(outcome(protocol, true), Some(protocol));
        assert_eq!(outcome(protocol, false), None);
    }
    assert_eq!(outcome(AppProtocol::Tcp, true), None);
}

/// A host of an entry that leads wherever was dialled.
fn entry(name: &str, vips: &[&str], networks: &[&str]) -> Service {
    Service {
        entry: Some(name.into()),
        vips: vips.iter().map(|text| text.parse().unwrap()).collect(),
        networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
        resolution: Resolution::Dialled,
        ..service(name, "192.0.2.1", &[])
    }
}

fn port(number: u16) -> Vec<ServicePort> {
    vec![ServicePort { name: "p".into(), port: number, protocol: AppProtocol::Tcp }]
}

#[test]
fn an_address_means_the_most_specific_that_claims_it() {
    let pod = workload("pod", "203.0.113.9");
    let world = [
        entry("wide", &[], &["203.0.0.0/16", "2001:db8::/32"]),
        entry("narrow", &[], &["203.0.113.0/24", "2001:db8:1::/48"]),
        entry("exact", &["203.0.113.1", "203.0.113.9", "10.96.0.1"], &[]),
        Service { ports: port(5432), ..entry("db", &["203.0.113.1"], &["203.0.113.0/24"]) },
        service("web", "10.96.0.1", &[&pod]),
    ]
    .into_iter()
    .fold(Fixture::default().workload(pod.clone()), Fixture::service)
    .build();
    for (to, expected) in [
        ("203.0.113.1:80", "exact"),
        ("203.0.113.1:5432", "db"),
        ("203.0.113.1:81", "exact"),
        ("203.0.113.2:80", "narrow"),
        ("203.0.113.2:5432", "db"),
        ("203.0.1.2:80", "wide"),
        ("[::ffff:203.0.1.2]:80", "wide"),
        ("[2001:db8:1::1]:80", "narrow"),
        ("[2001:db8:2::1]:80", "wide"),
        ("[2001:db9::1]:80", "passthrough"),
        ("203.1.0.1:80", "passthrough"),
        ("203.0.113.9:80", "workload"),
        ("10.96.0.1:80", "web"),
        ("10.96.0.1:81", "refused"),
    ] {
        let outcome = match decide(&world, &pod, to.parse().unwrap()) {
            Decision::Service { service, .. } => service.name().to_string(),
            Decision::Workload { .. } => "workload".to_owned(),
            Decision::Passthrough => "passthrough".to_owned(),
            Decision::Refuse { .. } => "refused".to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(outcome, expected, "{to}");
    }
}

/// What an entry claims counts for who sees it, its own namespace's first, and never against the mesh's own addresses.
#[test]
fn an_entry_means_something_to_those_who_see_it() {
    let pod = workload("pod", "203.0.113.9");
    let seen_in = |namespace: &str, entry: Service| Service {
        visibility: Visibility::Namespaces(vec![namespace.into()]),
        key: key(&format!("{namespace}/{}", entry.key.name)),
        ..entry
    };
    let claims = ["203.0.113.1", "203.0.113.9", "10.96.0.1"];
    let world = [
        seen_in("evil", entry("stolen", &claims, &["0.0.0.0/0"])),
        seen_in("evil", entry("narrow", &[], &["198.51.100.0/24"])),
        entry("istio-system/common", &["203.0.113.1"], &["198.51.0.0/16"]),
        service("web", "10.96.0.1", &[&pod]),
    ]
    .into_iter()
    .fold(Fixture::default().workload(pod.clone()), Fixture::service)
    .build();
    for (to, of_evil, of_others) in [
        ("203.0.113.1:80", "evil/stolen", "istio-system/common"),
        ("198.51.100.1:80", "evil/narrow", "istio-system/common"),
        ("198.51.1.1:80", "istio-system/common", "istio-system/common"),
        ("192.0.2.1:80", "evil/stolen", "passthrough"),
        ("203.0.113.9:80", "workload", "workload"),
        ("10.96.0.1:80", "shop/web", "shop/web"),
    ] {
        for (client, expected) in
            [("evil/x", of_evil), ("x", of_others), ("istio-system/x", of_others)]
        {
            let client = workload(client, "10.0.0.9");
            let outcome = match decide(&world, &client, to.parse().unwrap()) {
                Decision::Service { service, .. } => service.key.to_string(),
                Decision::Workload { .. } => "workload".to_owned(),
                Decision::Passthrough => "passthrough".to_owned(),
                other => panic!("{other:?}"),
            };
            assert_eq!(outcome, expected, "{} {to}", client.key);
        }
    }
}

/// What leads to wherever was dialled does so on every port, but not past a waypoint.
#[test]
fn ports_that_an_entry_does_not_name() {
    let pod = workload("pod", "10.0.0.1");
    let outcome = |service: Service| {
        let base = Fixture::default().workload(pod.clone()).service(service);
        let world = base.waypoint(waypoint("wp")).build();
        let to = "203.0.113.1:999".parse().unwrap();
        matches!(decide(&world, &pod, to), Decision::Service { port: 999, .. })
    };
    let open = entry("e", &["203.0.113.1"], &[]);
    assert!(outcome(open.clone()));
    assert!(!outcome(Service { waypoint: bound_to("wp"), ..open.clone() }));
    assert!(!outcome(Service { resolution: Resolution::Listed, ..open }));
}

#[test]
fn a_workload_with_an_unusable_waypoint_is_refused() {
    let unusable = Binding::Unusable { waypoint: key("gone"), why: "it does not exist".into() };
    for waypoint in [unusable, bound_to("gone")] {
        let pod = Workload { waypoint, ..workload("pod", "10.0.0.1") };
        let world = Fixture::default().workload(pod.clone()).build();
        match decide(&world, &pod, "10.0.0.1:8080".parse().unwrap()) {
            Decision::Refuse { reason: Reason::WaypointUnusable, why } => {
                assert!(why.contains("shop/gone") && why.contains("shop/pod"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
}
