//! What objects of other namespaces can do to a workload: nothing but restrict their own traffic.
//!
//! Pod `shop/web` behind `shop/web`, which admits GET by way of the waypoint `shop/wp`; and objects of `evil`.

use super::super::{Views, Way};
use super::*;
use crate::base::ObjectKey;
use crate::policy::speaks_for;

const BACKDOOR: &str = "backdoor.evil.svc.cluster.local";

fn get_only(name: &str, target: PolicyTarget) -> AuthorizationPolicy {
    policy(name, Action::Allow, Scope::Targets(vec![target]), vec![to(methods("GET"))])
}

fn pod() -> Workload {
    workload("web", "10.0.0.1")
}

/// The shop as its owner made it.
fn guarded() -> Fixture {
    let web = Service { waypoint: bound_to("wp"), ..service("web", "10.96.0.1", &[&pod()]) };
    Fixture::default()
        .workload(pod())
        .workload(workload("evil/attacker", "10.0.0.6"))
        .service(web)
        .waypoint(waypoint("wp"))
        .waypoint(waypoint("evil/wp"))
        .policy(get_only("p", PolicyTarget::Service("web".into())))
}

/// A Service of `evil` that leads to the pod.
fn backdoor(waypoint: Binding) -> Service {
    Service { waypoint, ..service("evil/backdoor", "10.96.0.66", &[&pod()]) }
}

fn unusable() -> Binding {
    Binding::Unusable { waypoint: key("evil/gone"), why: "it does not exist".into() }
}

fn attempt<'a>(client: &'a str, host: Option<&'a str>, method: &'a str) -> Attempt<'a> {
    Attempt { host, ..by(client).asks(method, "/") }
}

#[test]
fn a_strangers_service_takes_no_policy_away() {
    for waypoint in [Binding::None, bound_to("evil/wp"), bound_to("evil/gone"), unusable()] {
        let open = matches!(&waypoint, Binding::None)
            || waypoint.waypoint().is_some_and(|it| it.name == "wp");
        let world = guarded().service(backdoor(waypoint.clone())).build();
        for host in [None, Some(WEB), Some(BACKDOOR)] {
            assert!(!attempt("evil/x", host, "DELETE").passes(&world), "{waypoint:?} {host:?}");
            let own_traffic = host == Some(BACKDOOR);
            let get = attempt("evil/x", host, "GET").passes(&world);
            assert_eq!(get, open || !own_traffic, "{waypoint:?} {host:?}");
        }
    }
}

#[test]
fn a_stranger_restricts_its_own_traffic_and_no_other() {
    let none = policy(
        "evil/p",
        Action::Deny,
        Scope::Targets(vec![PolicyTarget::Service("backdoor".into())]),
        vec![Rule::default()],
    );
    let world = guarded().service(backdoor(bound_to("evil/wp"))).policy(none).build();
    assert!(!attempt("curl", Some(BACKDOOR), "GET").passes(&world));
    assert!(attempt("curl", Some(WEB), "GET").passes(&world));
    assert!(attempt("curl", None, "GET").passes(&world));
}

#[test]
fn only_the_workloads_own_services_lend_a_principal() {
    let only =
        |name: &str| policy("own", Action::Allow, Scope::Namespace, vec![from(principal(name))]);
    for (name, host, expected) in [
        ("wp", Some(WEB), true),
        ("wp", Some(BACKDOOR), false),
        ("wp", None, false),
        ("evil/wp", Some(BACKDOOR), false),
    ] {
        let world = guarded().service(backdoor(bound_to("evil/wp"))).policy(only(name)).build();
        let passes = attempt("evil/x", host, "GET").passes(&world);
        assert_eq!(passes, expected, "{name} {host:?}");
    }
    // A waypoint of another namespace that the own service names is the own namespace's decision.
    let web = Service { waypoint: bound_to("infra/wp"), ..service("web", "10.96.0.1", &[&pod()]) };
    let world = Fixture::default()
        .workload(pod())
        .service(web)
        .waypoint(waypoint("infra/wp"))
        .policy(only("infra/wp"))
        .build();
    assert!(attempt("curl", Some(WEB), "GET").passes(&world));
    assert!(!attempt("curl", None, "GET").passes(&world));
}

