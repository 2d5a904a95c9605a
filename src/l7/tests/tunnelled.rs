//! Both halves with a real tunnel between them: two agents, one authority, mutual TLS on loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::{Method, StatusCode};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::destination::{captured, gets_of_the_client, moving, rewriting};
use super::raw;
use super::support::*;
use crate::base::{Identity, ports};
use crate::identity;
use crate::l7::{WorkerSettings, Workers};
use crate::model::Workload;
use crate::sock::PlainSockets;
use crate::tunnel::{self, GuardedConnection, Incoming, Waypoints};
use crate::world::fixture::{self, Fixture, identity};

/// Two agents of one mesh.
struct Mesh {
    client: Lab,
    server: Lab,
    _authority: TempDir,
}

impl Mesh {
    /// `proves`: who the server's agent says it is.
    async fn new(mesh: impl Fn() -> Fixture, at: SocketAddr, proves: &str) -> Self {
        let authority = tempfile::tempdir().unwrap();
        let lab = || Lab::with_authority(mesh(), WorkerSettings::for_tests(), authority.path());
        let (client, server) = (lab(), lab());
        let listener = TcpListener::bind((at.ip(), ports::HBONE)).await.unwrap();
        let certificate = server.certificates.certificate(&identity(proves)).await.unwrap();
        let acceptor = TlsAcceptor::from(certificate.server_config());
        let uid = fixture::workload("echo", "127.0.0.1").uid;
        let workload = server.world().workload(&uid).unwrap().clone();
        tokio::spawn(listen(listener, acceptor, server.workers.clone(), workload));
        Self { client, server, _authority: authority }
    }
}

/// What layer 4 does with a tunnel whose connections need a worker.
async fn listen(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    workers: Arc<Workers>,
    workload: Arc<Workload>,
) {
    loop {
        let (stream, peer) = listener.accept().await.unwrap();
        let Ok(tls) = acceptor.accept(stream).await else { continue };
        let client = identity::peer_identity(tls.get_ref().1).unwrap();
        let (workers, workload) = (workers.clone(), workload.clone());
        let handler = move |incoming| guard(&workers, &workload, &client, peer, incoming);
        tokio::spawn(async move {
            tunnel::serve(tls, CancellationToken::new(), &crate::base::Room::boundless(), handler)
                .await
                .unwrap();
        });
    }
}

fn guard(
    workers: &Arc<Workers>,
    workload: &Arc<Workload>,
    client: &Identity,
    peer: SocketAddr,
    incoming: Incoming,
) {
    let (address, port) = tunnel::parse_authority(&incoming.request.authority).unwrap();
    let forwarded_host = incoming.request.forwarded_host.clone();
    assert!(incoming.request.baggage.as_deref().unwrap().contains("k8s.namespace.name=shop"));
    let connection = GuardedConnection {
        stream: incoming.accept(None).unwrap(),
        workload: workload.clone(),
        client: Some(client.clone()),
        client_address: peer,
        destination: SocketAddr::new(address, port),
        forwarded_host,
        baggage: None,
        borrow: None,
        sockets: Arc::new(PlainSockets),
        place: Default::default(),
        cut: tunnel::Cut::with_workload(&CancellationToken::new()),
    };
    workers.guard(&"shop".into(), connection);
}

/// A loopback address of our own, because port 15008 is everybody's.
fn address() -> IpAddr {
    let byte = || fastrand::u8(1..255);
    Ipv4Addr::new(127, byte(), byte(), byte()).into()
}

#[tokio::test]
async fn routes_here_and_judges_there() {
    let at = application_at("app", SocketAddr::new(address(), 0)).await;
    let mesh = Mesh::new(|| captured(at).policy(gets_of_the_client()), at, "echo").await;
    for http2 in [false, true] {
        let stream = mesh.client.dial("client", "echo").await;
        let mut client = match http2 {
            true => Client::http2(stream).await,
            false => Client::http1(stream).await,
        };
        for (method, status) in
            [(Method::GET, StatusCode::OK), (Method::DELETE, StatusCode::FORBIDDEN)]
        {
            let answer = client.send(method, "/", &[]).await.unwrap();
            assert_eq!(answer.status, status, "{}", answer.body);
        }
    }
    let proven = "destination_principal=\"spiffe://cluster.local/ns/shop/sa/echo\"";
    let mutual = "connection_security_policy=\"mutual_tls\"";
    for code in ["200", "403"] {
        let code = format!("response_code=\"{code}\"");
        assert_eq!(mesh.client.requests(&[&code, proven, mutual]), 2, "{code}");
        assert_eq!(mesh.server.requests(&[&code]), 0, "one half counts");
    }
}

