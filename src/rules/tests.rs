//! The index against the definition: a plain scan of all matches.

use std::cmp::Ordering;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use proptest::sample::select;

use super::matching::matches;
use super::*;
use crate::base::{ObjectKey, Regex};
use crate::model::{
    HeaderMatch, HttpMatch, HttpRoute, HttpRule, PathMatch, RouteKind, RouteParent, TextMatch,
};

fn service() -> ObjectKey {
    ObjectKey::new("shop", "echo")
}

fn route(name: &str, rules: Vec<Vec<HttpMatch>>) -> HttpRoute {
    let rule = |matches| HttpRule { matches, ..HttpRule::default() };
    HttpRoute {
        kind: RouteKind::Http,
        key: ObjectKey::new("shop", name),
        created: 0,
        parents: vec![RouteParent { service: service(), port: None }],
        rules: rules.into_iter().map(rule).collect(),
        holds: None,
    }
}

fn prefix(text: &str) -> HttpMatch {
    HttpMatch { path: PathMatch::Prefix(text.into()), ..HttpMatch::default() }
}

/// Name of the route, and the number of the rule.
type Found = Option<(ObjectKey, usize)>;

fn found(routes: &[Arc<HttpRoute>], port: u16, head: &Head<'_>) -> Option<(RouteKind, Found)> {
    let all = ServiceRules::of(&service(), routes, None, &mut Compilations::default());
    let rules = all.from("shop")?.on(port, "any")?;
    Some((rules.kind(), rules.find(head).map(|(route, rule)| (route.key.clone(), rule))))
}

/// What the API says, without any index.
fn scanned(routes: &[Arc<HttpRoute>], port: u16, head: &Head<'_>) -> Option<(RouteKind, Found)> {
    let attached = |route: &&Arc<HttpRoute>| {
        let here = |parent: &RouteParent| parent.port.is_none_or(|it| it == port);
        route.parents.iter().any(|parent| parent.service == service() && here(parent))
    };
    let group = || routes.iter().filter(attached);
    let kind = group().map(|route| route.kind).max()?;
    let of_kind = group().filter(|route| route.kind == kind);
    if kind == RouteKind::Virtual {
        let age = |route: &HttpRoute| if route.created == 0 { i64::MAX } else { route.created };
        let held = of_kind.min_by_key(|route| (age(route), route.key.clone()))?;
        let fulfils = |rule: &HttpRule| rule.matches.iter().any(|it| matches(it, head, &None));
        let first = held.rules.iter().position(fulfils);
        return Some((kind, first.map(|rule| (held.key.clone(), rule))));
    }
    let candidates = of_kind.flat_map(|route| {
        let rules = route.rules.iter().enumerate();
        rules.flat_map(move |(number, rule)| rule.matches.iter().map(move |it| (route, number, it)))
    });
    let fulfilled = candidates.filter(|(_, _, matched)| matches(matched, head, &None));
    let best = fulfilled.reduce(|best, other| if precedes(other, best) { other } else { best });
    Some((kind, best.map(|(route, number, _)| (route.key.clone(), number))))
}

type Candidate<'a> = (&'a Arc<HttpRoute>, usize, &'a HttpMatch);

/// "HTTPRouteRule.matches" and "GRPCRouteRule.matches" of the Gateway API; of equals, the first one.
fn precedes((route, _, one): Candidate<'_>, (of_other, _, other): Candidate<'_>) -> bool {
    let path = |matched: &HttpMatch| match &matched.path {
        PathMatch::Exact(text) => (2, text.len(), 0),
        PathMatch::Prefix(text) => (1, text.trim_end_matches('/').len(), 0),
        PathMatch::Regex(regex) => (0, regex.as_str().len(), 0),
        PathMatch::Starts(_) | PathMatch::ExactAnyCase(_) | PathMatch::StartsAnyCase(_) => {
            (0, 0, 0)
        }
        PathMatch::Grpc { service, method } => {
            let length = |it: &Option<TextMatch>| it.as_ref().map_or(0, |it| it.written_length());
            (0, length(service), length(method))
        }
    };
    let age = |route: &HttpRoute| if route.created == 0 { i64::MAX } else { route.created };
    let order = path(one)
        .cmp(&path(other))
        .then(one.method.is_some().cmp(&other.method.is_some()))
        .then(one.headers.len().cmp(&other.headers.len()))
        .then(one.query.len().cmp(&other.query.len()))
        .then(age(of_other).cmp(&age(route)))
        .then_with(|| of_other.key.cmp(&route.key));
    order == Ordering::Greater
}

