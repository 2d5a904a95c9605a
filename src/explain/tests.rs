//! Whole questions, over a world made of manifests.

use std::fmt::Write;

use super::*;
use crate::app::world_of;
use crate::config::Settings;
use crate::source::{self, Supposed, TranslateSettings, translate};

const SHOP: &str = include_str!("tests/shop.yaml");

/// Namespace, name, service account, labels, node, address, whether it is ready.
const PODS: [(&str, &str, &str, &str, &str, &str, bool); 8] = [
    ("client", "reader-1", "reader", "app: reader", "a", "10.0.0.1", true),
    ("client", "writer-1", "writer", "app: writer", "a", "10.0.0.2", true),
    ("client", "plain-1", "default", "app: plain", "b", "10.0.0.3", true),
    ("shop", "web-1", "web", "app: web, version: v1", "b", "10.0.1.1", true),
    ("shop", "web-2", "web", "app: web, version: v2", "a", "10.0.1.2", true),
    ("shop", "web-3", "web", "app: web, version: v1", "b", "10.0.1.3", false),
    ("shop", "db-1", "db", "app: db", "b", "10.0.1.4", true),
    ("legacy", "old-1", "default", "app: old", "b", "10.0.2.1", true),
];

fn manifests() -> String {
    let mut text = SHOP.to_owned();
    for (namespace, name, account, labels, node, address, ready) in PODS {
        let ready = if ready { "True" } else { "False" };
        write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  \
             labels: {{ {labels} }}\n  annotations: {{ isthmus.io/node: {node}, isthmus.io/network-namespace: {name} }}\n\
             spec:\n  serviceAccountName: {account}\n  containers: [{{ name: c, image: none }}]\n\
             status:\n  podIPs: [{{ ip: {address} }}]\n  conditions: [{{ type: Ready, status: '{ready}' }}]\n"
        )
        .unwrap();
    }
    text
}

/// The mesh, with these manifests applied and these objects deleted.
fn world(applied: &[&str], deleted: &[&str]) -> World {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("all.yaml"), manifests()).unwrap();
    let supposed = Supposed {
        applied: applied.iter().map(ToString::to_string).collect(),
        deleted: deleted.iter().map(ToString::to_string).collect(),
    };
    let objects = source::read(directory.path()).unwrap().suppose(&supposed).unwrap();
    let translation = translate(&objects, &TranslateSettings::default());
    world_of(translation.mesh, &Settings::default())
}

/// `from to METHOD path name=value…`, or without a request.
fn asked(text: &str) -> Question {
    let mut words = text.split(' ');
    let mut next = || words.next().map(str::to_owned);
    let (from, to) = (next().unwrap(), next().unwrap());
    let (method, path) = (next(), next());
    let header = |word: &str| {
        let (name, value) = word.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    };
    let headers = words.map(header).collect();
    let http = method.map(|method| Http { method: Some(method), path, headers, jwt: None });
    Question { from, to, http, sni: None }
}

fn explained(world: &World, text: &str) -> Explanation {
    explain(world, &asked(text)).unwrap_or_else(|why| panic!("{text}: {why}"))
}