#[test]
fn strangers_choose_neither_the_worker_nor_the_protocol() {
    let gate = |fixture: Fixture, host: Option<&str>| {
        let world = fixture.build();
        let workload = world.workload(&pod().uid).unwrap();
        Gate::new(&world, workload, 8080, &addressed(&world, workload, 8080, host, None))
    };
    let mut bytes = backdoor(bound_to("evil/wp"));
    bytes.ports[0].protocol = AppProtocol::Tcp;
    let more = || get_only("evil/p", PolicyTarget::Service("backdoor".into()));
    for host in [None, Some(WEB), Some(BACKDOOR)] {
        let gate = gate(guarded().service(bytes.clone()).policy(more()), host);
        assert_eq!((gate.worker().as_str(), gate.needs_http()), ("shop", true), "{host:?}");
    }
    // Without a service of its own the port is looked at, whatever a stranger calls it.
    let alone = || Fixture::default().workload(pod()).waypoint(waypoint("evil/wp"));
    let gate = gate(alone().service(bytes).policy(more()), Some(BACKDOOR));
    assert_eq!((gate.worker().as_str(), gate.needs_http()), ("shop", true));
}

#[test]
fn a_verified_route_of_a_stranger_stands_in_for_nothing() {
    let world = guarded().service(backdoor(bound_to("evil/wp"))).build();
    let workload = world.workload(&pod().uid).unwrap();
    let service = world.service(&key("evil/backdoor")).unwrap().clone();
    let routed = Addressed::Route { service, ports: [80].into(), verified: true };
    let gate = Gate::new(&world, workload, 8080, &routed);
    let (client, headers) = (identity("evil/x"), HeaderMap::new());
    let connection = connection(&client);
    let delete = Request { method: &Method::DELETE, path: "/", host: "web", headers: &headers };
    assert!(gate.decide(&connection, Some(&delete)).is_err());
    assert!(gate.waypoint().is_none());
}

fn request<'a>(method: &'a Method, headers: &'a HeaderMap) -> Request<'a> {
    Request { method, path: "/", host: "web", headers }
}

fn connection(client: &crate::base::Identity) -> Connection<'_> {
    Connection {
        client: Some(client),
        source: "10.0.9.9".parse().unwrap(),
        destination: "10.0.0.1:8080".parse().unwrap(),
        server_name: None,
    }
}

/// What a service's own routes change is judged as it was sent by that service's policies, and as it arrives by all others.
#[test]
fn each_sees_the_request_that_is_its_business() {
    let get = || get_only("evil/p", PolicyTarget::Service("backdoor".into()));
    let world = guarded().service(backdoor(bound_to("evil/wp"))).policy(get()).build();
    let workload = world.workload(&pod().uid).unwrap();
    let (client, headers) = (identity("evil/x"), HeaderMap::new());
    let passes = |name: &str, sent, arrived| {
        let service = world.service(&key(name)).unwrap().clone();
        let addressed = Addressed::Service(Served { service, service_port: 80 });
        let (sent, arrived) = (request(sent, &headers), request(arrived, &headers));
        let views = Views { sent: &sent, ..Views::same(&arrived) };
        let gate = Gate::new(&world, workload, 8080, &addressed);
        gate.decide_views(&connection(&client), Some(views)).is_ok()
    };
    for (name, sent, arrived, expected) in [
        ("web", &Method::GET, &Method::DELETE, true),
        ("web", &Method::DELETE, &Method::GET, false),
        ("evil/backdoor", &Method::GET, &Method::GET, true),
        ("evil/backdoor", &Method::GET, &Method::DELETE, false),
        ("evil/backdoor", &Method::DELETE, &Method::GET, false),
    ] {
        assert_eq!(passes(name, sent, arrived), expected, "{name} {sent} {arrived}");
    }
}

