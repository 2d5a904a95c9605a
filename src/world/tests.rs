use std::net::IpAddr;

use proptest::prelude::*;

use super::fixture::{Fixture, identity, key, policy, service, store, waypoint, workload};
use super::*;
use crate::model::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn names<'a>(policies: impl IntoIterator<Item = &'a Arc<AuthorizationPolicy>>) -> Vec<String> {
    policies.into_iter().map(|policy| policy.key.to_string()).collect()
}

fn deny(name: &str, scope: Scope) -> AuthorizationPolicy {
    policy(name, Action::Deny, scope, Vec::new())
}

fn targets(target: PolicyTarget) -> Scope {
    Scope::Targets(vec![target])
}

/// A rule that looks at HTTP.
fn get_only() -> Rule {
    let methods = Values { any: vec![StringMatch::Exact("GET".into())], none: Vec::new() };
    Rule { to: vec![Operation { methods, ..Operation::default() }], ..Rule::default() }
}

fn of_web(world: &World) -> &crate::policy::PolicySet {
    world.workload_policies("Kubernetes//Pod/shop/web").unwrap()
}

#[test]
fn of_two_workloads_with_one_address_the_ready_one_is_found() {
    let named =
        |name: &str, ready, enrolled| Workload { ready, enrolled, ..workload(name, "10.0.0.1") };
    for (one, other, expected) in [
        (named("finished", false, true), named("successor", true, true), "successor"),
        (named("finished", false, true), named("outsider", true, false), "outsider"),
        (named("outside", true, false), named("inside", true, true), "inside"),
        (named("outside", false, false), named("inside", false, true), "inside"),
    ] {
        for pair in [[one.clone(), other.clone()], [other.clone(), one.clone()]] {
            let world = pair.into_iter().fold(Fixture::default(), Fixture::workload).build();
            let found = world.workload_at(address("10.0.0.1")).unwrap();
            assert_eq!(found.key.name, expected);
            assert!(world.workload(&one.uid).is_some() && world.workload(&other.uid).is_some());
        }
    }
    let equals = ["first", "second"].map(|name| named(name, true, true));
    let world = equals.into_iter().fold(Fixture::default(), Fixture::workload).build();
    assert_eq!(world.workload_at(address("10.0.0.1")).unwrap().key.name, "first");
}

#[test]
fn host_network_workloads_are_not_found_by_their_nodes_address() {
    let agent = Workload { host_network: true, ..workload("agent", "192.0.2.1") };
    let world = Fixture::default().workload(agent.clone()).build();
    assert!(world.workload_at(address("192.0.2.1")).is_none());
    assert!(world.workload(&agent.uid).is_some());
}

#[test]
fn both_families_of_a_workload_and_a_service_are_found() {
    let mut pod = workload("web", "10.0.0.1");
    pod.addresses.push(address("fd00::1"));
    let mut front = service("web", "10.96.0.1", &[&pod]);
    front.vips.push(address("fd00:96::1"));
    let world = Fixture::default().workload(pod).service(front).build();
    for (pod, vip) in [("10.0.0.1", "10.96.0.1"), ("fd00::1", "fd00:96::1")] {
        assert_eq!(world.workload_at(address(pod)).unwrap().key, key("web"));
        assert_eq!(world.service_at(address(vip)).unwrap().key, key("web"));
        assert!(
            world.workload_at(address(vip)).is_none() && world.service_at(address(pod)).is_none()
        );
    }
    assert_eq!(world.service_named("web.shop.svc.cluster.local", None).unwrap().key, key("web"));
    assert!(world.service_named("web.shop", None).is_none());
    assert!(world.service_in(&"shop".into(), &"web".into()).is_some());
}

