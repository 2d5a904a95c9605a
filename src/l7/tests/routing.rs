//! The client's half.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::support::*;
use crate::filter::{HeaderFilter, HttpFilter, RequestHeaders, ResponseHeaders};
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::world::fixture::{self, Fixture, backend as to, key, policy};

fn settings() -> WorkerSettings {
    WorkerSettings::for_tests()
}

fn rule(path: &str, filters: Vec<HttpFilter>, backends: Vec<Backend>) -> HttpRule {
    let path = PathMatch::Prefix(path.into());
    let matches = vec![HttpMatch { path, ..HttpMatch::default() }];
    HttpRule { matches, filters, ..fixture::rule(backends) }
}

fn route(rules: Vec<HttpRule>) -> HttpRoute {
    fixture::route("routes", "echo", rules)
}

/// Two versions behind the service `echo`.
async fn versions() -> Fixture {
    let (one, two) = (application("one").await, application("two").await);
    let (first, second) = (outsider("one", one), outsider("two", two));
    shop(one)
        .service(bound("one", "10.96.0.2", &first, one))
        .service(bound("two", "10.96.0.3", &second, two))
        .workload(first)
        .workload(second)
}

#[tokio::test]
async fn forwards_without_routes() {
    let lab = Lab::new(shop(application("app").await), settings());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    let answer = client.get("/a?b=c").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.body.starts_with("app HTTP/1.1 GET /a?b=c\n"), "{}", answer.body);
    assert!(answer.body.contains("host: echo\n"), "{}", answer.body);
    assert!(answer.body.contains("x-request-id: "), "{}", answer.body);
    assert_eq!(client.get("/again").await.status, StatusCode::OK);
    let labels = ["response_code=\"200\"", "destination_service_name=\"echo\""];
    assert_eq!(lab.requests(&labels), 2);
}

#[tokio::test]
async fn speaks_http2_to_both_sides() {
    let lab = Lab::new(shop(application("app").await), settings());
    let mut client = Client::http2(lab.dial("client", "echo").await).await;
    let answer = client.get("/a").await;
    assert!(answer.body.starts_with("app HTTP/2.0 GET http://echo/a\n"), "{}", answer.body);
}

#[tokio::test]
async fn a_port_may_demand_http2_of_the_application() {
    let mut mesh = shop(application("app").await);
    let mut service = mesh.mesh.services[0].as_ref().clone();
    service.ports[0].protocol = AppProtocol::Http2;
    mesh.mesh.services[0] = service.into();
    let lab = Lab::new(mesh, settings());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    let answer = client.get("/a").await;
    assert!(answer.body.starts_with("app HTTP/2.0 GET http://echo/a\n"), "{}", answer.body);
}

#[tokio::test]
async fn bodies_pass_and_are_counted() {
    let lab = Lab::new(shop(application("app").await), settings());
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let mut first = Client::http1(lab.dial("client", "echo").await).await;
    let mut second = Client::http2(lab.dial("client", "echo").await).await;
    for client in [&mut first, &mut second] {
        let answer = client.exchange(Method::POST, "/", &[], body.clone()).await.unwrap();
        assert!(answer.body.matches('x').count() >= body.len());
        let head = client.send(Method::HEAD, "/", &[]).await.unwrap();
        assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
    }
    let scraped = lab.telemetry.scrape().unwrap();
    let sum = scraped.lines().find(|line| line.starts_with("istio_request_bytes_sum{")).unwrap();
    assert!(sum.ends_with(&format!(" {}.0", 2 << 20)), "{sum}");
}

#[tokio::test]
async fn a_connection_that_the_application_closed_is_made_anew() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
    });
    let lab = Lab::new(shop(at), settings());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    for _ in 0..2 {
        assert_eq!(client.get("/").await.body, "ok");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.await.unwrap();
}