/// What is asked, what becomes of it, and some of what is told.
const CASES: &[(&str, Outcome, &[&str])] = &[
    // Bytes and requests that reach somebody.
    (
        "client/reader-1 web.shop:80 GET /api/x",
        Outcome::Permitted,
        &[
            "Pod client/reader-1 at 10.0.0.1 on node a, captured",
            "web.shop is 10.96.0.1:80, which belongs to Service shop/web",
            "Gateway shop/wp takes it",
            "HTTPRoute shop/web: rule 3",
            "Service shop/web, port 80 (90 of 100)",
            "permitted by AuthorizationPolicy shop/readers",
            "Pod/shop/web-3 at 10.0.1.3 on node b: it is not ready",
            "HBONE to 10.0.1.1:15008 over mutual TLS",
            "within the agent of node a",
        ],
    ),
    ("client/reader web.shop GET /api/x", Outcome::Permitted, &["Pod client/reader-1"]),
    ("10.0.0.1 10.96.0.1:80 GET /api", Outcome::Permitted, &["match 0 holds"]),
    // The policy that refuses, with the field that decided.
    (
        "client/writer-1 web.shop:80 GET /api/x",
        Outcome::Refused,
        &[
            "403 (DENY)",
            "no ALLOW AuthorizationPolicy matches (shop/readers)",
            "from[0].source.principals wants \"cluster.local/ns/client/sa/reader\"; the client is \
             spiffe://cluster.local/ns/client/sa/writer",
        ],
    ),
    (
        "client/reader-1 web.shop:80 POST /api/x",
        Outcome::Refused,
        &["to[0].operation.methods wants \"GET\"; the method is POST", "match 1 holds"],
    ),
    (
        "client/reader-1 web.shop:80 GET /api/admin/x",
        Outcome::Refused,
        &["AuthorizationPolicy shop/no-admin denies (DENY rule)"],
    ),
    // Routes.
    (
        "client/reader-1 web.shop:80 GET /other",
        Outcome::Refused,
        &[
            "404",
            "no rule of the HTTPRoutes of Service shop/web matches",
            "wants the path \"/api\" or below; it is \"/other\"",
        ],
    ),
    (
        "client/reader-1 web.shop:80 GET /v2/x",
        Outcome::Refused,
        &["wants the header x-user \"tester\"; there is none"],
    ),
    (
        "client/reader-1 web.shop:80 GET /v2/x x-user=tester",
        Outcome::Permitted,
        &["rule 1", "the target becomes /internal/x", "Service shop/web-v2, port 80 (1 of 1)"],
    ),
    ("client/reader-1 web.shop:80 GET /old", Outcome::Answered, &["301", "/new"]),
    ("client/reader-1 web.shop:80 GET /missing", Outcome::Refused, &["500"]),
    (
        "client/reader-1 web.shop:80 DELETE /api",
        Outcome::Refused,
        &["wants the method GET; it is DELETE"],
    ),
    (
        "client/reader-1 empty.shop:80 GET /",
        Outcome::Refused,
        &["503", "has no endpoint that takes this"],
    ),
    ("client/reader-1 web.shop:81", Outcome::Refused, &["has no port 81"]),
    (
        "client/reader-1 web.shop:80 CONNECT a:80",
        Outcome::Refused,
        &["400", "CONNECT is not served"],
    ),
    // Layer 4.
    ("client/writer-1 plain:80", Outcome::Permitted, &["bound to no waypoint"]),
    (
        "client/writer-1 db.shop:5432",
        Outcome::Refused,
        &[
            "speaks TCP",
            "from[0].source.principals wants \"cluster.local/ns/shop/sa/web\"",
            "no ALLOW AuthorizationPolicy matches (shop/db)",
        ],
    ),
    ("shop/web-1 db:5432", Outcome::Permitted, &["permitted by AuthorizationPolicy shop/db"]),
    // Pods by their addresses, and names of services seen by others.
    (
        "client/reader-1 10.0.1.1:8080 GET /api/x",
        Outcome::Permitted,
        &[
            "no waypoint and no route apply, since a pod was dialled",
            "permitted by AuthorizationPolicy shop/readers",
        ],
    ),
    (
        "client/writer-1 10.0.1.1:8080 GET /api/x",
        Outcome::Refused,
        &["the pod itself was addressed", "no ALLOW AuthorizationPolicy matches (shop/readers)"],
    ),
    // Outside of the mesh, both ways.
    ("client/reader-1 192.0.2.1:443", Outcome::Permitted, &["is no address of the mesh"]),
    ("client/reader-1 api.example.com", Outcome::Permitted, &["240.0.0.9:443", "203.0.113.7"]),
    (
        "legacy/old-1 10.0.1.1:8080 GET /api/x",
        Outcome::Refused,
        &["not in the mesh", "STRICT refuses plaintext"],
    ),
    ("legacy/old-1 web.shop:80 GET /api/x", Outcome::Refused, &["kube-proxy chooses the endpoint"]),
    ("192.0.2.9 10.0.1.4:5432", Outcome::Refused, &["outside of the mesh", "STRICT"]),
    ("192.0.2.9 10.0.0.3:8080 GET /", Outcome::Permitted, &["PERMISSIVE"]),
    ("client/reader-1 10.0.2.1:8080", Outcome::Permitted, &["no agent is there"]),
    // Ports of the agent itself.
    ("client/reader-1 10.0.1.1:15008", Outcome::Refused, &["is a port of the mesh's agent"]),
];

#[test]
fn questions_are_answered_as_the_mesh_would() {
    let world = world(&[], &[]);
    let mut wrong = String::new();
    for (question, outcome, told) in CASES {
        let explanation = explained(&world, question);
        let text = render(&explanation);
        let untold: Vec<_> = told.iter().filter(|part| !text.contains(**part)).collect();
        if explanation.outcome != *outcome || !untold.is_empty() {
            writeln!(wrong, "not {outcome:?}, or not told: {untold:?}\n{text}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_means_nothing_is_told_with_what_to_say() {
    let world = world(&[], &[]);
    for (question, why) in [
        ("reader web.shop:80", "say namespace/pod"),
        ("client/nobody web.shop:80", "no such pod; there are "),
        ("nowhere/x web.shop:80", "the mesh knows no pod of namespace nowhere"),
        ("client/reader-1 web:80", "for another namespace say name.namespace"),
        ("client/reader-1 10.0.0.1", "say a port"),
        ("client/reader-1 web.shop:http", "is no port"),
        ("client/reader-1 web.shop:80 GET /a x=\n", "not a header"),
        ("client/reader-1 web.shop:80 G(T /a", "is no method"),
    ] {
        let error = explain(&world, &asked(question)).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn what_would_be_is_explained_without_being_done() {
    let question = "client/writer-1 web.shop:80 GET /api/x";
    assert_eq!(explained(&world(&[], &[]), question).outcome, Outcome::Refused);
    let lifted = world(&[], &["AuthorizationPolicy/shop/readers"]);
    assert_eq!(explained(&lifted, question).outcome, Outcome::Permitted);
    let deny = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: nobody, namespace: shop }
spec: { action: DENY, rules: [{}] }
";
    let closed = explained(&world(&[deny], &[]), "client/reader-1 web.shop:80 GET /api/x");
    assert_eq!(closed.outcome, Outcome::Refused);
    assert!(closed.answer.contains("shop/nobody"), "{}", closed.answer);
    let without = explained(&world(&[], &["Gateway/shop/wp"]), question);
    assert_eq!(without.outcome, Outcome::Refused, "a waypoint that is named and missing");
}

#[test]
fn an_explanation_is_the_same_as_json() {
    let explanation = explained(&world(&[], &[]), CASES[0].0);
    let text = serde_json::to_string(&explanation).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&text).unwrap(), explanation);
}