#[test]
fn a_workload_knows_each_service_and_port_that_leads_to_it_once() {
    let (web, other) = (workload("web", "10.0.0.1"), workload("other", "10.0.0.2"));
    let mut many = service("many", "10.96.0.1", &[&web, &other]);
    many.ports.push(ServicePort { name: "admin".into(), port: 81, protocol: AppProtocol::Tcp });
    // Named target ports: the same service port leads elsewhere on another workload.
    many.endpoints[0].ports.push(PortMapping { port: 81, target: 9090 });
    many.endpoints[1].ports.push(PortMapping { port: 81, target: 8080 });
    // A second address family comes as a second endpoint.
    let mut second = many.endpoints[0].clone();
    second.addresses = vec![address("fd00::1")];
    many.endpoints.push(second);
    let plain = service("plain", "10.96.0.2", &[&web]);
    let world = Fixture::default()
        .service(many)
        .service(plain)
        .workload(web.clone())
        .workload(other.clone())
        .build();
    let served = |workload, port| -> Vec<(String, u16)> {
        let served = world.served_by("shop", workload, port);
        served.map(|one| (one.service.key.name.to_string(), one.service_port)).collect()
    };
    let pair = |name: &str, port| (name.to_string(), port);
    assert_eq!(served(&web, 8080), [pair("many", 80), pair("plain", 80)]);
    assert_eq!(served(&web, 9090), [pair("many", 81)]);
    assert_eq!(served(&other, 8080), [pair("many", 80), pair("many", 81)]);
    assert_eq!(served(&other, 9090), []);
    assert_eq!(served(&workload("stranger", "10.0.0.3"), 8080), []);
}

#[test]
fn a_workload_has_the_policies_of_mesh_namespace_and_selector() {
    let selected = Workload { policies: vec![key("selects")], ..workload("web", "10.0.0.1") };
    let world = Fixture::default()
        .workload(selected)
        .workload(workload("bare", "10.0.0.2"))
        .workload(workload("elsewhere/far", "10.0.0.3"))
        .policy(deny("istio-system/mesh", Scope::Mesh))
        .policy(deny("namespace", Scope::Namespace))
        .policy(deny("elsewhere/namespace", Scope::Namespace))
        .policy(deny("selects", Scope::Workloads))
        .policy(deny("targets", targets(PolicyTarget::Service("web".into()))))
        .build();
    let of = |name: &str| {
        names(&*world.workload_policies(&format!("Kubernetes//Pod/{name}")).unwrap().deny)
    };
    assert_eq!(of("shop/web"), ["istio-system/mesh", "shop/namespace", "shop/selects"]);
    assert_eq!(of("shop/bare"), ["istio-system/mesh", "shop/namespace"]);
    assert_eq!(of("elsewhere/far"), ["istio-system/mesh", "elsewhere/namespace"]);
    assert!(world.workload_policies("unknown").is_none());
}

#[test]
fn a_policy_that_is_listed_and_missing_refuses() {
    let listed = Workload { policies: vec![key("gone")], ..workload("web", "10.0.0.1") };
    let world = Fixture::default().workload(listed).build();
    let broken = &of_web(&world).broken;
    assert_eq!(names(broken), ["shop/gone"]);
    assert!(broken[0].broken.as_ref().unwrap().contains("shop/web"));
}

#[test]
fn targets_are_found_from_the_right_namespace_only() {
    let pod = workload("web", "10.0.0.1");
    let class = || targets(PolicyTarget::GatewayClass("istio-waypoint".into()));
    let gateway = || targets(PolicyTarget::Gateway("wp".into()));
    let on_service = || targets(PolicyTarget::Service("web".into()));
    let world = Fixture::default()
        .service(service("web", "10.96.0.1", &[&pod]))
        .service(service("other", "10.96.0.2", &[&pod]))
        .workload(pod)
        .waypoint(waypoint("wp"))
        .policy(deny("service", on_service()))
        .policy(deny("elsewhere/service", on_service()))
        .policy(deny("gateway", gateway()))
        .policy(deny("elsewhere/gateway", gateway()))
        .policy(deny("class", class()))
        .policy(deny("istio-system/class", class()))
        .build();
    assert_eq!(names(&*world.service_policies(&key("web")).unwrap().deny), ["shop/service"]);
    assert!(world.service_policies(&key("other")).unwrap().is_empty());
    let of_waypoint = &world.waypoint_policies(&key("wp")).unwrap().deny;
    assert_eq!(names(&**of_waypoint), ["istio-system/class", "shop/gateway"]);
    assert!(of_web(&world).is_empty(), "targets never reach the workload's own set");
}

#[test]
fn policies_are_sorted_by_action_and_all_that_look_at_http_have_it_parsed() {
    let with = |action, dry_run, broken: Option<&str>| {
        let one = AuthorizationPolicy {
            dry_run,
            broken: broken.map(Into::into),
            ..policy("p", action, Scope::Namespace, vec![get_only()])
        };
        Fixture::default().workload(workload("web", "10.0.0.1")).policy(one).build()
    };
    for (world, needs_http, place) in [
        (with(Action::Deny, false, None), true, [1, 0, 0, 0]),
        (with(Action::Allow, false, None), true, [0, 1, 0, 0]),
        (with(Action::Audit, false, None), true, [0, 0, 1, 0]),
        (with(Action::Allow, true, None), true, [0, 1, 0, 0]),
        (with(Action::Allow, false, Some("bad CIDR")), false, [0, 0, 0, 1]),
    ] {
        let set = of_web(&world);
        let places = [set.deny.len(), set.allow.len(), set.audit.len(), set.broken.len()];
        assert_eq!((places, set.needs_http), (place, needs_http));
    }
}