/// A host that several entries have means the one that the client sees.
#[test]
fn a_name_means_what_the_client_sees() {
    let entry = |namespace: &str| Service {
        entry: Some("e".into()),
        hostname: "api.example".into(),
        visibility: Visibility::Namespaces(vec![namespace.into()]),
        waypoint: bound_to(if namespace == "shop" { "wp" } else { "evil/gone" }),
        ..service(&format!("{namespace}/e/api.example"), "240.240.0.1", &[&pod()])
    };
    // The stranger's is older, and would close the other.
    let world = guarded().service(entry("evil")).service(entry("shop")).build();
    let workload = world.workload(&pod().uid).unwrap();
    let of = |client: &str| {
        let client = identity(client);
        let addressed = addressed(&world, workload, 8080, Some("api.example"), Some(&client));
        addressed.service().map(|service| service.key.namespace.to_string())
    };
    assert_eq!(of("curl").as_deref(), Some("shop"));
    assert_eq!(of("evil/x").as_deref(), Some("evil"));
    assert_eq!(of("other/x"), None);
    assert!(attempt("curl", Some("api.example"), "DELETE").passes(&world), "no policy is on it");
    assert!(!attempt("evil/x", Some("api.example"), "DELETE").passes(&world));
}

/// Where nobody judges at the other end, the client's half does by the same rule.
#[test]
fn the_clients_half_judges_for_whom_nobody_speaks() {
    let outside = |name: &str, waypoint| {
        let mut entry = service(name, "240.240.0.1", &[&pod()]);
        entry.endpoints[0].workload = None;
        entry.endpoints[0].addresses = vec!["192.0.2.1".parse().unwrap()];
        Service { waypoint, entry: Some("e".into()), ..entry }
    };
    let uncaptured = Workload { enrolled: false, ..pod() };
    let web = Service { waypoint: bound_to("wp"), ..service("web", "10.96.0.1", &[&uncaptured]) };
    let world = Fixture::default()
        .workload(uncaptured)
        .service(web)
        .service(outside("api", bound_to("wp")))
        .service(backdoor(Binding::None))
        .service(outside("evil/api", Binding::None))
        .waypoint(waypoint("wp"))
        .policy(get_only("p", PolicyTarget::Service("web".into())))
        .policy(get_only("q", PolicyTarget::ServiceEntry("e".into())))
        .build();
    let workload = world.workload(&pod().uid).unwrap();
    let (client, headers) = (identity("evil/x"), HeaderMap::new());
    let (producer, consumer) = (key("r"), key("evil/r"));
    for (addressed, route, backend, known, sent, arrives, expected) in [
        ("web", None, "web", true, "GET", "GET", true),
        ("web", None, "web", true, "DELETE", "DELETE", false),
        ("evil/backdoor", None, "evil/backdoor", true, "DELETE", "DELETE", false),
        ("evil/backdoor", None, "evil/backdoor", true, "GET", "GET", true),
        ("web", Some(&producer), "web", true, "GET", "DELETE", true),
        ("web", Some(&consumer), "web", true, "GET", "DELETE", false),
        ("api", Some(&producer), "api", false, "GET", "DELETE", true),
        ("api", Some(&consumer), "api", false, "GET", "DELETE", false),
        ("evil/backdoor", Some(&consumer), "api", false, "GET", "DELETE", false),
        ("evil/backdoor", Some(&consumer), "api", false, "GET", "GET", true),
        ("evil/api", None, "evil/api", false, "DELETE", "DELETE", true),
    ] {
        let find = |name: &str| world.service(&key(name)).unwrap();
        let (service, of_backend) = (find(addressed), find(backend));
        let workload = known.then_some(&**workload);
        let destination = if known { "10.0.0.1:8080" } else { "192.0.2.1:80" }.parse().unwrap();
        let way = Way {
            addressed: service,
            port: 80,
            route,
            delegate: None,
            backend: (of_backend, 80),
            workload,
            destination,
        };
        let methods = [sent, arrives].map(|it| it.parse::<Method>().unwrap());
        let [sent, arrives] = [&methods[0], &methods[1]].map(|it| request(it, &headers));
        let own = speaks_for(&service.key, route, &service.key.namespace);
        let views = Views { sent: if own { &sent } else { &arrives }, ..Views::same(&arrives) };
        let gate = Gate::for_uncaptured(&world, &way);
        let passes = gate.decide_views(&connection(&client), Some(views)).is_ok();
        assert_eq!(passes, expected, "{addressed} {route:?} {backend} {sent:?} {arrives:?}");
    }
}