const SEGMENTS: [&str; 4] = ["a", "b", "ab", ""];
const METHODS: [Method; 3] = [Method::GET, Method::POST, Method::HEAD];
const HEADERS: [&str; 3] = ["x-version", "x-tenant", "x-user"];
const VALUES: [&str; 6] = ["1", "2", "3", "1,2", "", "\u{e4}"];

fn a_path() -> impl Strategy<Value = String> {
    let path = prop::collection::vec(select(&SEGMENTS[..]), 0..5)
        .prop_map(|segments| format!("/{}", segments.join("/")));
    prop_oneof![9 => path, 1 => select(&["", "*", "a"][..]).prop_map(String::from)]
}

fn a_text() -> impl Strategy<Value = TextMatch> {
    let text = || select(&VALUES[..]);
    prop_oneof![
        6 => text().prop_map(|text| TextMatch::Exact(text.into())),
        1 => text().prop_map(|text| TextMatch::Prefix(text.into())),
        1 => Just(TextMatch::Regex(Regex::whole("[12]+").unwrap())),
    ]
}

fn a_http_path() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        4 => a_path().prop_map(|path| PathMatch::Exact(path.into())),
        6 => a_path().prop_map(|path| PathMatch::Prefix(path.into())),
        1 => select(&["/a/.*", "/.*", ".*"][..])
            .prop_map(|text| PathMatch::Regex(Regex::whole(text).unwrap())),
    ]
}

/// Of VirtualServices.
fn a_text_path() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        2 => a_path().prop_map(|path| PathMatch::Exact(path.into())),
        6 => a_path().prop_map(|path| PathMatch::Starts(path.into())),
        1 => a_path().prop_map(|path| PathMatch::ExactAnyCase(path.into())),
        1 => a_path().prop_map(|path| PathMatch::StartsAnyCase(path.into())),
        1 => Just(PathMatch::default()),
        1 => Just(PathMatch::Regex(Regex::whole("/a/.*").unwrap())),
    ]
}

fn a_grpc_path() -> impl Strategy<Value = PathMatch> {
    let part = || {
        let exact = select(&["a", "b", "ab", "a/b"][..]).prop_map(|it| TextMatch::Exact(it.into()));
        let regex = Just(TextMatch::Regex(Regex::whole("a.*").unwrap()));
        prop::option::of(prop_oneof![4 => exact, 1 => regex])
    };
    (part(), part()).prop_map(|(service, method)| PathMatch::Grpc { service, method })
}

fn a_match(path: impl Strategy<Value = PathMatch>) -> impl Strategy<Value = HttpMatch> {
    let header = (select(&HEADERS[..]), a_text())
        .prop_map(|(name, value)| HeaderMatch { name: HeaderName::from_static(name), value });
    let query = (select(&["q", "r"][..]), a_text()).prop_map(|(name, value)| (name.into(), value));
    (
        path,
        prop::collection::vec(header, 0..3),
        prop::collection::vec(query, 0..2),
        prop::option::weighted(0.3, select(&METHODS[..])),
    )
        .prop_map(|(path, headers, query, method)| HttpMatch {
            path,
            headers,
            query,
            method,
            more: None,
        })
}

fn a_route() -> impl Strategy<Value = HttpRoute> {
    let matches = |kind: RouteKind| {
        let one = match kind {
            RouteKind::Grpc => a_match(a_grpc_path()).boxed(),
            RouteKind::Http => a_match(a_http_path()).boxed(),
            RouteKind::Virtual => a_match(a_text_path()).boxed(),
        };
        prop::collection::vec(prop::collection::vec(one, 0..4), 0..4)
    };
    const KINDS: [RouteKind; 4] =
        [RouteKind::Grpc, RouteKind::Http, RouteKind::Http, RouteKind::Virtual];
    let rules = select(&KINDS[..]).prop_flat_map(move |kind| (Just(kind), matches(kind)));
    let parent = (select(&["echo", "other"][..]), select(&[None, None, Some(80), Some(81)][..]))
        .prop_map(|(name, port)| RouteParent { service: ObjectKey::new("shop", name), port });
    let parents = prop::collection::vec(parent, 1..3);
    ("[a-c]", 0..3i64, parents, rules).prop_map(|(name, created, mut parents, (kind, rules))| {
        // The world lists only routes of the service.
        parents[0].service = service();
        if kind == RouteKind::Virtual {
            let port = parents[0].port;
            parents.iter_mut().for_each(|parent| parent.port = port);
        }
        HttpRoute { kind, created, parents, ..route(&name, rules) }
    })
}