#[test]
fn loads_survive_as_long_as_their_endpoint() {
    let pods = [workload("one", "10.0.0.1"), workload("two", "10.0.0.2")];
    let mesh = |pods: &[Workload]| {
        let front = service("web", "10.96.0.1", &pods.iter().collect::<Vec<_>>());
        let again = service("again", "10.96.0.2", &pods.iter().collect::<Vec<_>>());
        let fixture = Fixture::default().service(front).service(again);
        pods.iter().cloned().fold(fixture, Fixture::workload).mesh
    };
    let store = store();
    let load = |world: &World, pod: &Workload| {
        world.load_of(Some(&pod.uid), pod.addresses[0]).map(|load| load.in_flight())
    };
    let world = store.publish(mesh(&pods));
    let held = world.load_of(Some(&pods[0].uid), pods[0].addresses[0]).unwrap().begin();
    assert_eq!((load(&world, &pods[0]), load(&world, &pods[1])), (Some(1), Some(0)));
    let newer = store.publish(mesh(&pods));
    assert_eq!(load(&newer, &pods[0]), Some(1), "the same counter in both worlds");
    drop(held);
    assert_eq!((load(&world, &pods[0]), load(&newer, &pods[0])), (Some(0), Some(0)));
    let smaller = store.publish(mesh(&pods[..1]));
    assert_eq!((load(&smaller, &pods[0]), load(&smaller, &pods[1])), (Some(0), None));
}

#[test]
fn generations_grow_and_subscribers_hear_of_each() {
    let store = store();
    assert_eq!(store.load().generation, 0);
    let mut changes = store.subscribe();
    assert!(!changes.has_changed().unwrap());
    let kept = store.snapshot();
    let world = store.publish(Fixture::default().workload(workload("web", "10.0.0.1")).mesh);
    assert_eq!(world.generation, 1);
    assert!(changes.has_changed().unwrap());
    assert_eq!(*changes.borrow_and_update(), 1);
    assert_eq!(store.publish(Mesh::default()).generation, 2);
    assert_eq!(*changes.borrow_and_update(), 2);
    assert!(kept.mesh.workloads.is_empty(), "a world never changes");
    assert_eq!(world.mesh.workloads[0].identity, identity("web"));
}

#[test]
fn a_route_is_listed_once_per_service() {
    let parent = |name: &str, port| RouteParent { service: key(name), port };
    let route = HttpRoute {
        kind: RouteKind::Http,
        key: key("r"),
        created: 0,
        parents: vec![parent("web", Some(80)), parent("other", None), parent("web", Some(81))],
        rules: Vec::new(),
        holds: None,
    };
    let world = Fixture::default().route(route).build();
    assert_eq!(world.routes_of(&key("web")).len(), 1);
    assert_eq!(world.routes_of(&key("other")).len(), 1);
    assert!(world.routes_of(&key("none")).is_empty());
}

