//! Budgets, panics, drain: what one worker may not do to others, or to itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use super::support::*;
use crate::l7::WorkerSettings;
use crate::sock::SocketFactory;

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
