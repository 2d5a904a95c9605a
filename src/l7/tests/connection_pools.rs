//! `connectionPool` and `proxyProtocol` of DestinationRules, as applications see their connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::destination_rules::{limited, mesh};
use super::scripted::{Script, Step};
use super::support::*;
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::sock::{Connecting, PlainSockets, SocketFactory};
use crate::traffic::{HttpVersion, Keepalive, Limits, PerConnection, Pings, ProxyProtocol};

const LONG: Step = Step::Slow(Duration::from_secs(600));
const SHORT: Duration = Duration::from_millis(40);
const PATIENCE: Duration = Duration::from_secs(30);

fn lab(at: SocketAddr, limits: Limits) -> Lab {
    Lab::new(mesh(&[at], limited(limits)), WorkerSettings::for_tests())
}

fn per_connection(per_connection: PerConnection) -> Limits {
    Limits { per_connection, ..Limits::default() }
}

async fn client(lab: &Lab) -> Client {
    Client::http1(lab.dial("client", "echo").await).await
}

#[tokio::test]
async fn a_connection_that_rests_or_is_old_takes_no_further_request() {
    let rests = PerConnection { idle_timeout: Some(SHORT), ..PerConnection::default() };
    let ages = PerConnection { max_duration: Some(SHORT), ..PerConnection::default() };
    for (limits, expected) in [(rests, 2), (ages, 2), (PerConnection::default(), 1)] {
        for http2 in [false, true] {
            let (at, script) = Script::start(&[Step::Status(200)]).await;
            let lab = lab(at, per_connection(limits));
            let stream = lab.dial("client", "echo").await;
            let mut client = match http2 {
                true => Client::http2(stream).await,
                false => Client::http1(stream).await,
            };
            assert_eq!(client.get("/").await.status, StatusCode::OK);
            tokio::time::sleep(3 * SHORT).await;
            assert_eq!(client.get("/").await.status, StatusCode::OK);
            assert_eq!(script.connections(), expected, "{limits:?} {http2}");
        }
    }
}

#[tokio::test]
async fn a_connection_has_no_more_streams_than_the_policy_says() {
    for (max_streams, expected) in [(Some(1), 3), (Some(2), 2), (None, 1)] {
        let (at, script) = Script::start(&[Step::Status(200), LONG]).await;
        let limits = PerConnection { max_streams, ..PerConnection::default() };
        let lab = lab(at, per_connection(limits));
        let mut first = Client::http2(lab.dial("client", "echo").await).await;
        // The application has said what it takes.
        first.get("/").await;
        let mut all = tokio::task::JoinSet::new();
        for count in 2..=4 {
            let mut client = Client::http2(lab.dial("client", "echo").await).await;
            all.spawn(async move { client.get("/").await });
            script.wait_for(count).await;
        }
        assert_eq!(script.connections(), expected, "{max_streams:?}");
    }
}

#[tokio::test]
async fn the_policy_says_which_version_the_application_is_spoken_to_in() {
    use AppProtocol::{Detect, Http2};
    for (port, http_version, expected) in [
        (Detect, HttpVersion::OfPort, "app HTTP/1.1"),
        (Detect, HttpVersion::Http2, "app HTTP/2.0"),
        (Detect, HttpVersion::OfClient, "app HTTP/1.1"),
        (Http2, HttpVersion::OfPort, "app HTTP/2.0"),
        (Http2, HttpVersion::OfClient, "app HTTP/1.1"),
    ] {
        let limits = Limits { http_version, ..Limits::default() };
        let mut mesh = mesh(&[application("app").await], limited(limits));
        let mut service = Service::clone(&mesh.mesh.services[0]);
        service.ports[0].protocol = port;
        mesh.mesh.services[0] = Arc::new(service);
        let lab = Lab::new(mesh, WorkerSettings::for_tests());
        let answer = client(&lab).await.get("/").await;
        assert!(answer.body.starts_with(expected), "{port:?} {http_version:?}: {}", answer.body);
    }
}

#[tokio::test]
async fn an_upgrade_goes_over_http1_whatever_the_policy_says() {
    let limits = Limits { http_version: HttpVersion::Http2, ..Limits::default() };
    let lab = lab(application("app").await, limits);
    let mut stream = lab.dial("client", "echo").await;
    let asks = b"GET / HTTP/1.1\r\nhost: echo\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(asks).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
}

