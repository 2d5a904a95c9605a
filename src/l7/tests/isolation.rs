//! Budgets, panics, drain: what one worker may not do to others, or to itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use super::support::*;
use crate::l7::worker::{Job, Worker};
use crate::l7::{Halves, WorkerSettings};
use crate::sock::{PlainSockets, SocketFactory};
use crate::telemetry::ConnectionStart;
use crate::world::fixture::workload;

#[tokio::test]
async fn requests_beyond_the_budget_are_answered_at_once() {
    let settings = WorkerSettings { max_requests: 0, ..WorkerSettings::for_tests() };
    let lab = Lab::new(shop(application("app").await), settings);
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    let answer = client.get("/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.body, "upstream overflow");
}

#[tokio::test]
async fn connections_beyond_the_budget_are_closed() {
    let settings = WorkerSettings { max_connections: 1, ..WorkerSettings::for_tests() };
    let lab = Lab::new(shop(application("app").await), settings);
    let mut first = Client::http1(lab.dial("client", "echo").await).await;
    assert_eq!(first.get("/").await.status, StatusCode::OK);
    let mut second = lab.dial("client", "echo").await;
    assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0);
    drop(first);
    for attempt in 0.. {
        let mut third = lab.dial("client", "echo").await;
        _ = third.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let mut answer = String::new();
        _ = third.read_to_string(&mut answer).await;
        if answer.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(attempt < 100, "the place was not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Looks until it is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn one_client_leaves_places_to_others() {
    let settings = WorkerSettings { max_connections: 10, ..WorkerSettings::for_tests() };
    let lab = Lab::new(shop(application("app").await), settings);
    let address = application("other").await;
    // From one address without an identity, silently: 64 % of ten.
    let mut greedy = Vec::new();
    for _ in 0..20 {
        greedy.push(lab.arrive("client", address, None, None).await);
    }
    let held = lab.workers.health()[0].connections;
    assert!(held <= 6, "one client holds {held} of 10");
    let mut other = Client::http1(lab.dial("client", "echo").await).await;
    assert_eq!(other.get("/").await.status, StatusCode::OK);
    drop(greedy);
}

/// By the order in which connections begin, as one thread runs them.
#[tokio::test]
async fn hundreds_of_connections_of_a_client_do_not_delay_the_next_of_another() {
    let settings = WorkerSettings {
        max_connections: 1_000,
        max_requests: 1_000,
        max_buffered_bytes: 1 << 30,
        ..WorkerSettings::for_tests()
    };
    let mesh = shop(application("app").await).workload(workload("other", "127.0.0.8"));
    let lab = Lab::new(mesh, settings);
    let dependencies = &lab.workers.dependencies;
    let halves = Halves::new(dependencies);
    let (worker, run) = Worker::idle("shop".into(), dependencies.clone(), halves);
    let mut held = Vec::new();
    for (client, count) in [("other", 1), ("client", 300), ("other", 1)] {
        for _ in 0..count {
            let (mut ours, job) = lab.routed(client, "echo", Arc::new(PlainSockets)).await;
            ours.write_all(b"GET / HTTP/1.1\r\nHost: echo\r\n\r\n").await.unwrap();
            assert!(worker.offer(Job::Route(Box::new(job))).is_ok());
            held.push(ours);
        }
    }
    tokio::spawn(run);
    let begun = |client: &str| {
        let name = format!("/sa/{client}");
        let its = |start: &ConnectionStart| start.source.principal.ends_with(&name);
        lab.telemetry.open_connections(its).len()
    };
    while begun("other") < 2 {
        tokio::task::yield_now().await;
    }
    assert!(begun("client") < 100, "{} begin before the other's next", begun("client"));
    while begun("client") < 300 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_idlest_connection_of_a_client_gives_way_to_its_next() {
    let settings = WorkerSettings { max_connections: 20, ..WorkerSettings::for_tests() };
    let lab = Lab::new(shop(application("app").await), settings);
    let mut kept = Vec::new();
    for number in 0..60 {
        let mut next = Client::http1(lab.dial("client", "echo").await).await;
        assert_eq!(next.get("/").await.status, StatusCode::OK, "connection {number}");
        kept.push(next);
        // 64 % of 20; whoever was told to leave does so before the next one comes.
        until("nobody gives way", || lab.workers.health()[0].connections < 12).await;
    }
    let mut last = kept.pop().unwrap();
    assert_eq!(last.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_window_is_reserved_while_it_can_be_filled() {
    let lab = Lab::new(shop(application("app").await), WorkerSettings::for_tests());
    let is = |kilobytes: usize| {
        let lab = &lab;
        move || lab.workers.health()[0].buffered_bytes == kilobytes * 1024
    };
    let mut client = Client::http2(lab.dial("client", "echo").await).await;
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    // Both connections are idle: what each reads ahead and writes, and HPACK's tables.
    let idle = 120 + 40;
    until("idle connections reserve little", is(2 * idle)).await;
    let mut raw = lab.dial("client", "echo").await;
    let block = [&[0x83, 0x86, 0x84, 0x01, 4][..], b"echo"].concat();
    let head = [&[0, 0, block.len() as u8, 1, 4, 0, 0, 0, 1][..], &block].concat();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    raw.write_all(&[&greeting[..], &settings, &head].concat()).await.unwrap();
    // Its connection's, the window of a stream whose body does not end, and the request's own.
    // And the window of the response's stream.
    let more = idle + 128 + 2 * 16 + 3 * 4 + 128;
    until("a stream's window is reserved", is(2 * idle + more)).await;
    drop(raw);
    until("all is given back", is(2 * idle)).await;
}

#[tokio::test]
async fn heads_that_do_not_end_are_given_up() {
    let head_timeout = Duration::from_secs(1);
    let settings = WorkerSettings { head_timeout, ..WorkerSettings::for_tests() };
    let lab = Lab::new(shop(application("app").await), settings);
    let mut slow = lab.dial("client", "echo").await;
    slow.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    let mut kept = Client::http1(lab.dial("client", "echo").await).await;
    assert_eq!(kept.get("/").await.status, StatusCode::OK);
    let mut end = [0; 1];
    let ended = tokio::time::timeout(Duration::from_secs(5), slow.read(&mut end));
    assert_eq!(ended.await.unwrap().unwrap_or(0), 0);
    assert_eq!(kept.get("/").await.status, StatusCode::OK, "between requests there is time");
}

#[tokio::test]
async fn a_flood_of_frames_ends_the_connection() {
    let lab = Lab::new(shop(application("app").await), WorkerSettings::for_tests());
    let mut raw = lab.dial("client", "echo").await;
    let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    raw.write_all(greeting).await.unwrap();
    let pings = b"\0\0\x08\x06\x01\0\0\0\0abcdefgh".repeat(100);
    let flood = async { while raw.write_all(&pings).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(10), flood).await.expect("it is still listened to");
    let mut other = Client::http1(lab.dial("client", "echo").await).await;
    assert_eq!(other.get("/").await.status, StatusCode::OK);
}

/// Stands for whatever may panic while a request is served.
struct Panicking;

impl SocketFactory for Panicking {
    fn listen(&self, _: SocketAddr) -> io::Result<TcpListener> {
        panic!("provoked")
    }

    fn listen_shared(&self, _: SocketAddr) -> io::Result<TcpListener> {
        panic!("provoked")
    }

    fn datagrams(&self, _: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
        panic!("provoked")
    }

    fn socket(&self, _: SocketAddr, _: Option<IpAddr>) -> io::Result<TcpSocket> {
        panic!("provoked")
    }
}

#[tokio::test]
async fn a_panic_ends_one_connection_only() {
    let lab = Lab::new(shop(application("app").await), WorkerSettings::for_tests());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    // HTTP/2, so that nothing rests that the other could use.
    let stream = lab.dial_with("client", "echo", Arc::new(Panicking)).await;
    let mut unlucky = Client::http2(stream).await;
    assert!(unlucky.send(Method::GET, "/", &[]).await.is_err());
    assert_eq!(client.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn drains_after_what_is_in_flight() {
    let lab = Lab::new(shop(application("app").await), WorkerSettings::for_tests());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    let mut silent = lab.dial("client", "echo").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    lab.workers.shutdown(Duration::from_secs(5)).await;
    assert!(client.send(Method::GET, "/", &[]).await.is_err(), "the connection is closed");
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let mut late = lab.dial("client", "echo").await;
    assert_eq!(late.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_namespace_without_waypoint_loses_its_worker() {
    let lab = Lab::new(shop(application("app").await), WorkerSettings::for_tests());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    lab.workers.retain(&|namespace| namespace == "shop");
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    lab.workers.retain(&|_| false);
    assert!(lab.workers.current.load().is_empty());
    let worker = lab.workers.changing.lock().leaving[0].clone();
    drop(client);
    tokio::time::timeout(Duration::from_secs(5), worker.finished()).await.unwrap();
}

#[test]
fn a_worker_runs_on_several_threads_when_told() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let settings = WorkerSettings { threads: 2, ..WorkerSettings::for_tests() };
        let lab = Lab::new(shop(application("app").await), settings);
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(Client::http1(lab.dial("client", "echo").await).await);
        }
        for client in &mut clients {
            assert_eq!(client.get("/").await.status, StatusCode::OK);
        }
    });
}