#[test]
fn a_workload_is_judged_anew_only_after_changes_that_concern_it() {
    let web = || Workload { policies: vec![key("p")], ..workload("web", "10.0.0.1") };
    let other = || workload("other/other", "10.0.0.2");
    let bound = |pods: &[&Workload]| Service {
        waypoint: super::fixture::bound_to("wp"),
        ..service("web", "10.96.0.1", pods)
    };
    let fixture = |web: Workload, policies: Vec<AuthorizationPolicy>, wp: Waypoint| {
        let front = bound(&[&web]);
        let base = Fixture::default().workload(web).workload(other()).service(front).waypoint(wp);
        policies.into_iter().fold(base, Fixture::policy).mesh
    };
    let selecting = || policy("p", Action::Allow, Scope::Workloads, vec![Rule::default()]);
    let store = store();
    let uids = [web().uid, other().uid];
    let publish = |mesh: Mesh| {
        let mut watches = uids.clone().map(|uid| store.judgement_changes(&uid));
        store.publish(mesh);
        [0, 1].map(|at| {
            let told = watches[at].has_changed().unwrap();
            watches[at].mark_unchanged();
            told
        })
    };
    let base = |policies| fixture(web(), policies, waypoint("wp"));
    assert_eq!(publish(base(vec![selecting()])), [true, true]);
    assert_eq!(publish(base(vec![selecting()])), [false, false], "the same, translated again");
    let changed = policy("p", Action::Allow, Scope::Workloads, vec![get_only()]);
    assert_eq!(publish(base(vec![changed])), [true, false], "a policy that selects it");
    assert_eq!(publish(base(vec![selecting()])), [true, false]);
    let wide = || deny("istio-system/p", Scope::Mesh);
    assert_eq!(publish(base(vec![selecting(), wide()])), [true, true], "a policy of the mesh");
    assert_eq!(publish(base(vec![selecting()])), [true, true]);
    let on_gateway = || deny("gateway", targets(PolicyTarget::Gateway("wp".into())));
    assert_eq!(publish(base(vec![selecting(), on_gateway()])), [true, false], "the waypoint's");
    assert_eq!(publish(base(vec![selecting()])), [true, false]);
    let on_service = deny("service", targets(PolicyTarget::Service("web".into())));
    assert_eq!(publish(base(vec![selecting(), on_service])), [true, false], "the service's");
    assert_eq!(publish(base(vec![selecting()])), [true, false]);
    let strict = PeerAuthentication { mode: Mode::Strict, ..PeerAuthentication::default() };
    let strict = Workload { peer_authentication: strict, ..web() };
    assert_eq!(publish(fixture(strict, vec![selecting()], waypoint("wp"))), [true, false]);
    let unselected = Workload { policies: Vec::new(), ..web() };
    let with_policy = |web| fixture(web, vec![selecting()], waypoint("wp"));
    assert_eq!(publish(with_policy(unselected)), [true, false], "a selector or a label");
    let class = Waypoint { class: "other".into(), ..waypoint("wp") };
    assert_eq!(publish(fixture(web(), vec![selecting()], class)), [true, false]);
    let gone = Fixture::default().workload(other()).mesh;
    let mut watch = store.judgement_changes(&web().uid);
    store.publish(gone);
    assert!(watch.has_changed().unwrap(), "gone");
    watch.mark_unchanged();
}

/// Two thousand services of one tenant lead to another's workload, and one of them flaps: what that costs follows from the one.
#[test]
fn one_flapping_endpoint_costs_what_it_is_beside_two_thousand() {
    const SERVICES: usize = 2_000;
    let (web, other) = (workload("web", "10.0.0.1"), workload("evil/other", "10.0.0.2"));
    let leads = |at: usize, pods: &[&Workload]| {
        let vip = format!("10.97.{}.{}", at / 250, at % 250);
        Arc::new(service(&format!("evil/leads-{at:04}"), &vip, pods))
    };
    let own = service("web", "10.96.0.1", &[&web]);
    let base = Fixture::default().workload(web.clone()).workload(other.clone());
    let mut mesh = base.mesh;
    mesh.services = (0..SERVICES).map(|at| leads(at, &[&web, &other])).collect();
    mesh.services.push(Arc::new(own));
    let store = store();
    let _watch = store.judgement_changes(&web.uid);
    store.publish(mesh.clone());
    crate::base::work::take();
    for pods in [&[&other][..], &[&web, &other]] {
        mesh.services[1_000] = leads(1_000, pods);
        store.publish(mesh.clone());
        let done = crate::base::work::take();
        let count = |what| done.get(what).copied().unwrap_or_default();
        assert_eq!(count("ways changed"), 1, "{done:?}");
        assert_eq!(count("workloads touched"), 1, "{done:?}");
        assert_eq!((count("claims replaced"), count("claims made anew")), (1, 0), "{done:?}");
    }
    // A change of the workload's own copies no list of somebody else's.
    let spare = service("web", "10.96.0.1", &[]);
    mesh.services[SERVICES] = Arc::new(spare);
    store.publish(mesh);
    let done = crate::base::work::take();
    assert!(done.get("ways copied").is_none_or(|count| *count <= 1), "{done:?}");
}

