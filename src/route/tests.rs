use std::sync::atomic::AtomicU64;

use http::{HeaderName, HeaderValue};

use super::*;
use crate::base::Reason;
use crate::model::*;
use crate::route::{Decision, decide};
use crate::world::fixture::{Fixture, bound_to, key, service, waypoint, workload};

fn rule(name: &str, matches: Vec<HttpMatch>, backend: &str) -> HttpRule {
    let target = BackendRef::Service { service: key(backend), port: 80 };
    HttpRule {
        name: name.into(),
        matches: if matches.is_empty() { vec![HttpMatch::default()] } else { matches },
        filters: Vec::new(),
        backends: vec![Backend { weight: 1, target }],
        turn: Arc::new(AtomicU64::new(0)),
    }
}

fn route(name: &str, parent: &str, port: Option<u16>, rules: Vec<HttpRule>) -> HttpRoute {
    let parents = vec![RouteParent { service: key(parent), port }];
    HttpRoute { key: key(name), created: 0, parents, rules }
}

fn prefix(path: &str) -> HttpMatch {
    HttpMatch { path: PathMatch::Prefix(path.into()), ..HttpMatch::default() }
}

fn exact(path: &str) -> HttpMatch {
    HttpMatch { path: PathMatch::Exact(path.into()), ..HttpMatch::default() }
}

fn with_header(mut matched: HttpMatch, name: &'static str, value: &str) -> HttpMatch {
    let value = TextMatch::Exact(value.into());
    matched.headers.push(HeaderMatch { name: HeaderName::from_static(name), value });
    matched
}

fn chosen(world: &World, client: &str, path: &str, headers: &[(&'static str, &str)]) -> String {
    let headers: HeaderMap = (headers.iter())
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect();
    let (path, query) =
        path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let head = Head { method: &Method::GET, path, query, headers: &headers };
    let service = world.service(&key("echo")).unwrap();
    match select(world, service, 80, client, &head) {
        Selection::NoRoutes => "no routes".into(),
        Selection::NoMatch => "no match".into(),
        Selection::Rule { route, rule } => route.rules[rule].name.to_string(),
    }
}

fn echo() -> Fixture {
    let pod = workload("echo-1", "10.0.0.1");
    Fixture::default().service(service("echo", "10.96.0.1", &[&pod])).workload(pod)
}

#[test]
fn precedence_is_the_gateway_apis() {
    let world = echo()
        .route(route(
            "r",
            "echo",
            None,
            vec![
                rule("v1", vec![prefix("/"), with_header(prefix("/"), "version", "one")], "echo"),
                rule("v2", vec![prefix("/v2"), with_header(prefix("/"), "version", "two")], "echo"),
                rule("exact", vec![exact("/v2/exact")], "echo"),
                rule(
                    "method",
                    vec![HttpMatch { method: Some(Method::GET), ..prefix("/m") }],
                    "echo",
                ),
                rule("headers", vec![with_header(prefix("/m"), "a", "1")], "echo"),
            ],
        ))
        .build();
    for (path, headers, expected) in [
        ("/", &[][..], "v1"),
        ("/example", &[], "v1"),
        ("/", &[("version", "one")], "v1"),
        ("/", &[("version", "two")], "v2"),
        ("/v2", &[], "v2"),
        ("/v2/", &[], "v2"),
        ("/v2example", &[], "v1"),
        ("/foo/v2/example", &[], "v1"),
        ("/v2/exact", &[], "exact"),
        ("/m", &[("a", "1")], "method"),
    ] {
        assert_eq!(chosen(&world, "shop", path, headers), expected, "{path} {headers:?}");
    }
}

#[test]
fn ties_go_to_the_older_then_to_the_name_then_to_the_first_rule() {
    let at = |created, route: HttpRoute| HttpRoute { created, ..route };
    let world = echo()
        .route(at(20, route("b", "echo", None, vec![rule("younger", vec![], "echo")])))
        .route(at(10, route("z", "echo", None, vec![rule("older", vec![], "echo")])))
        .build();
    assert_eq!(chosen(&world, "shop", "/", &[]), "older");
    let world = echo()
        .route(route("b", "echo", None, vec![rule("b", vec![], "echo")]))
        .route(route(
            "a",
            "echo",
            None,
            vec![rule("a first", vec![], "echo"), rule("a second", vec![], "echo")],
        ))
        .build();
    assert_eq!(chosen(&world, "shop", "/", &[]), "a first");
}

#[test]
fn ports_and_absent_matches() {
    let only = route("r", "echo", Some(81), vec![rule("r", vec![], "echo")]);
    assert_eq!(chosen(&echo().route(only).build(), "shop", "/", &[]), "no routes");
    let some = route("r", "echo", Some(80), vec![rule("r", vec![exact("/x")], "echo")]);
    assert_eq!(chosen(&echo().route(some).build(), "shop", "/", &[]), "no match");
}

#[test]
fn consumer_routes_replace_the_producers_for_their_namespace() {
    let mut consumer = route("c", "echo", None, vec![rule("consumer", vec![exact("/c")], "echo")]);
    consumer.key = key("client/c");
    let world = echo()
        .route(route("p", "echo", None, vec![rule("producer", vec![], "echo")]))
        .route(consumer)
        .build();
    assert_eq!(chosen(&world, "client", "/c", &[]), "consumer");
    assert_eq!(chosen(&world, "client", "/", &[]), "no match");
    assert_eq!(chosen(&world, "shop", "/c", &[]), "producer");
}

#[test]
fn a_selection_leads_to_the_backends_of_its_rule() {
    let (one, two) = (workload("one", "10.0.0.1"), workload("two", "10.0.0.2"));
    let world = Fixture::default()
        .service(service("echo", "10.96.0.1", &[&one]))
        .service(service("other", "10.96.0.2", &[&two]))
        .workload(one.clone())
        .workload(two.clone())
        .route(route("r", "echo", None, vec![rule("r", vec![], "other")]))
        .build();
    let echo = world.service(&key("echo")).unwrap();
    let route = world.routes_of(&key("echo"))[0].clone();
    let by_rule = Selection::Rule { route, rule: 0 };
    let leads = |selection, workload, port| leads_to(&world, echo, 80, selection, workload, port);
    assert!(leads(&by_rule, &two, 8080));
    assert!(!leads(&by_rule, &two, 80));
    assert!(!leads(&by_rule, &one, 8080));
    assert!(leads(&Selection::NoRoutes, &one, 8080));
    assert!(!leads(&Selection::NoMatch, &one, 8080));
}

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
    ] {
        assert_eq!(outcome(&with(binding.clone()), to), expected, "{binding:?} {to}");
    }
}
