//! External authorization: at the destination's half, and at the client's where nobody judges at the other end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::destination::captured;
use super::support::*;
use crate::l7::WorkerSettings;
use crate::l7::version::Version;
use crate::model::*;
use crate::world::fixture::{self, Fixture, identity, policy};

const HOST: &str = "echo.shop.svc.cluster.local";

/// Answers by the path that it is asked about.
pub(super) async fn authorizer() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let io = TokioIo::new(listener.accept().await.unwrap().0);
            let served =
                hyper::server::conn::http1::Builder::new().serve_connection(io, service_fn(decide));
            tokio::spawn(served);
        }
    });
    address
}

async fn decide(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let answer = Response::builder();
    let path = head.uri.path().strip_prefix("/check").expect("the prefix").to_owned();
    let denied = |text: String| {
        let answer = Response::builder().status(403).header("x-why", "no");
        answer.header("transfer-encoding", "chunked").body(Full::from(text)).unwrap()
    };
    Ok(match path.as_str() {
        "/deny" => denied("denied by rule".to_owned()),
        "/login" => {
            let answer = answer.status(302).header("location", "https://login/");
            answer.header("set-cookie", "state=1").body(Full::default()).unwrap()
        }
        "/fail" => answer.status(503).body(Full::default()).unwrap(),
        "/hang" => std::future::pending().await,
        "/huge" => denied("x".repeat(1 << 20)),
        "/body" if &body[..] != b"good" => denied(format!("{body:?} {:?}", head.headers)),
        _ => {
            let answer = answer.header("x-user", "alice").header("set-cookie", "seen=1");
            let answer = answer.header("x-forwarded-client-cert", "URI=admin");
            answer.header("x-saw", format!("{:?}", head.headers)).body(Full::default()).unwrap()
        }
    })
}

fn provider(port: u16) -> ExtAuthz {
    let exact = |name: &str| StringMatch::Exact(name.into());
    ExtAuthz {
        name: "auth".into(),
        service: ProviderService::Host {
            namespace: None,
            hostname: "auth.shop.svc.cluster.local".into(),
        },
        port,
        timeout: Duration::from_millis(500),
        fail_open: false,
        status_on_error: 403,
        body: None,
        protocol: CheckProtocol::Http(HttpCheck {
            path_prefix: "/check".into(),
            include_headers: vec![exact("x-token")],
            upstream_on_allow: vec![
                exact("x-user"),
                exact("x-role"),
                exact("x-saw"),
                exact("x-forwarded-client-cert"),
            ],
            downstream_on_allow: vec![exact("set-cookie")],
            ..HttpCheck::default()
        }),
    }
}

fn custom(provider: ExtAuthz) -> AuthorizationPolicy {
    let open = Values { any: vec![], none: vec![StringMatch::Exact("/open".into())] };
    let rule =
        Rule { to: vec![Operation { paths: open, ..Operation::default() }], ..Rule::default() };
    let scope = Scope::Targets(vec![PolicyTarget::Service("echo".into())]);
    let policy = policy("custom", Action::Custom, scope, vec![rule]);
    AuthorizationPolicy { provider: Some(Arc::new(provider)), ..policy }
}

/// The provider's service, outside of the mesh.
pub(super) fn with_authorizer(mesh: Fixture, at: SocketAddr) -> Fixture {
    let pod = outsider("auth", at);
    let mut service = fixture::service("auth", "10.96.0.9", &[&pod]);
    service.endpoints[0].workload = None;
    service.endpoints[0].ports = vec![PortMapping { port: 80, target: at.port() }];
    mesh.service(service)
}

/// A lab with the application behind the policy, and a client at the half that is to judge.
async fn lab(is_captured: bool, provider: ExtAuthz, authorizer: SocketAddr) -> (Lab, Client) {
    let at = application("app").await;
    let mesh = if is_captured { captured(at) } else { shop(at) };
    let mesh = with_authorizer(mesh, authorizer).policy(custom(provider));
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let client = client(&lab, is_captured, at).await;
    (lab, client)
}

async fn client(lab: &Lab, is_captured: bool, at: SocketAddr) -> Client {
    let stream = match is_captured {
        true => lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await,
        false => lab.dial("client", "echo").await,
    };
    Client::http1(stream).await
}

async fn get(client: &mut Client, path: &str, headers: &[(&str, &str)]) -> Answer {
    client.send(Method::GET, path, headers).await.unwrap()
}