/// A route leads to the workload from a service that has no endpoint there: what that service's policies say counts as well.
#[test]
fn what_guards_a_service_whose_route_leads_there_is_told() {
    let web = workload("web", "10.0.0.1");
    let shop =
        Service { waypoint: super::fixture::bound_to("wp"), ..service("shop", "10.96.0.2", &[]) };
    let rules = vec![super::fixture::rule(vec![super::fixture::backend("web", 1)])];
    let base = Fixture::default().workload(web.clone()).waypoint(waypoint("wp"));
    let base = base.service(service("web", "10.96.0.1", &[&web])).service(shop);
    let base = base.route(super::fixture::route("r", "shop", rules)).mesh;
    let store = store();
    store.publish(base.clone());
    let mut watch = store.judgement_changes(&web.uid);
    let on_service = Arc::new(deny("p", targets(PolicyTarget::Service("shop".into()))));
    store.publish(Mesh { policies: vec![on_service], ..base });
    assert!(watch.has_changed().unwrap());
    watch.mark_unchanged();
}

/// Open connections are judged by the policies of a waypoint that is tried, too.
#[test]
fn what_the_policies_of_a_second_waypoint_say_is_told() {
    let web = workload("web", "10.0.0.1");
    let with = |weight: Option<u8>, policies: Vec<Arc<AuthorizationPolicy>>| {
        let canary = weight.map(|weight| Canary { waypoint: key("next"), weight });
        let waypoint_of = super::fixture::bound_to("wp");
        let front =
            Service { waypoint: waypoint_of, canary, ..service("web", "10.96.0.1", &[&web]) };
        let base = Fixture::default().workload(web.clone()).service(front);
        Mesh { policies, ..base.waypoint(waypoint("wp")).waypoint(waypoint("next")).mesh }
    };
    let store = store();
    let publish = |mesh: Mesh| {
        let mut watch = store.judgement_changes(&web.uid);
        store.publish(mesh);
        let told = watch.has_changed().unwrap();
        watch.mark_unchanged();
        told
    };
    let on_canary = || Arc::new(deny("p", targets(PolicyTarget::Gateway("next".into()))));
    publish(with(Some(5), Vec::new()));
    assert!(!publish(with(Some(5), Vec::new())));
    assert!(publish(with(Some(5), vec![on_canary()])), "a policy of the canary");
    assert!(publish(with(Some(0), vec![on_canary()])), "it is not tried any more");
    assert!(publish(with(Some(5), vec![on_canary()])));
    assert!(publish(with(None, vec![on_canary()])), "there is none");
}

struct Universe {
    workloads: Vec<Arc<Workload>>,
    services: Vec<Arc<Service>>,
    policies: Vec<Arc<AuthorizationPolicy>>,
    waypoints: Vec<Arc<Waypoint>>,
}

/// Some of everything there may be, shared between the meshes that hold the same.
fn universe() -> Universe {
    let mut workloads = Vec::new();
    for (name, at) in [("a", 1), ("b", 1), ("c", 2), ("d/a", 2)] {
        for (ready, selected) in [(true, &[][..]), (false, &["p"][..]), (true, &["p", "gone"][..])]
        {
            let policies = selected.iter().map(|name| key(name)).collect();
            let pod = workload(name, &format!("10.0.0.{at}"));
            let node = if ready { "one" } else { "two" }.into();
            workloads.push(Arc::new(Workload { ready, policies, node, ..pod }));
        }
    }
    let mut services = Vec::new();
    for (at, name) in ["s", "t", "u"].into_iter().enumerate() {
        for pods in [&[][..], &[0, 3], &[3, 6], &[0, 6, 9]] {
            let pods: Vec<&Workload> = pods.iter().map(|at: &usize| &*workloads[*at]).collect();
            for entry in [None, Some("e".into())] {
                let vip = format!("10.96.0.{}", 1 + at % 2);
                services.push(Arc::new(Service { entry, ..service(name, &vip, &pods) }));
            }
        }
    }
    let mut policies = Vec::new();
    for action in [Action::Deny, Action::Allow] {
        for (name, scope) in [
            ("p", Scope::Workloads),
            ("n", Scope::Namespace),
            ("istio-system/m", Scope::Mesh),
            ("t", targets(PolicyTarget::Service("s".into()))),
            ("e", targets(PolicyTarget::ServiceEntry("e".into()))),
            ("w", targets(PolicyTarget::Gateway("wp".into()))),
        ] {
            policies.push(Arc::new(policy(name, action, scope, Vec::new())));
        }
    }
    let class = Waypoint { class: "other".into(), ..waypoint("wp") };
    let waypoints = vec![Arc::new(waypoint("wp")), Arc::new(class)];
    Universe { workloads, services, policies, waypoints }
}

