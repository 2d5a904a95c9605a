//! The destination's half.

use std::net::SocketAddr;

use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::support::*;
use crate::filter::{HeaderFilter, HttpFilter, PathRewrite, RequestHeaders, Rewrite};
use crate::l7::WorkerSettings;
use crate::l7::message::headers::ORIGINAL;
use crate::l7::message::lasting;
use crate::l7::message::original::Original;
use crate::l7::message::sent::Sent;
use crate::model::*;
use crate::world::fixture::{self, Fixture, bound_to, identity, key, policy};

const HOST: &str = "echo.shop.svc.cluster.local";

/// The application in the mesh, behind service `echo`, which has a waypoint.
pub(super) fn captured(at: SocketAddr) -> Fixture {
    let echo = fixture::workload("echo", &at.ip().to_string());
    let service = bound("echo", "10.96.0.1", &echo, at);
    Fixture::default()
        .workload(fixture::workload("client", "127.0.0.9"))
        .workload(echo)
        .waypoint(fixture::waypoint("waypoint"))
        .service(service)
}

fn one(value: &str) -> Values<StringMatch> {
    Values { any: vec![StringMatch::Exact(value.into())], none: vec![] }
}

/// Only `GET`, and only by `client`.
pub(super) fn gets_of_the_client() -> AuthorizationPolicy {
    let source = Source { principals: one(&identity("client").principal()), ..Source::default() };
    let operation = Operation { methods: one("GET"), ..Operation::default() };
    let rules = vec![Rule { from: vec![source], to: vec![operation], when: vec![] }];
    let scope = Scope::Targets(vec![PolicyTarget::Service("echo".into())]);
    policy("gets", Action::Allow, scope, rules)
}

#[tokio::test]
async fn judges_each_request_whatever_way_it_came() {
    let at = application("app").await;
    let lab = Lab::new(captured(at).policy(gets_of_the_client()), WorkerSettings::for_tests());
    for host in [Some(HOST), None] {
        let stream = lab.arrive("echo", at, Some(identity("client")), host).await;
        let mut client = Client::http1(stream).await;
        assert_eq!(client.get("/").await.status, StatusCode::OK, "{host:?}");
        let denied = client.send(Method::DELETE, "/", &[]).await.unwrap();
        assert_eq!(denied.status, StatusCode::FORBIDDEN, "{host:?}");
        assert_eq!(denied.body, "RBAC: access denied");
        assert_eq!(client.get("/").await.status, StatusCode::OK, "the connection goes on");
    }
    for client in [Some(identity("other")), None] {
        let stream = lab.arrive("echo", at, client.clone(), None).await;
        let denied = Client::http1(stream).await.get("/").await;
        assert_eq!(denied.status, StatusCode::FORBIDDEN, "{client:?}");
    }
}

#[tokio::test]
async fn answers_grpc_in_its_own_form() {
    let at = application("app").await;
    let lab = Lab::new(captured(at).policy(gets_of_the_client()), WorkerSettings::for_tests());
    let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    let mut client = Client::http2(stream).await;
    let headers = [("content-type", "application/grpc")];
    let denied = client.send(Method::POST, "/service/method", &headers).await.unwrap();
    assert_eq!(denied.status, StatusCode::OK);
    assert_eq!(denied.headers["grpc-status"], "7");
    assert_eq!(denied.headers["grpc-message"], "RBAC: access denied");
}

#[tokio::test]
async fn a_change_of_policy_holds_for_the_next_request() {
    let at = application("app").await;
    let lab = Lab::new(captured(at), WorkerSettings::for_tests());
    let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    let mut client = Client::http1(stream).await;
    assert_eq!(client.send(Method::PUT, "/", &[]).await.unwrap().status, StatusCode::OK);
    lab.store.publish(captured(at).policy(gets_of_the_client()).mesh);
    assert_eq!(client.send(Method::PUT, "/", &[]).await.unwrap().status, StatusCode::FORBIDDEN);
    assert_eq!(client.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn bytes_pass_at_layer_4_until_a_change_denies_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let lab = Lab::new(captured(at), WorkerSettings::for_tests());
    let mut client = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    client.write_all(b"\x00binary\n").await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut read = [0; 8];
    server.read_exact(&mut read).await.unwrap();
    // An ALLOW rule with HTTP fields cannot match bytes.
    lab.store.publish(captured(at).policy(gets_of_the_client()).mesh);
    assert_eq!(client.read(&mut read).await.unwrap_or(0), 0, "cut");
    let mut client = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    client.write_all(b"\x00binary\n").await.unwrap();
    assert_eq!(client.read(&mut read).await.unwrap_or(0), 0, "refused");
}

#[tokio::test]
async fn an_upgraded_connection_is_cut_when_it_is_denied() {
    let at = application("app").await;
    let lab = Lab::new(captured(at), WorkerSettings::for_tests());
    let mut client = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    let request =
        "GET /chat HTTP/1.1\r\nHost: echo\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nx";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nx") {
        answer.push(client.read_u8().await.unwrap());
    }
    lab.store.publish(captured(at).policy(gets_of_the_client()).mesh);
    client.write_all(b"still allowed").await.unwrap();
    client.read_exact(&mut [0; 13]).await.unwrap();
    let deny = policy("all", Action::Allow, Scope::Namespace, vec![]);
    lab.store.publish(captured(at).policy(deny).mesh);
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

/// An application whose response begins and does not end.
async fn endless() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        _ = stream.read(&mut [0; 4096]).await;
        let begun = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
        stream.write_all(begun).await.unwrap();
        _ = stream.read(&mut [0; 1]).await;
    });
    at
}