#[tokio::test]
async fn an_authorizer_decides_and_what_it_says_goes_where_it_is_to_go() {
    for is_captured in [true, false] {
        let (lab, mut client) = lab(is_captured, provider(80), authorizer().await).await;
        let preset = [("x-user", "root"), ("x-role", "admin"), ("x-token", "t"), ("x-own", "1")];
        let allowed = get(&mut client, "/a?b=c", &preset).await;
        assert_eq!(allowed.status, StatusCode::OK, "{is_captured}: {}", allowed.body);
        assert!(allowed.body.contains("/a?b=c"), "{}", allowed.body);
        assert!(allowed.body.contains("x-user: alice") && !allowed.body.contains("root"));
        assert!(!allowed.body.contains("x-role"), "not seen, so not believed: {}", allowed.body);
        assert!(!allowed.body.contains("URI=admin"), "{}", allowed.body);
        let saw = allowed.body.lines().find(|line| line.starts_with("x-saw: ")).unwrap();
        assert!(saw.contains("\"x-token\": \"t\"") && !saw.contains("x-own"), "{saw}");
        assert_eq!(allowed.headers["set-cookie"], "seen=1");
        let denied = get(&mut client, "/deny", &[]).await;
        assert_eq!((denied.status, &*denied.body), (StatusCode::FORBIDDEN, "denied by rule"));
        assert_eq!(denied.headers["x-why"], "no");
        let login = get(&mut client, "/login", &[]).await;
        assert_eq!(login.status, StatusCode::FOUND);
        assert_eq!(login.headers["location"], "https://login/");
        let huge = get(&mut client, "/huge", &[]).await;
        assert_eq!((huge.status, huge.body.len()), (StatusCode::FORBIDDEN, 0));
        // Where no rule matches nobody is asked.
        let open = get(&mut client, "/open", &preset).await;
        assert_eq!(open.status, StatusCode::OK);
        assert!(open.body.contains("x-role: admin"), "{}", open.body);
        if !is_captured {
            lab.counted(&["response_flags=\"UAEX\""], 3).await;
        }
    }
}

/// Requests with the value in the header match.
fn with_header(action: Action, name: &'static str, value: &str) -> AuthorizationPolicy {
    let values = Values { any: vec![StringMatch::Exact(value.into())], none: vec![] };
    let key = ConditionKey::Header(http::HeaderName::from_static(name));
    let rule = Rule { when: vec![Condition::Text { key, values }], ..Rule::default() };
    let scope = Scope::Targets(vec![PolicyTarget::Service("echo".into())]);
    policy("other", action, scope, vec![rule])
}

/// CUSTOM, DENY, ALLOW: an answer of the authorizer comes before those of the others, who see what it has set and what it did not.
#[tokio::test]
async fn other_policies_decide_about_what_the_authorizer_made_of_a_request() {
    for (other, expected) in [
        (with_header(Action::Allow, "x-user", "alice"), StatusCode::OK),
        (with_header(Action::Allow, "x-role", "admin"), StatusCode::FORBIDDEN),
        (with_header(Action::Deny, "x-user", "alice"), StatusCode::FORBIDDEN),
        (with_header(Action::Deny, "x-user", "root"), StatusCode::OK),
    ] {
        for is_captured in [true, false] {
            let at = application("app").await;
            let mesh = if is_captured { captured(at) } else { shop(at) };
            let mesh = with_authorizer(mesh, authorizer().await).policy(custom(provider(80)));
            let lab = Lab::new(mesh.policy(other.clone()), WorkerSettings::for_tests());
            let mut client = client(&lab, is_captured, at).await;
            let login = get(&mut client, "/login", &[]).await;
            assert_eq!(login.status, StatusCode::FOUND, "{other:?}");
            let preset = [("x-user", "root"), ("x-role", "admin")];
            let answer = get(&mut client, "/a", &preset).await;
            assert_eq!(answer.status, expected, "{is_captured} {other:?}: {}", answer.body);
            assert_eq!(answer.headers["set-cookie"], "seen=1", "with either answer");
            if expected == StatusCode::FORBIDDEN {
                assert_eq!(answer.body, "RBAC: access denied");
            }
        }
    }
}

#[tokio::test]
async fn who_cannot_be_asked_permits_nothing() {
    for is_captured in [true, false] {
        let at = authorizer().await;
        let (_lab, mut client) = lab(is_captured, provider(80), at).await;
        for path in ["/fail", "/hang"] {
            let start = Instant::now();
            let refused = get(&mut client, path, &[]).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
            assert_eq!(refused.body, "external authorization failed");
            assert!(start.elapsed() < Duration::from_secs(2), "{path}");
        }
        assert_eq!(get(&mut client, "/a", &[]).await.status, StatusCode::OK, "it goes on");
    }
}