#[tokio::test]
async fn what_may_have_reached_the_application_is_not_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lab = Lab::new(shop(listener.local_addr().unwrap()), settings());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        drop(stream);
        let again = tokio::time::timeout(Duration::from_millis(100), listener.accept());
        assert!(again.await.is_err(), "the request came a second time");
    };
    let (answer, ()) = tokio::join!(client.get("/"), server);
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(lab.requests(&["response_flags=\"UC\""]), 1);
}

#[tokio::test]
async fn splits_by_weight_and_filters() {
    let header = |name: &'static str, value: &'static str| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    let filters = vec![
        HttpFilter::RequestHeaders(RequestHeaders(HeaderFilter {
            set: vec![header("x-set", "1")],
            remove: vec![HeaderName::from_static("x-gone")],
            ..HeaderFilter::default()
        })),
        HttpFilter::ResponseHeaders(ResponseHeaders(HeaderFilter {
            add: vec![header("x-response", "1")],
            ..HeaderFilter::default()
        })),
    ];
    let rules = vec![rule("/", filters, vec![to("one", 90), to("two", 10)])];
    let lab = Lab::new(versions().await.route(route(rules)), settings());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    let mut counts = [0, 0];
    for _ in 0..100 {
        let headers = [("x-gone", "1"), ("x-isthmus-original", "forged")];
        let answer = client.send(Method::GET, "/", &headers).await.unwrap();
        counts[usize::from(answer.body.starts_with("two"))] += 1;
        assert!(answer.body.contains("x-set: 1\n"), "{}", answer.body);
        assert!(!answer.body.contains("x-gone"), "{}", answer.body);
        assert!(!answer.body.contains("x-isthmus"), "{}", answer.body);
        assert_eq!(answer.headers["x-response"], "1");
    }
    assert_eq!(counts, [90, 10]);
}

#[tokio::test]
async fn answers_itself_where_nothing_takes_the_request() {
    let broken = BackendRef::Invalid { status: StatusCode::INTERNAL_SERVER_ERROR, why: "x".into() };
    let rules = vec![
        rule("/one", vec![], vec![to("one", 1)]),
        rule("/none", vec![], vec![]),
        rule("/broken", vec![], vec![Backend { target: broken, ..to("one", 1) }]),
        rule("/empty", vec![], vec![to("empty", 1)]),
    ];
    let mesh = versions().await.route(route(rules));
    let mut empty = mesh.mesh.services[0].as_ref().clone();
    empty.key = key("empty");
    empty.endpoints.clear();
    let lab = Lab::new(mesh.service(empty), settings());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    for (path, status) in
        [("/one", 200), ("/other", 404), ("/none", 500), ("/broken", 500), ("/empty", 503)]
    {
        assert_eq!(client.get(path).await.status, status, "{path}");
    }
    let mut second = Client::http2(lab.dial("client", "echo").await).await;
    for client in [&mut client, &mut second] {
        let head = client.send(Method::HEAD, "/other", &[]).await.unwrap();
        assert_eq!((head.status.as_u16(), head.body.as_str()), (404, ""));
    }
    let grpc = [("content-type", "application/grpc")];
    let answer = client.send(Method::POST, "/other", &grpc).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["grpc-status"], "12");
}

#[tokio::test]
async fn judges_for_destinations_outside_of_the_mesh() {
    let get = Operation {
        methods: Values { any: vec![StringMatch::Exact("GET".into())], none: vec![] },
        ..Operation::default()
    };
    let rules = vec![Rule { to: vec![get], ..Rule::default() }];
    let scope = Scope::Targets(vec![PolicyTarget::Service("echo".into())]);
    let allow = policy("get-only", Action::Allow, scope, rules);
    let lab = Lab::new(shop(application("app").await).policy(allow), settings());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    let answer = client.send(Method::DELETE, "/", &[]).await.unwrap();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::FORBIDDEN, "RBAC: access denied")
    );
}