#[tokio::test]
async fn policies_see_what_the_client_sent_and_the_application_what_the_route_made_of_it() {
    let at = application_at("app", SocketAddr::new(address(), 0)).await;
    let mesh = Mesh::new(|| rewriting(at), at, "echo").await;
    let mut client = Client::http1(mesh.client.dial("client", "echo").await).await;
    for (user, status) in [("ada", 200), ("eve", 403)] {
        let answer = client.send(Method::GET, "/", &[("x-user", user)]).await.unwrap();
        assert_eq!(answer.status, status, "{user}");
        if status == 200 {
            assert!(answer.body.contains("x-role: user\n"), "{}", answer.body);
            assert!(!answer.body.contains("x-user"), "{}", answer.body);
            assert!(!answer.body.contains("x-isthmus"), "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn policies_see_the_path_that_the_client_sent() {
    let at = application_at("app", SocketAddr::new(address(), 0)).await;
    let mesh = Mesh::new(|| moving(at), at, "echo").await;
    for http2 in [false, true] {
        let stream = mesh.client.dial("client", "echo").await;
        let mut client = match http2 {
            true => Client::http2(stream).await,
            false => Client::http1(stream).await,
        };
        let moved = client.get("/admin/a?b").await;
        assert_eq!(moved.status, StatusCode::OK, "{}", moved.body);
        let first = moved.body.lines().next().unwrap();
        assert!(first.ends_with("/public/a?b"), "{first}");
        assert!(moved.body.contains("inner.org"), "{}", moved.body);
        assert!(!moved.body.contains("x-isthmus"), "{}", moved.body);
        assert_eq!(client.get("/public/a").await.status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn bytes_and_upgrades_pass_through_both_halves() {
    let listener = TcpListener::bind((address(), 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let mesh = Mesh::new(|| captured(at), at, "echo").await;
    let mut client: TcpStream = mesh.client.dial("client", "echo").await;
    client.write_all(b"\x00bytes\n").await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut read = [0; 7];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"\x00bytes\n");

    let mut client = mesh.client.dial("client", "echo").await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(server.read_u8().await.unwrap());
    }
    let answer =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\nhi";
    server.write_all(answer.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\nhi") {
        head.push(client.read_u8().await.unwrap());
    }
    client.write_all(b"there").await.unwrap();
    let mut read = [0; 5];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"there");
}

#[tokio::test]
async fn another_server_than_expected_gets_nothing() {
    let at = application_at("app", SocketAddr::new(address(), 0)).await;
    let mesh = Mesh::new(|| captured(at), at, "impostor").await;
    let mut client = Client::http1(mesh.client.dial("client", "echo").await).await;
    let answer = client.get("/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(mesh.client.requests(&["response_flags=\"TLS_FAILURE\""]), 1);
}

/// What is said before a response, and how names are written, goes through both halves.
#[tokio::test]
async fn both_halves_pass_http_on_as_it_came() {
    let (listener, at) = loop {
        // The address is chosen by chance, and may be one that nobody can have.
        if let Ok(listener) = TcpListener::bind((address(), 0)).await {
            let at = listener.local_addr().unwrap();
            break (listener, at);
        }
    };
    let mesh = Mesh::new(|| captured(at), at, "echo").await;
    let mut client = mesh.client.dial("client", "echo").await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nX-CaSe: 1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut application = raw::accept(&listener).await;
    let came = raw::head(&mut application).await;
    assert!(came.contains("X-CaSe: 1\r\n") && came.contains("Expect: 100-continue\r\n"), "{came}");
    assert!(raw::is_silent(&mut client).await);
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    application.write_all(hints.as_bytes()).await.unwrap();
    assert_eq!(raw::head(&mut client).await, hints);
    application.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
    assert_eq!(raw::head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"hi").await.unwrap();
    assert_eq!(raw::read(&mut application, 2).await, "hi");
    let answer = "HTTP/1.1 201 Made\r\nX-PoD: p\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n\
                  0\r\n\r\n";
    application.write_all(answer.as_bytes()).await.unwrap();
    let got = raw::head(&mut client).await;
    assert!(got.starts_with("HTTP/1.1 201 Made\r\nX-PoD: p\r\n"), "{got}");
    assert!(!got.to_ascii_lowercase().contains("content-length"), "{got}");
    assert_eq!(raw::read(&mut client, 15).await, "5\r\nhello\r\n0\r\n\r\n");
}

/// The destination refuses before the body, and the client hears it through both halves.
#[tokio::test]
async fn the_destination_refuses_before_the_body() {
    let at = application_at("app", SocketAddr::new(address(), 0)).await;
    let mesh = Mesh::new(|| captured(at).policy(gets_of_the_client()), at, "echo").await;
    let mut client = mesh.client.dial("client", "echo").await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let got = raw::rest(&mut client).await;
    assert!(got.starts_with("HTTP/1.1 403 "), "{got}");
    assert!(got.to_ascii_lowercase().contains("connection: close\r\n"), "{got}");
}

/// The client's half adds fields to a request that has as many as it may have, and the other half does not mind.
#[tokio::test]
async fn a_request_with_as_many_fields_as_it_may_have_passes_both_halves() {
    let (listener, at) = loop {
        if let Ok(listener) = TcpListener::bind((address(), 0)).await {
            let at = listener.local_addr().unwrap();
            break (listener, at);
        }
    };
    let mesh = Mesh::new(|| captured(at).policy(gets_of_the_client()), at, "echo").await;
    let mut client = mesh.client.dial("client", "echo").await;
    let fields: String = (0..99).map(|number| format!("X-{number}: v\r\n")).collect();
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut application = raw::accept(&listener).await;
    let came = raw::head(&mut application).await;
    assert!(came.contains("X-98: v\r\n") && came.contains("x-request-id: "), "{came}");
    application.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    assert!(raw::head(&mut client).await.starts_with("HTTP/1.1 200 "));
    // Nor does the client's half mind what the other one adds to a response.
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    raw::head(&mut application).await;
    let fields: String = (0..100).map(|number| format!("X-{number}: v\r\n")).collect();
    let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\nto the end");
    application.write_all(answer.as_bytes()).await.unwrap();
    drop(application);
    let got = raw::head(&mut client).await;
    assert!(got.starts_with("HTTP/1.1 200 ") && got.contains("X-99: v\r\n"), "{got}");
}
