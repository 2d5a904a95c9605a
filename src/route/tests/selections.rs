//! Which rule holds for a request.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::base::Regex;

fn rule(name: &str, matches: Vec<HttpMatch>, to: &str) -> HttpRule {
    HttpRule {
        name: name.into(),
        matches: if matches.is_empty() { vec![HttpMatch::default()] } else { matches },
        ..fixture::rule(vec![backend(to, 1)])
    }
}

fn route(name: &str, parent: &str, port: Option<u16>, rules: Vec<HttpRule>) -> HttpRoute {
    let parents = vec![RouteParent { service: key(parent), port }];
    HttpRoute { parents, ..fixture::route(name, parent, rules) }
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
    let head =
        Head { method: &Method::GET, path, query, headers: &headers, client: Client::default() };
    let service = world.service(&key("echo")).unwrap();
    match select(world, service, 80, client, &head) {
        Selection::NoRoutes => "no routes".into(),
        Selection::NoMatch(_) => "no match".into(),
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
    let route = world.routes_of(&key("echo"))[0].clone();
    let leads = |workload, port| {
        leading_to(&world, &route.rules[0].backends, "any", workload, port).next().is_some()
    };
    assert!(leads(&two, 8080));
    assert!(!leads(&two, 80));
    assert!(!leads(&one, 8080));
    assert!(serves(world.service(&key("echo")).unwrap(), 80, &one, 8080));
}

fn regex(pattern: &str) -> HttpMatch {
    let pattern = Regex::whole(pattern).unwrap();
    HttpMatch { path: PathMatch::Regex(pattern), ..HttpMatch::default() }
}

fn with_query(mut matched: HttpMatch, name: &str, value: &str) -> HttpMatch {
    matched.query.push((name.into(), TextMatch::Exact(value.into())));
    matched
}

fn with_method(matched: HttpMatch, method: Method) -> HttpMatch {
    HttpMatch { method: Some(method), ..matched }
}

/// Of two matches that both take the request, the first wins, in whichever order and route they stand.
#[test]
fn each_step_of_the_precedence_outranks_the_next() {
    let ladder = [
        exact("/a/b"),
        with_method(with_header(prefix("/a/b"), "x", "1"), Method::GET),
        with_method(prefix("/a/b"), Method::GET),
        with_header(with_header(prefix("/a/b"), "x", "1"), "y", "2"),
        with_query(with_header(prefix("/a/b"), "x", "1"), "q", "1"),
        with_header(prefix("/a/b"), "x", "1"),
        with_query(with_query(prefix("/a/b"), "q", "1"), "r", "2"),
        with_query(prefix("/a/b/"), "q", "1"),
        prefix("/a/b"),
        with_method(with_header(prefix("/a"), "x", "1"), Method::GET),
        prefix("/"),
        with_header(regex("/a/[b]"), "x", "1"),
        regex("/a/.*"),
        regex(".*"),
    ];
    let rules: Vec<HttpRule> = (ladder.iter().enumerate())
        .map(|(at, matched)| rule(&at.to_string(), vec![matched.clone()], "echo"))
        .collect();
    for first in 0..ladder.len() {
        let later: Vec<HttpRule> = rules[first..].iter().rev().cloned().collect();
        let (one, other) = later.split_at(later.len() / 2);
        let world = echo()
            .route(route("one", "echo", None, one.to_vec()))
            .route(route("other", "echo", Some(80), other.to_vec()))
            .build();
        let won = chosen(&world, "shop", "/a/b?q=1&r=2", &[("x", "1"), ("y", "2")]);
        assert_eq!(won, first.to_string());
    }
}

/// Longest service, longest method, most headers (GRPCRouteRule); then age and name, as ever.
#[test]
fn grpc_routes_have_a_precedence_of_their_own() {
    let exact = |text: &str| Some(TextMatch::Exact(text.into()));
    let of = |service: Option<TextMatch>, method: Option<TextMatch>| HttpMatch {
        path: PathMatch::Grpc { service, method },
        ..HttpMatch::default()
    };
    let any = Some(TextMatch::Regex(Regex::whole("a[.]b").unwrap()));
    let ladder = [
        of(any, None),
        with_header(of(exact("a.b"), exact("Get")), "x", "1"),
        of(exact("a.b"), exact("Get")),
        with_header(with_header(of(exact("a.b"), None), "x", "1"), "y", "2"),
        with_header(of(exact("a.b"), None), "x", "1"),
        of(exact("a.b"), None),
        with_header(of(None, exact("Get")), "x", "1"),
        of(None, exact("Get")),
        with_header(of(None, None), "x", "1"),
        of(None, None),
    ];
    let rules: Vec<HttpRule> = (ladder.iter().enumerate())
        .map(|(at, matched)| rule(&at.to_string(), vec![matched.clone()], "echo"))
        .collect();
    let grpc = |name: &str, rules: &[HttpRule]| HttpRoute {
        kind: RouteKind::Grpc,
        ..route(name, "echo", None, rules.to_vec())
    };
    let http = route("http", "echo", None, vec![rule("http", vec![], "echo")]);
    for first in 0..ladder.len() {
        let later: Vec<HttpRule> = rules[first..].iter().rev().cloned().collect();
        let (one, other) = later.split_at(later.len() / 2);
        let world = echo().route(grpc("one", one)).route(http.clone()).route(grpc("other", other));
        let won = chosen(&world.build(), "shop", "/a.b/Get", &[("x", "1"), ("y", "2")]);
        assert_eq!(won, first.to_string());
    }
}

#[test]
fn the_best_match_of_a_rule_counts_and_the_first_rule_breaks_ties() {
    let matches = vec![prefix("/a/b"), prefix("/")];
    let rules = vec![
        rule("general", vec![prefix("/a")], "echo"),
        rule("first", matches.clone(), "echo"),
        rule("second", matches, "echo"),
    ];
    let world = echo().route(route("r", "echo", None, rules)).build();
    assert_eq!(chosen(&world, "shop", "/a/b", &[]), "first");
    assert_eq!(chosen(&world, "shop", "/a/c", &[]), "general");
}

#[test]
fn regular_expressions_take_the_whole_text_only() {
    let loose = HttpMatch {
        path: PathMatch::Regex(Regex::anywhere("/a").unwrap()),
        ..HttpMatch::default()
    };
    for matched in [loose, regex("/a")] {
        let world = echo().route(route("r", "echo", None, vec![rule("r", vec![matched], "echo")]));
        let world = world.build();
        for (path, expected) in [("/a", "r"), ("/a/b", "no match"), ("/b/a", "no match")] {
            assert_eq!(chosen(&world, "shop", path, &[]), expected, "{path}");
        }
    }
}

#[test]
fn headers_that_come_twice_count_as_one() {
    let of = |value| with_header(prefix("/"), "x", value);
    let world =
        echo().route(route("r", "echo", None, vec![rule("r", vec![of("a,b")], "echo")])).build();
    assert_eq!(chosen(&world, "shop", "/", &[("x", "a,b")]), "r");
    let mut headers = HeaderMap::new();
    headers.append("x", HeaderValue::from_static("a"));
    headers.append("x", HeaderValue::from_static("b"));
    let head = Head {
        method: &Method::GET,
        path: "/",
        query: None,
        headers: &headers,
        client: Client::default(),
    };
    let service = world.service(&key("echo")).unwrap();
    assert!(matches!(select(&world, service, 80, "shop", &head), Selection::Rule { .. }));
}

#[test]
fn routes_of_one_port_stand_beside_those_of_all_ports() {
    let of_port = route("port", "echo", Some(80), vec![rule("port", vec![prefix("/")], "echo")]);
    let of_all = route("all", "echo", None, vec![rule("all", vec![prefix("/a")], "echo")]);
    let other = route("other", "echo", Some(81), vec![rule("other", vec![exact("/a")], "echo")]);
    let world = echo().route(of_port).route(of_all).route(other).build();
    assert_eq!(chosen(&world, "shop", "/a", &[]), "all");
    assert_eq!(chosen(&world, "shop", "/b", &[]), "port");
}

#[test]
fn a_consumers_routes_hold_for_its_namespace_and_their_port() {
    let consumer = |port| {
        let mut route = route("c", "echo", port, vec![rule("consumer", vec![], "echo")]);
        route.key = key("client/c");
        route
    };
    let producer = || route("p", "echo", None, vec![rule("producer", vec![], "echo")]);
    let world = echo().route(producer()).route(consumer(Some(81))).build();
    assert_eq!(chosen(&world, "client", "/", &[]), "producer", "no consumer route on this port");
    let world = echo().route(consumer(None)).build();
    assert_eq!(chosen(&world, "client", "/", &[]), "consumer");
    assert_eq!(chosen(&world, "shop", "/", &[]), "no routes");
    assert_eq!(chosen(&world, "third", "/", &[]), "no routes");
    let world = echo().route(producer()).route(consumer(None)).build();
    assert_eq!(chosen(&world, "third", "/", &[]), "producer");
}

#[test]
fn backends_without_weight_and_invalid_ones_lead_nowhere() {
    let pod = workload("two", "10.0.0.2");
    let world =
        echo().service(service("other", "10.96.0.2", &[&pod])).workload(pod.clone()).build();
    let leads = |backend| leading_to(&world, &[backend], "any", &pod, 8080).next().is_some();
    let to = |weight, service: &str, port| Backend {
        target: BackendRef::Service { service: key(service), port },
        ..backend(service, weight)
    };
    assert!(leads(to(1, "other", 80)));
    assert!(!leads(to(0, "other", 80)));
    assert!(!leads(to(1, "other", 81)));
    assert!(!leads(to(1, "gone", 80)));
    let invalid =
        BackendRef::Invalid { status: http::StatusCode::INTERNAL_SERVER_ERROR, why: "x".into() };
    assert!(!leads(Backend { target: invalid, ..backend("x", 1) }));
}

proptest! {
    /// The order in which the source lists routes does not matter.
    #[test]
    fn the_order_of_routes_does_not_matter(
        picks in proptest::collection::vec((0usize..6, 0i64..3), 1..6),
        path in prop_oneof!["/", "/a", "/a/b", "/c"],
    ) {
        let matches =
            [prefix("/"), prefix("/a"), exact("/a"), regex("/.*"), with_query(prefix("/a"), "q", "1"), exact("/b")];
        let routes: Vec<HttpRoute> = (picks.iter().enumerate())
            .map(|(at, (pick, created))| {
                let name = at.to_string();
                let rules = vec![rule(&name, vec![matches[*pick].clone()], "echo")];
                HttpRoute { created: *created, ..route(&name, "echo", None, rules) }
            })
            .collect();
        let forward = routes.iter().cloned().fold(echo(), Fixture::route).build();
        let backward = routes.iter().rev().cloned().fold(echo(), Fixture::route).build();
        prop_assert_eq!(chosen(&forward, "shop", &path, &[]), chosen(&backward, "shop", &path, &[]));
    }

    #[test]
    fn arbitrary_heads_never_panic(path in ".{0,40}", value in ".{0,10}") {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap_or(HeaderValue::from_static(""));
        let rules = vec![rule("r", vec![with_query(with_header(regex("/a+"), "x", "é"), "q", "1"), prefix("/a")], "echo")];
        let world = echo().route(route("r", "echo", None, rules)).build();
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x"), value)]);
        let head = Head { method: &Method::GET, path: &path, query: Some(&path), headers: &headers, client: Client::default() };
        let _ = select(&world, world.service(&key("echo")).unwrap(), 80, "shop", &head);
    }
}