/// Of requests and of bytes, of what passes and of what is refused.
#[tokio::test]
async fn notes_of_policies_for_destinations_outside_of_the_mesh_are_counted() {
    let scope = || Scope::Targets(vec![PolicyTarget::Service("echo".into())]);
    let audit = policy("audit", Action::Audit, scope(), vec![Rule::default()]);
    let get = Operation {
        methods: Values { any: vec![StringMatch::Exact("GET".into())], none: vec![] },
        ..Operation::default()
    };
    let allow =
        policy("get", Action::Allow, scope(), vec![Rule { to: vec![get], ..Rule::default() }]);
    let shop = shop(application("app").await).policy(audit).policy(allow);
    let lab = Lab::new(shop, settings());
    let counted = || {
        let scraped = lab.telemetry.scrape().unwrap();
        let count = scraped.lines().find(|it| it.starts_with("isthmus_policy_notes_total{"));
        count.map(|line| {
            assert!(line.contains("policy_name=\"audit\",effect=\"audit\""), "{line}");
            line.rsplit(' ').next().unwrap().to_owned()
        })
    };
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    let refused = client.send(Method::DELETE, "/", &[]).await.unwrap();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    drop(client);
    let mut bytes = lab.dial("client", "echo").await;
    bytes.write_all(b"\x00\x01 no HTTP\r\n\r\n").await.unwrap();
    // The policy on methods refuses what has none.
    assert_eq!(bytes.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let all = async {
        while counted().as_deref() != Some("3") {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), all).await.is_ok(), "{:?}", counted());
}

#[tokio::test]
async fn tries_another_endpoint_when_one_refuses() {
    let good = application("good").await;
    let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut mesh = shop(good);
    let gone = outsider("gone", refusing);
    let mut service = mesh.mesh.services[0].as_ref().clone();
    service.endpoints.push(Endpoint {
        workload: Some(gone.uid.clone()),
        addresses: gone.addresses.clone(),
        name: None,
        hostname: None,
        weight: 1,
        ports: vec![PortMapping { port: 80, target: refusing.port() }],
        ready: true,
        terminating: false,
        node: gone.node.clone(),
        locality: gone.locality.clone(),
        subsets: Default::default(),
        labels: gone.labels.clone(),
    });
    mesh.mesh.services[0] = service.into();
    let lab = Lab::new(mesh.workload(gone), settings());
    for _ in 0..20 {
        let mut client = Client::http1(lab.dial("client", "echo").await).await;
        assert_eq!(client.get("/").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn carries_what_is_not_http_and_servers_that_speak_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lab = Lab::new(shop(listener.local_addr().unwrap()), settings());
    for first in [&b""[..], b"\x00\x01binary\n"] {
        let mut client = lab.dial("client", "echo").await;
        client.write_all(first).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"hello\n").await.unwrap();
        let mut greeting = [0; 6];
        client.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"hello\n");
        client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, first);
        // The other direction goes on after a half-close.
        server.write_all(b"bye").await.unwrap();
        drop(server);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"bye");
    }
}

#[tokio::test]
async fn upgrades_become_bytes() {
    let lab = Lab::new(shop(application("app").await), settings());
    let mut client = lab.dial("client", "echo").await;
    let request = "GET /chat HTTP/1.1\r\nHost: echo\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nearly";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("upgrade: websocket\r\n"), "{head}");
    client.write_all(b" and late").await.unwrap();
    client.shutdown().await.unwrap();
    let mut echoed = String::new();
    client.read_to_string(&mut echoed).await.unwrap();
    assert_eq!(echoed, "early and late");
}

#[tokio::test]
async fn pipelined_requests_and_nonsense_are_answered_in_order() {
    let lab = Lab::new(shop(application("app").await), settings());
    let mut client = lab.dial("client", "echo").await;
    let requests = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\nnonsense\r\n\r\n";
    client.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    let codes = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]);
    let codes: Vec<u16> = codes.filter_map(|code| code.parse().ok()).collect();
    assert_eq!(codes, [200, 400, 400], "{answers}");
}