#[tokio::test]
async fn fail_open_and_the_status_are_as_they_are_written() {
    let at = authorizer().await;
    let open = ExtAuthz { fail_open: true, ..provider(80) };
    let (lab_, mut client) = lab(true, open, at).await;
    assert_eq!(get(&mut client, "/fail", &[]).await.status, StatusCode::OK);
    assert_eq!(get(&mut client, "/hang", &[]).await.status, StatusCode::OK);
    assert_eq!(get(&mut client, "/deny", &[]).await.status, StatusCode::FORBIDDEN, "that is a no");
    assert_eq!(get(&mut client, "/huge", &[]).await.status, StatusCode::FORBIDDEN);
    let scraped = lab_.telemetry.scrape().unwrap();
    let sample = "isthmus_external_authorizations_total{outcome=\"failed_open\"} 2";
    assert!(scraped.contains(sample), "{scraped}");
    let written = ExtAuthz { status_on_error: 503, ..provider(80) };
    let (_lab, mut client) = lab(true, written, at).await;
    assert_eq!(get(&mut client, "/fail", &[]).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn an_authorizer_that_is_away_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    for port in [80, 81] {
        let (_lab, mut client) = lab(true, provider(port), nobody).await;
        let start = Instant::now();
        for _ in 0..50 {
            let refused = get(&mut client, "/a", &[]).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN);
        }
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

/// A host that drops packets, where nobody refuses a connection either: what listens there has no room for one.
#[tokio::test]
async fn an_authorizer_behind_a_black_hole_is_not_waited_for_each_time() {
    use socket2::{Domain, Socket, Type};
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.2:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let hole = full.local_addr().unwrap().as_socket().unwrap();
    let _waiting: Vec<_> = (0..4)
        .map(|_| {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            let _ = client.connect(&hole.into());
            client
        })
        .collect();
    let timeout = Duration::from_millis(200);
    let (_lab, mut client) = lab(true, ExtAuthz { timeout, ..provider(80) }, hole).await;
    for _ in 0..5 {
        assert_eq!(get(&mut client, "/a", &[]).await.status, StatusCode::FORBIDDEN);
    }
    let (start, turns) = (Instant::now(), 50);
    for _ in 0..turns {
        assert_eq!(get(&mut client, "/a", &[]).await.status, StatusCode::FORBIDDEN);
    }
    // One a second finds out.
    assert!(start.elapsed() < timeout * turns / 2, "{:?}", start.elapsed());
}

/// It would be asked about being asked.
#[tokio::test]
async fn an_authorizer_that_is_guarded_by_itself_answers_at_once() {
    let at = application("app").await;
    let itself = ExtAuthz {
        service: ProviderService::Host { namespace: None, hostname: HOST.into() },
        timeout: Duration::from_secs(60),
        ..provider(80)
    };
    let lab = Lab::new(captured(at).policy(custom(itself)), WorkerSettings::for_tests());
    let start = Instant::now();
    let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    let mut client = Client::http1(stream).await;
    assert_eq!(get(&mut client, "/a", &[]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(get(&mut client, "/open", &[]).await.status, StatusCode::OK);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[tokio::test]
async fn bodies_are_shown_within_their_limit_and_passed_on_whole() {
    for (is_captured, allow_partial) in [(true, false), (true, true), (false, false)] {
        let body = Some(CheckBody { max_bytes: 8, allow_partial, as_bytes: false });
        let limited = ExtAuthz { body, ..provider(80) };
        let (_lab, mut client) = lab(is_captured, limited, authorizer().await).await;
        let mut post = async |path: &str, body: &'static str| {
            let body = Bytes::from_static(body.as_bytes());
            client.exchange(Method::POST, path, &[], body).await.unwrap()
        };
        let good = post("/body", "good").await;
        assert_eq!(good.status, StatusCode::OK, "{}", good.body);
        assert!(good.body.ends_with("good"), "{}", good.body);
        let bad = post("/body", "bad").await;
        assert_eq!(bad.status, StatusCode::FORBIDDEN);
        assert!(bad.body.contains("x-envoy-auth-partial-body\": \"false\""), "{}", bad.body);
        let long = post("/a", "longer than the limit").await;
        let expected = if allow_partial { 200 } else { 413 };
        assert_eq!(long.status, expected, "{}", long.body);
        if allow_partial {
            assert!(long.body.ends_with("longer than the limit"), "{}", long.body);
            let shown = post("/body", "longer than the limit").await;
            assert!(shown.body.starts_with("b\"longer t\""), "{}", shown.body);
        }
    }
}

/// A megabyte and more than a connection's window, of which the authorizer sees a part.
#[tokio::test]
async fn a_big_body_passes_after_its_beginning_was_shown() {
    let body = Some(CheckBody { max_bytes: 300_000, allow_partial: true, as_bytes: false });
    let limited = ExtAuthz { body, ..provider(80) };
    let at = application("app").await;
    let mesh = with_authorizer(captured(at), authorizer().await).policy(custom(limited));
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    for version in [Version::Http1, Version::Http2] {
        let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
        let mut client = match version {
            Version::Http1 => Client::http1(stream).await,
            Version::Http2 => Client::http2(stream).await,
        };
        let big = Bytes::from(vec![b'x'; 1_500_000]);
        let passed = client.exchange(Method::POST, "/a", &[], big).await.unwrap();
        assert_eq!(passed.status, StatusCode::OK, "{}", &passed.body[..100.min(passed.body.len())]);
        assert_eq!(passed.body.bytes().rev().take_while(|byte| *byte == b'x').count(), 1_500_000);
    }
}

#[tokio::test]
async fn grpc_clients_get_a_status_of_grpc() {
    let at = application("app").await;
    let mesh = with_authorizer(captured(at), authorizer().await).policy(custom(provider(80)));
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    let mut client = Client::http2(stream).await;
    let headers = [("content-type", "application/grpc")];
    let denied = client.send(Method::POST, "/deny", &headers).await.unwrap();
    assert_eq!(denied.status, StatusCode::OK);
    assert_eq!(denied.headers["grpc-status"], "7");
}

/// There is nothing to ask about.
#[tokio::test]
async fn bytes_that_are_not_http_do_not_pass() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let at = application("app").await;
    let mesh = with_authorizer(captured(at), authorizer().await).policy(custom(provider(80)));
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let mut stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    stream.write_all(b"\x00binary\n").await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

/// Redirects and missing routes tell what a service has.
#[tokio::test]
async fn answers_of_the_mesh_are_heard_by_whom_the_authorizer_permits() {
    let at = application("app").await;
    let mut route = fixture::route("r", "echo", vec![fixture::rule(vec![])]);
    route.rules[0].matches =
        vec![HttpMatch { path: PathMatch::Exact("/a".into()), ..HttpMatch::default() }];
    let mesh = with_authorizer(shop(at), authorizer().await).policy(custom(provider(80)));
    let mesh = mesh.route(route);
    let published = mesh.mesh.clone();
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let mut client = client(&lab, false, at).await;
    assert_eq!(get(&mut client, "/nothing", &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(get(&mut client, "/deny", &[]).await.body, "denied by rule");
    // Then the other policies decide, about what the authorizer made of the request.
    for (user, status) in [("alice", StatusCode::NOT_FOUND), ("root", StatusCode::FORBIDDEN)] {
        let mut mesh = published.clone();
        mesh.policies.push(Arc::new(with_header(Action::Allow, "x-user", user)));
        lab.store.publish(mesh);
        let answer = get(&mut client, "/nothing", &[("x-user", "root")]).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert_eq!(get(&mut client, "/deny", &[]).await.body, "denied by rule");
    }
}

/// A field of a message of protobuf that has bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

/// An authorizer that speaks gRPC, and finds the path in what it is asked.
async fn grpc_authorizer() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = |request: Request<Incoming>| async move {
        assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let asked_for = |text: &[u8]| asked.windows(text.len()).any(|part| part == text);
        let header = field(1, &[field(1, b"x-user"), field(2, b"alice")].concat());
        // denied_response and ok_response.
        let message = match asked_for(b"/deny") {
            true => field(2, &field(3, b"denied by rule")),
            false => field(3, &field(2, &header)),
        };
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let framed = [&[0][..], &length, &message].concat();
        let status = if asked_for(b"/fail") { "14" } else { "0" };
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static(status),
        )]);
        let body = Full::<Bytes>::from(framed).with_trailers(async { Some(Ok(trailers)) });
        Ok::<_, Infallible>(Response::new(body))
    };
    tokio::spawn(async move {
        loop {
            let io = TokioIo::new(listener.accept().await.unwrap().0);
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(io, service_fn(answer)));
        }
    });
    address
}

#[tokio::test]
async fn an_authorizer_may_speak_grpc() {
    for is_captured in [true, false] {
        let over_grpc =
            ExtAuthz { protocol: CheckProtocol::Grpc { include_headers: vec![] }, ..provider(80) };
        let (_lab, mut client) = lab(is_captured, over_grpc, grpc_authorizer().await).await;
        for _ in 0..3 {
            let allowed = get(&mut client, "/a", &[("x-user", "root")]).await;
            assert_eq!(allowed.status, StatusCode::OK, "{}", allowed.body);
            assert!(allowed.body.contains("x-user: alice"), "{}", allowed.body);
            assert!(!allowed.body.contains("root"), "{}", allowed.body);
        }
        let denied = get(&mut client, "/deny", &[]).await;
        assert_eq!((denied.status, &*denied.body), (StatusCode::FORBIDDEN, "denied by rule"));
        let failed = get(&mut client, "/fail", &[]).await;
        assert_eq!(failed.body, "external authorization failed");
    }
}