#[tokio::test]
async fn a_response_without_an_end_is_cut_when_it_is_denied() {
    let at = endless().await;
    let lab = Lab::new(captured(at), WorkerSettings::for_tests());
    let mut client = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    client.write_all(b"GET /watch HTTP/1.1\r\nHost: echo\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\nx\r\n") {
        answer.push(client.read_u8().await.unwrap());
    }
    lab.store.publish(captured(at).policy(gets_of_the_client()).mesh);
    let longer = lasting::AWHILE * 3 / 2;
    let goes_on = tokio::time::timeout(longer, client.read_u8()).await;
    assert!(goes_on.is_err(), "still allowed: {goes_on:?}");
    let deny = policy("all", Action::Allow, Scope::Namespace, vec![]);
    lab.store.publish(captured(at).policy(deny).mesh);
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

/// A route of `echo` that turns `x-user` into `x-role: user`, and a policy that looks at `x-user`.
pub(super) fn rewriting(at: SocketAddr) -> Fixture {
    let filter = HeaderFilter {
        set: vec![(HeaderName::from_static("x-role"), HeaderValue::from_static("user"))],
        remove: vec![HeaderName::from_static("x-user")],
        ..HeaderFilter::default()
    };
    let rule = HttpRule {
        filters: vec![HttpFilter::RequestHeaders(RequestHeaders(filter))],
        ..fixture::rule(vec![fixture::backend("echo", 1)])
    };
    let header = ConditionKey::Header(HeaderName::from_static("x-user"));
    let when = vec![Condition::Text { key: header, values: one("ada") }];
    let rules = vec![Rule { when, ..Rule::default() }];
    let scope = Scope::Targets(vec![PolicyTarget::Service("echo".into())]);
    captured(at).route(fixture::route("rewrite", "echo", vec![rule])).policy(policy(
        "ada",
        Action::Allow,
        scope,
        rules,
    ))
}

/// What a client's half would say of a request with this `x-user`.
fn original(user: &'static str) -> String {
    let mut before = http::HeaderMap::new();
    before.insert("x-user", HeaderValue::from_static(user));
    let mut after = http::HeaderMap::new();
    after.insert("x-role", HeaderValue::from_static("user"));
    let uri = Uri::from_static("/");
    let before = Sent { uri: uri.clone(), headers: before };
    let value = Original::between(&before, &uri, &after).encode().unwrap();
    value.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn original_values_count_only_where_a_route_leads_from_them() {
    let at = application("app").await;
    let lab = Lab::new(rewriting(at), WorkerSettings::for_tests());
    let (ada, eve) = (original("ada"), original("eve"));
    let named = ORIGINAL;
    let header = named.as_str();
    for (host, headers, status) in [
        (Some(HOST), vec![("x-role", "user"), (header, &*ada)], 200),
        (Some(HOST), vec![("x-role", "user"), (header, &*eve)], 403),
        (Some(HOST), vec![("x-role", "user")], 403),
        // The route would have set another role.
        (Some(HOST), vec![("x-role", "admin"), (header, &*ada)], 403),
        // Nobody's routes apply to what was addressed to the pod.
        (None, vec![("x-role", "user"), (header, &*ada)], 403),
        (Some(HOST), vec![("x-role", "user"), (header, "nonsense")], 403),
    ] {
        let stream = lab.arrive("echo", at, Some(identity("client")), host).await;
        let mut client = Client::http1(stream).await;
        let answer = client.send(Method::GET, "/", &headers).await.unwrap();
        assert_eq!(answer.status, status, "{host:?} {headers:?}");
        assert!(!answer.body.contains(header), "the application never sees it");
    }
}

/// A route of `echo` that takes `/admin` for `/public` on the way, and a policy that lets nobody to `/public`.
pub(super) fn moving(at: SocketAddr) -> Fixture {
    let path = PathRewrite::Prefix { prefix: "/admin".into(), with: "/public".into() };
    let rewrite =
        Rewrite { hostname: Some(HeaderValue::from_static("inner.org")), path: Some(path) };
    let matches =
        vec![HttpMatch { path: PathMatch::Prefix("/admin".into()), ..HttpMatch::default() }];
    let backend =
        Backend { filters: vec![HttpFilter::Rewrite(rewrite)], ..fixture::backend("echo", 1) };
    let moved = HttpRule { matches, ..fixture::rule(vec![backend]) };
    let plain = HttpMatch { path: PathMatch::Prefix("/".into()), ..HttpMatch::default() };
    let rest =
        HttpRule { matches: vec![plain], ..fixture::rule(vec![fixture::backend("echo", 1)]) };
    let paths = |path: &str| Operation {
        paths: Values { any: vec![StringMatch::Prefix(path.into())], none: vec![] },
        ..Operation::default()
    };
    let to = vec![Rule { to: vec![paths("/public")], ..Rule::default() }];
    let scope = Scope::Targets(vec![PolicyTarget::Service("echo".into())]);
    captured(at).route(fixture::route("move", "echo", vec![moved, rest])).policy(policy(
        "not-public",
        Action::Deny,
        scope,
        to,
    ))
}

#[tokio::test]
async fn original_paths_count_only_where_a_route_leads_from_them() {
    let at = application("app").await;
    let lab = Lab::new(moving(at), WorkerSettings::for_tests());
    let headers = |host: &'static str| {
        http::HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static(host))])
    };
    let said = |target: &'static str, now: &'static str| {
        let before = Sent { uri: Uri::from_static(target), headers: headers("echo") };
        let now = Uri::from_static(now);
        let value = Original::between(&before, &now, &headers("inner.org")).encode().unwrap();
        value.to_str().unwrap().to_owned()
    };
    for (target, original, status) in [
        ("/public/a", Some(said("/admin/a", "/public/a")), 200),
        // Nothing leads from these to what arrived.
        ("/public/a", Some(said("/admin/b", "/public/a")), 403),
        ("/public/a", Some(said("/other/a", "/public/a")), 403),
        ("/public/a?x", Some(said("/admin/a", "/public/a?x")), 403),
        ("/public/a", None, 403),
        ("/admin/a", None, 200),
    ] {
        let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
        let host = if original.is_some() { "inner.org" } else { "echo" };
        let mut request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n");
        if let Some(original) = &original {
            request.push_str(&format!("{}: {original}\r\n", ORIGINAL.as_str()));
        }
        let answer = raw(stream, request + "connection: close\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {answer}");
    }
}