/// An application that accepted a stream and is gone since, without a word.
#[tokio::test]
async fn a_connection_whose_pings_nobody_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // SETTINGS without any.
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            held.push(stream);
        }
    });
    let pings = Some(Pings { interval: SHORT, timeout: SHORT });
    let limits = Limits { http_version: HttpVersion::Http2, ..Limits::default() };
    let limits = Limits { per_connection: PerConnection { pings, ..Default::default() }, ..limits };
    let lab = lab(at, limits);
    let mut client = client(&lab).await;
    let answer = tokio::time::timeout(PATIENCE, client.get("/")).await;
    assert_eq!(answer.expect("it waits for ever").status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn an_endpoint_outside_of_the_mesh_is_told_who_the_client_is() {
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        for bytes in [&b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n"[..], b"\x00\x01\x02 no http\r\n\r\n"]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let limits = Limits { proxy_protocol: Some(version), ..Limits::default() };
            let lab = lab(listener.local_addr().unwrap(), limits);
            let mut stream = lab.dial("client", "echo").await;
            stream.write_all(bytes).await.unwrap();
            let (mut accepted, _) = listener.accept().await.unwrap();
            let (from, to) = (stream.local_addr().unwrap(), listener.local_addr().unwrap());
            let expected = match version {
                ProxyProtocol::V1 => {
                    let (from, to) = (from.port(), to.port());
                    format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\n").into_bytes()
                }
                ProxyProtocol::V2 => {
                    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
                    header.extend([127, 0, 0, 1, 127, 0, 0, 1]);
                    header.extend(from.port().to_be_bytes());
                    header.extend(to.port().to_be_bytes());
                    header
                }
            };
            let mut read = vec![0; expected.len() + 3];
            accepted.read_exact(&mut read).await.unwrap();
            assert_eq!(read[..expected.len()], expected);
            assert_eq!(read[expected.len()..], bytes[..3], "what the client sent follows");
        }
    }
}

/// Bytes that are not HTTP, to an endpoint that returns them.
#[tokio::test]
async fn connections_of_bytes_end_by_age_and_by_silence() {
    let aged = Limits { max_duration: Some(8 * SHORT), ..Limits::default() };
    let rested = Limits { idle_timeout: Some(8 * SHORT), ..Limits::default() };
    for (limits, flag) in [(aged, "DT"), (rested, "SI")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = stream.split();
            _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let lab = lab(at, limits);
        let mut stream = lab.dial("client", "echo").await;
        stream.write_all(b"\x00\x01\x02 no http\r\n\r\n").await.unwrap();
        let mut first = [0; 5];
        stream.read_exact(&mut first).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "it is not closed: {flag}");
        let label = format!("response_flags=\"{flag}\"");
        let counted = || lab.telemetry.scrape().unwrap().contains(&label);
        for _ in 0..1000 {
            if counted() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let scraped = lab.telemetry.scrape().unwrap();
        assert!(scraped.contains(&label), "{scraped}");
    }
}

/// A listener whose queue is full: it answers no SYN any more.
#[tokio::test]
async fn a_connection_that_does_not_come_in_time_is_given_up() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let at = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(at)).await
    {
        held.push(connected.unwrap());
        assert!(held.len() < 100, "the queue does not fill");
    }
    // The agent itself would wait for longer than the test does.
    let limits = Limits { connect_timeout: Some(SHORT), ..Limits::default() };
    let lab = Lab::patient(mesh(&[at], limited(limits)), Duration::from_secs(3600));
    let mut client = client(&lab).await;
    let answer = tokio::time::timeout(PATIENCE, client.get("/")).await;
    assert_eq!(answer.expect("it waits").status, StatusCode::SERVICE_UNAVAILABLE);
}

/// Sockets whose options are looked at later.
#[derive(Default)]
struct Watched(parking_lot::Mutex<Vec<OwnedFd>>);

impl Connecting for Watched {
    fn socket(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpSocket> {
        let socket = PlainSockets.socket(to, from)?;
        self.0.lock().push(socket.as_fd().try_clone_to_owned()?);
        Ok(socket)
    }
}

#[tokio::test]
async fn keepalive_is_set_on_the_connection() {
    let seconds = |it: u64| Some(Duration::from_secs(it));
    let keepalive = Keepalive { probes: Some(3), time: seconds(77), interval: seconds(11) };
    let limits = Limits { keepalive: Some(keepalive), ..Limits::default() };
    let lab = lab(application("app").await, limits);
    let sockets = Arc::new(Watched::default());
    let mut client = Client::http1(lab.dial_with("client", "echo", sockets.clone()).await).await;
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    let held = sockets.0.lock();
    let socket = socket2::SockRef::from(&held[0]);
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(77));
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(11));
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
}