/// To an address that nobody knows.
fn leaving<'a>(
    service: &'a Service,
    route: Option<&'a ObjectKey>,
    destination: std::net::SocketAddr,
) -> Way<'a> {
    let backend = (service, 80);
    let (port, delegate) = (80, None);
    Way { addressed: service, port, route, delegate, backend, workload: None, destination }
}

/// An entry of one's own is no way around one that everybody has.
#[test]
fn a_common_entry_guards_its_addresses_whoever_leads_there() {
    let machines = Service {
        entry: Some("e".into()),
        vips: Vec::new(),
        networks: vec!["192.0.2.0/24".parse().unwrap()],
        waypoint: bound_to("istio-system/wp"),
        ..service("istio-system/e/machines", "192.0.2.0", &[])
    };
    let mine = Service {
        entry: Some("e".into()),
        visibility: Visibility::Namespaces(vec!["evil".into()]),
        ..service("evil/e/mine", "192.0.2.1", &[])
    };
    let world = Fixture::default()
        .service(machines)
        .service(mine)
        .waypoint(waypoint("istio-system/wp"))
        .policy(get_only("istio-system/p", PolicyTarget::ServiceEntry("e".into())))
        .build();
    let mine = world.service(&key("evil/e/mine"));
    let (client, headers) = (identity("evil/x"), HeaderMap::new());
    let route = key("evil/r");
    for (to, route, method, expected) in [
        ("192.0.2.1:80", None, Method::DELETE, false),
        ("192.0.2.1:80", Some(&route), Method::DELETE, false),
        ("192.0.2.1:80", None, Method::GET, true),
        ("192.0.3.1:80", None, Method::DELETE, true),
    ] {
        let service = mine.unwrap();
        let destination = to.parse().unwrap();
        let way = leaving(service, route, destination);
        let arrived = Request { method: &method, path: "/", host: "x", headers: &headers };
        let sent = Request { method: &Method::GET, ..arrived };
        let views = Views { sent: &sent, ..Views::same(&arrived) };
        let gate = Gate::for_uncaptured(&world, &way);
        let passes = gate.decide_views(&connection(&client), Some(views)).is_ok();
        assert_eq!(passes, expected, "{to} {method}");
    }
}

/// From the node a virtual address leads past the mesh: as an endpoint it is no way around what guards its Service.
#[test]
fn a_virtual_address_is_nobodys_endpoint() {
    let world = guarded().service(backdoor(Binding::None)).build();
    let service = world.service(&key("evil/backdoor")).unwrap();
    let (client, headers) = (identity("evil/x"), HeaderMap::new());
    for (to, expected) in [
        ("10.96.0.1:80", false),
        ("[::ffff:10.96.0.1]:80", false),
        ("10.96.0.1:443", false),
        ("192.0.2.1:80", true),
    ] {
        let destination = to.parse().unwrap();
        let way = leaving(service, None, destination);
        let gate = Gate::for_uncaptured(&world, &way);
        let get = request(&Method::GET, &headers);
        let passes = gate.decide(&connection(&client), Some(&get)).is_ok();
        assert_eq!((passes, gate.is_guarded()), (expected, !expected), "{to}");
    }
}

/// A route counts for the clients whom it leads: those of its own namespace, and everybody where it is the producer's.
#[test]
fn a_route_leads_only_the_clients_that_it_holds_for() {
    let front = workload("front", "10.0.0.2");
    let own = Service { waypoint: bound_to("wp"), ..service("front", "10.96.0.2", &[&front]) };
    let to_web = |name: &str| {
        fixture::route(name, "front", vec![fixture::rule(vec![fixture::backend("web", 1)])])
    };
    for (route, client, expected) in [
        ("evil/r", Some("evil/x"), true),
        ("evil/r", Some("curl"), false),
        ("evil/r", Some("other/x"), false),
        ("evil/r", None, false),
        ("r", Some("curl"), true),
        ("r", Some("evil/x"), true),
    ] {
        let world =
            guarded().workload(front.clone()).service(own.clone()).route(to_web(route)).build();
        let workload = world.workload(&pod().uid).unwrap();
        let client_identity = client.map(identity);
        let host = Some("front.shop.svc.cluster.local");
        let found = addressed(&world, workload, 8080, host, client_identity.as_ref());
        assert_eq!(matches!(found, Addressed::Route { .. }), expected, "{route} {client:?}");
    }
}