fn a_header() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let value = select(&VALUES[..]).prop_map(|text| text.as_bytes().to_vec());
    (select(&HEADERS[..]), prop_oneof![9 => value, 1 => Just(vec![0xff])])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_a_match_covers_it_takes(
        (one, other) in prop_oneof![
            (a_match(a_http_path()), a_match(a_http_path())),
            (a_match(a_text_path()), a_match(a_text_path())),
            (a_match(a_grpc_path()), a_match(a_grpc_path())),
        ],
        (path, method) in (a_path(), select(&METHODS[..])),
        query in prop::option::of(select(&["q=1", "q=2&r=1", "r=3&q=%31", "q=&q=1"][..])),
        sent in prop::collection::vec(a_header(), 0..4),
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in &sent {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        let client = Client::default();
        let head = Head { method: &method, path: &path, query, headers: &headers, client };
        let taken = matches(&other, &head, &None);
        let covered = covers(&one, &other) && taken;
        prop_assert!(!covered || matches(&one, &head, &None), "{one:?} {other:?} {path}");
        prop_assert!(covers(&one, &one), "{one:?}");
    }

    #[test]
    fn the_index_finds_what_a_scan_finds(
        routes in prop::collection::vec(a_route().prop_map(Arc::new), 0..12),
        requests in prop::collection::vec(
            (
                a_path(),
                select(&METHODS[..]),
                prop::option::of(select(&["q=1", "q=2&r=1", "r=3&q=%31", "q=&q=1"][..])),
                prop::collection::vec(a_header(), 0..4),
            ),
            1..6,
        ),
        port in 80..83u16,
    ) {
        for (path, method, query, sent) in &requests {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.append(*name, HeaderValue::from_bytes(value).unwrap());
            }
            let head = Head { method, path, query: *query, headers: &headers, client: Client::default() };
            prop_assert_eq!(found(&routes, port, &head), scanned(&routes, port, &head));
        }
    }
}

/// Routes that differ in one thing each, so many that all kinds of splits are made.
#[test]
fn many_alike_are_told_apart() {
    const MANY: usize = 300;
    let header = |number: usize| {
        let value = TextMatch::Exact(number.to_string().into());
        HttpMatch {
            headers: vec![HeaderMatch { name: HeaderName::from_static("x-tenant"), value }],
            ..prefix("/")
        }
    };
    let query = |number: usize| {
        let value = TextMatch::Exact(number.to_string().into());
        HttpMatch { query: vec![("q".into(), value)], ..prefix("/a") }
    };
    let path = |number: usize| prefix(&format!("/items/{number}/"));
    let routes: Vec<_> = (0..MANY)
        .map(|number| {
            let name = format!("r{number:03}");
            Arc::new(route(
                &name,
                vec![vec![header(number)], vec![query(number)], vec![path(number)]],
            ))
        })
        .collect();
    for number in [0, 1, 150, MANY - 1] {
        let key = ObjectKey::new("shop", format!("r{number:03}"));
        let mut headers = HeaderMap::new();
        let ask = |path: &str, query: Option<&str>, headers: &HeaderMap| {
            let client = Client::default();
            let head = Head { method: &Method::GET, path, query, headers, client };
            let one = found(&routes, 80, &head);
            assert_eq!(one, scanned(&routes, 80, &head));
            one.unwrap().1
        };
        let (text, of_path) = (format!("q={number}"), format!("/items/{number}/x"));
        assert_eq!(ask("/a/b", Some(&text), &headers), Some((key.clone(), 1)));
        assert_eq!(ask(&of_path, None, &headers), Some((key.clone(), 2)));
        assert_eq!(ask("/a/b", None, &headers), None);
        headers.insert("x-tenant", HeaderValue::from_str(&number.to_string()).unwrap());
        assert_eq!(ask("/a/b", None, &headers), Some((key.clone(), 0)));
        assert_eq!(ask(&of_path, None, &headers), Some((key, 2)), "the longer prefix");
    }
}

#[test]
fn groups_that_stay_are_not_compiled_again() {
    let of = |namespace: &str, name: &str| {
        let key = ObjectKey::new(namespace, name);
        Arc::new(HttpRoute { key, ..route(name, vec![vec![prefix("/")]]) })
    };
    let (consumer, producer) = (of("client", "c"), of("shop", "p"));
    let before = ServiceRules::of(
        &service(),
        &[consumer.clone(), producer.clone()],
        None,
        &mut Compilations::default(),
    );
    let changed = [of("client", "c"), producer];
    let after = ServiceRules::of(&service(), &changed, Some(&before), &mut Compilations::default());
    let at = |rules: &ServiceRules, namespace| std::ptr::from_ref(rules.from(namespace).unwrap());
    assert_eq!(at(&before, "shop"), at(&after, "shop"));
    assert_ne!(at(&before, "client"), at(&after, "client"));
    assert!(after.from("third").is_none());
}