/// What comes back for a request that is written as it stands.
async fn raw(mut stream: tokio::net::TcpStream, request: String) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// A service `front` whose route leads what begins with `/in` to `echo`, as this delegate says, if anyone.
fn leading_on(at: SocketAddr, delegate: Option<&str>) -> Fixture {
    let mut mesh = rewriting(at);
    let backend = mesh.mesh.services[0].as_ref().clone();
    let mut frontend = fixture::service("front", "10.96.0.7", &[]);
    frontend.waypoint = bound_to("waypoint");
    let mut route = mesh.mesh.routes.remove(0).as_ref().clone();
    route.parents[0].service = key("front");
    let rule = &mut route.rules[0];
    rule.delegate = delegate.map(key);
    rule.filters.clear();
    rule.matches[0].path = PathMatch::Prefix("/in".into());
    rule.backends[0].target = BackendRef::Service { service: backend.key.clone(), port: 80 };
    mesh.service(frontend).route(route)
}

#[tokio::test]
async fn follows_routes_to_other_services() {
    let at = application("app").await;
    let front = Some("front.shop.svc.cluster.local");
    for (delegate, path, status) in [
        // Through the route the front's policies hold; otherwise every service's, so also that of `echo`.
        (None, "/in", 200),
        (None, "/out", 403),
        (Some("shop/part"), "/in", 200),
        // A rule that is left to another namespace is that namespace's word, which lifts nothing.
        (Some("evil/part"), "/in", 403),
    ] {
        let lab = Lab::new(leading_on(at, delegate), WorkerSettings::for_tests());
        let stream = lab.arrive("echo", at, Some(identity("client")), front).await;
        let answer = Client::http1(stream).await.get(path).await;
        assert_eq!(answer.status, status, "{delegate:?} {path}");
    }
}

/// What the route would have changed on the way is still there: the peer did not come by it.
#[tokio::test]
async fn a_route_stands_in_for_policies_only_with_what_its_filters_do() {
    let at = application("app").await;
    let mut mesh = rewriting(at);
    let mut route = mesh.mesh.routes.remove(0).as_ref().clone();
    route.parents[0].service = key("front");
    let frontend =
        Service { waypoint: bound_to("waypoint"), ..fixture::service("front", "10.96.0.7", &[]) };
    let lab = Lab::new(mesh.service(frontend).route(route), WorkerSettings::for_tests());
    let front = Some("front.shop.svc.cluster.local");
    let (eve, named) = (original("eve"), ORIGINAL);
    for (headers, status) in [
        (vec![("x-role", "user"), (named.as_str(), &*eve)], 200),
        (vec![("x-role", "user")], 200),
        (vec![], 403),
        (vec![("x-role", "admin")], 403),
        (vec![("x-role", "user"), ("x-user", "eve")], 403),
        (vec![("x-role", "admin"), (named.as_str(), &*eve)], 403),
    ] {
        let stream = lab.arrive("echo", at, Some(identity("client")), front).await;
        let answer = Client::http1(stream).await.send(Method::GET, "/", &headers).await.unwrap();
        assert_eq!(answer.status, status, "{headers:?}");
    }
}