/// Picks, one of each key, in the order of the keys.
fn picked<T>(all: &[Arc<T>], picks: &[usize], key: impl Fn(&T) -> &ObjectKey) -> Vec<Arc<T>> {
    let picks = picks.iter().map(|at| &all[at % all.len()]);
    let by_key: std::collections::BTreeMap<_, _> =
        picks.map(|it| (key(it).clone(), it.clone())).collect();
    by_key.into_values().collect()
}

/// All that a world answers, for whatever the universe may ask.
fn answers(world: &World) -> String {
    use std::fmt::Write;
    let Universe { workloads, services, .. } = universe();
    let mut said = String::new();
    let name = |workload: Option<&Arc<Workload>>| workload.map(|it| (it.key.clone(), it.ready));
    for workload in &workloads {
        let uid = &workload.uid;
        let served: Vec<_> = [80, 8080]
            .into_iter()
            .flat_map(|port| world.served_by("shop", workload, port))
            .collect();
        let load = world.load_of(Some(uid), workload.addresses[0]).is_some();
        writeln!(
            said,
            "{:?} {:?} {served:?} {load}",
            name(world.workload(uid)),
            world.workload_policies(uid)
        )
        .unwrap();
    }
    for at in ["10.0.0.1", "10.0.0.2", "10.96.0.1", "10.96.0.2"] {
        let (found, owner) =
            (world.workload_at(address(at)), world.owner_of(address(at), 80, "shop"));
        writeln!(said, "{at} {:?} {owner:?} {:?}", name(found), world.service_at(address(at)))
            .unwrap();
    }
    for service in &services {
        let (found, named) =
            (world.service(&service.key), world.service_named(&service.hostname, None));
        writeln!(said, "{found:?} {named:?} {:?}", world.service_policies(&service.key)).unwrap();
    }
    for node in ["one", "two"] {
        let mut there: Vec<_> = world.workloads_on(node).iter().map(|it| &it.key).collect();
        there.sort();
        writeln!(said, "{there:?}").unwrap();
    }
    writeln!(said, "{:?}", ["shop", "d"].map(|namespace| world.is_populated(namespace))).unwrap();
    let wp = key("wp");
    writeln!(said, "{:?} {:?}", world.waypoint(&wp), world.waypoint_policies(&wp)).unwrap();
    said
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A world that follows from another one answers as one that was built from scratch.
    #[test]
    fn following_changes_is_building_anew(
        steps in prop::collection::vec(prop::collection::vec(0usize..1000, 12), 1..8),
    ) {
        let Universe { workloads, services, policies, waypoints } = universe();
        let followed = store();
        for picks in steps {
            let mesh = Mesh {
                workloads: picked(&workloads, &picks[..5], |it| &it.key),
                services: picked(&services, &picks[5..8], |it| &it.key),
                policies: picked(&policies, &picks[8..11], |it| &it.key),
                waypoints: picked(&waypoints, &picks[11..], |it| &it.key),
                ..Mesh::default()
            };
            let world = followed.publish(mesh.clone());
            prop_assert_eq!(answers(&world), answers(&store().publish(mesh)));
        }
    }

}

proptest! {
    /// The index finds what a search through all services finds.
    #[test]
    fn the_longest_network_is_found(
        networks in prop::collection::vec((any::<u32>(), 0u8..=32), 1..12),
        probe in any::<u32>(),
    ) {
        use std::net::Ipv4Addr;
        // Few bits that vary, so that networks do contain one another and the probe.
        let address = |bits: u32| IpAddr::from(Ipv4Addr::from(bits & 0xc001_0003));
        let entry = |(at, (bits, length)): (usize, &(u32, u8))| Service {
            entry: Some("e".into()),
            vips: Vec::new(),
            networks: vec![ipnet::IpNet::new(address(*bits), *length).unwrap()],
            ..service(&at.to_string(), "192.0.2.1", &[])
        };
        let entries: Vec<Service> = networks.iter().enumerate().map(entry).collect();
        let world = entries.iter().cloned().fold(Fixture::default(), Fixture::service).build();
        let probe = address(probe);
        let mut best: Option<&Service> = None;
        for service in entries.iter().filter(|service| service.owns(probe)) {
            let longer = |best: &Service| service.networks[0].prefix_len() > best.networks[0].prefix_len();
            if best.is_none_or(longer) {
                best = Some(service);
            }
        }
        let found = match world.owner_of(probe, 80, "shop") {
            Some(crate::world::Owner::Service(service)) => Some(&service.key),
            _ => None,
        };
        prop_assert_eq!(found, best.map(|service| &service.key));
    }
}
