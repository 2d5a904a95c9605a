//! Concurrency limits and priorities, with requests that an application works on for as long as a test wants.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::destination::captured;
use super::scripted::{Script, Step};
use super::support::*;
use super::traffic::{HOST, filters, with};
use crate::base::Identity;
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::traffic::{Balancer, Policy};
use crate::world::fixture::{self, backend as to};

/// An application that answers `/slow` when it is let go, and anything else at once.
struct Slow {
    at: SocketAddr,
    go: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Slow {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (go, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let (gate, count) = (go.clone(), waiting.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (gate, count) = (gate.clone(), count.clone());
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (gate, count) = (gate.clone(), count.clone());
                    async move {
                        if request.uri().path() == "/slow" {
                            let _here = Waiting::of(&count);
                            gate.acquire().await.unwrap().forget();
                        }
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("ok"))))
                    }
                });
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { at, go, waiting }
    }

    async fn until_waiting(&self, count: usize) {
        let are_there = async {
            while self.waiting.load(Ordering::SeqCst) != count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), are_there).await;
        let waiting = self.waiting.load(Ordering::SeqCst);
        assert!(waited.is_ok(), "{waiting} instead of {count} requests are in progress");
    }
}

struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn of(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lab(at: SocketAddr, spec: Value) -> Lab {
    Lab::new(with(captured(at), &filters(spec)), WorkerSettings::for_tests())
}

fn client(namespace: &str) -> Option<Identity> {
    Some(Identity::new("cluster.local", namespace, "client"))
}

impl Lab {
    async fn from(&self, namespace: &str, at: SocketAddr) -> Client {
        Client::http1(self.arrive("echo", at, client(namespace), Some(HOST)).await).await
    }

    /// So many requests of a namespace at once, each over a connection of its own.
    async fn at_once(&self, namespace: &str, at: SocketAddr, count: usize) -> JoinSet<Answer> {
        let mut all = JoinSet::new();
        for _ in 0..count {
            let mut client = self.from(namespace, at).await;
            all.spawn(async move { client.get("/slow").await });
        }
        all
    }
}

/// The statuses of so many that end first.
async fn first(all: &mut JoinSet<Answer>, count: usize) -> Vec<Answer> {
    let mut answers = Vec::new();
    for _ in 0..count {
        let next = tokio::time::timeout(Duration::from_secs(20), all.join_next()).await;
        answers.push(next.expect("it is not answered at once").unwrap().unwrap());
    }
    answers
}

#[tokio::test]
async fn the_excess_of_a_namespace_is_its_own() {
    let app = Slow::new().await;
    let lab = lab(app.at, json!({"concurrencyLimit": {"fixed": {"requests": 10}}}));
    let mut greedy = lab.at_once("greedy", app.at, 30).await;
    // Eight of ten, and a place and some more for others.
    for answer in first(&mut greedy, 22).await {
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers["retry-after"], "1");
        assert_eq!(answer.body, "reached concurrency limit");
    }
    app.until_waiting(8).await;
    let mut modest = lab.from("modest", app.at).await;
    for _ in 0..50 {
        assert_eq!(modest.get("/").await.status, StatusCode::OK);
    }
    app.go.add_permits(8);
    for answer in first(&mut greedy, 8).await {
        assert_eq!(answer.status, StatusCode::OK);
    }
    let scraped = lab.telemetry.scrape().unwrap();
    let shed =
        |line: &&str| line.starts_with("isthmus_concurrency_shed_total{") && line.ends_with(" 22");
    assert!(scraped.lines().any(|line| shed(&line)), "{scraped}");
}

#[tokio::test]
async fn a_place_returns_however_a_request_ends() {
    let app = Slow::new().await;
    let spec = json!({"concurrencyLimit": {"fixed": {"requests": 1}, "fairShare": false}});
    let lab = lab(app.at, spec);
    let mut other = lab.from("other", app.at).await;
    // The client leaves.
    let mut left = lab.arrive("echo", app.at, client("shop"), Some(HOST)).await;
    left.write_all(b"GET /slow HTTP/1.1\r\nhost: echo\r\n\r\n").await.unwrap();
    app.until_waiting(1).await;
    assert_eq!(other.get("/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    left.set_zero_linger().unwrap();
    drop(left);
    app.until_waiting(0).await;
    returned(&mut other).await;
    // The response is whole.
    let mut whole = lab.at_once("shop", app.at, 1).await;
    app.until_waiting(1).await;
    assert_eq!(other.get("/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    app.go.add_permits(1);
    assert_eq!(first(&mut whole, 1).await[0].status, StatusCode::OK);
    returned(&mut other).await;
    // It asks for what is not there, or is malformed.
    let mut bad = lab.arrive("echo", app.at, client("shop"), Some(HOST)).await;
    bad.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    bad.read_to_end(&mut Vec::new()).await.unwrap();
    returned(&mut other).await;
}

/// The place is free soon; the record of a request ends a moment after the client has its answer.
async fn returned(client: &mut Client) {
    for _ in 0..1000 {
        if client.get("/").await.status == StatusCode::OK {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the place was not given back");
}

#[tokio::test]
async fn an_upgraded_connection_has_its_place_until_it_ends() {
    let at = application("app").await;
    let spec = json!({"concurrencyLimit": {"fixed": {"requests": 1}, "fairShare": false}});
    let lab = lab(at, spec);
    let mut upgraded = lab.arrive("echo", at, client("shop"), Some(HOST)).await;
    let asks = b"GET / HTTP/1.1\r\nhost: echo\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    upgraded.write_all(asks).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(upgraded.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    upgraded.write_all(b"x").await.unwrap();
    assert_eq!(upgraded.read_u8().await.unwrap(), b'x');
    let mut other = lab.from("other", at).await;
    assert_eq!(other.get("/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    drop(upgraded);
    returned(&mut other).await;
}

#[tokio::test]
async fn what_is_critical_goes_last_and_grpc_hears_it_in_its_form() {
    let app = Slow::new().await;
    let lab = lab(
        app.at,
        json!({
            "concurrencyLimit": {"fixed": {"requests": 4}, "fairShare": false},
            "priority": {"default": "Sheddable", "classes": [
                {"level": "Critical", "namespaces": ["checkout"]},
                {"level": "Critical", "namespaces": ["batch"], "headers": [{"name": "x-urgent", "value": "1"}]},
            ]},
        }),
    );
    let mut sheddable = lab.at_once("batch", app.at, 6).await;
    for answer in first(&mut sheddable, 4).await {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers["x-envoy-overloaded"], "true");
    }
    app.until_waiting(2).await;
    let mut anybody = lab.from("web", app.at).await;
    // The header of a client whom nobody trusts with it.
    let marked = [("x-urgent", "1")];
    let refused = anybody.send(Method::GET, "/", &marked).await.unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let mut batch = lab.from("batch", app.at).await;
    assert_eq!(batch.send(Method::GET, "/", &marked).await.unwrap().status, StatusCode::OK);
    let mut critical = lab.at_once("checkout", app.at, 3).await;
    assert_eq!(first(&mut critical, 1).await[0].status, StatusCode::SERVICE_UNAVAILABLE);
    app.until_waiting(4).await;
    let grpc = [("content-type", "application/grpc")];
    let stream = lab.arrive("echo", app.at, client("checkout"), Some(HOST)).await;
    let refused = Client::http2(stream).await.send(Method::POST, "/a.b/C", &grpc).await.unwrap();
    assert_eq!(
        (refused.status, &refused.headers["grpc-status"]),
        (StatusCode::OK, &"14".parse().unwrap())
    );
    assert_eq!(refused.headers["retry-after"], "1");
    app.go.add_permits(4);
}

#[tokio::test]
async fn in_shadow_mode_nothing_is_shed_and_all_is_noted() {
    let app = Slow::new().await;
    let spec = json!({"concurrencyLimit": {"fixed": {"requests": 1}, "shadowMode": true}});
    let lab = lab(app.at, spec);
    let mut all = lab.at_once("shop", app.at, 3).await;
    app.until_waiting(3).await;
    app.go.add_permits(3);
    for answer in first(&mut all, 3).await {
        assert_eq!(answer.status, StatusCode::OK);
    }
    let noted = || {
        let scraped = lab.telemetry.scrape().unwrap();
        let lines = scraped.lines().filter(|line| {
            line.starts_with("isthmus_policy_notes_total{") && line.contains("would_shed")
        });
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
    };
    for _ in 0..1000 {
        if noted() == 2.0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{} are noted instead of 2", noted());
}

/// An endpoint outside of the mesh has nobody who keeps its limit; the client's node does, and not twice for a retry.
#[tokio::test]
async fn the_clients_node_keeps_the_limit_of_an_endpoint_outside_of_the_mesh() {
    let app = Slow::new().await;
    let spec = json!({"concurrencyLimit": {"fixed": {"requests": 2}, "fairShare": false}});
    let lab = Lab::new(with(shop(app.at), &filters(spec)), WorkerSettings::for_tests());
    let mut all = JoinSet::new();
    for _ in 0..5 {
        let mut client = Client::http1(lab.dial("client", "echo").await).await;
        all.spawn(async move { client.get("/slow").await });
    }
    for answer in first(&mut all, 3).await {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
    }
    app.until_waiting(2).await;
    app.go.add_permits(2);
    for answer in first(&mut all, 2).await {
        assert_eq!(answer.status, StatusCode::OK);
    }
    returned(&mut Client::http1(lab.dial("client", "echo").await).await).await;
}

/// The service rests while it fails, and clients do not wait for it.
#[tokio::test]
async fn a_service_that_fails_gets_no_requests_until_some_succeed() {
    let (at, script) =
        Script::start(&[Step::Status(500), Step::Status(500), Step::Status(200)]).await;
    let breaker =
        json!({"failures": {"percentage": 50, "minRequests": 2, "openFor": "1s", "trials": 1}});
    let policy = filters(json!({"circuitBreaker": breaker}));
    let lab = Lab::new(with(shop(at), &policy), WorkerSettings::for_tests());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    for _ in 0..2 {
        assert_eq!(client.get("/").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    let mut came = script.came().len();
    assert_eq!(came, 2);
    let mut refused = 0;
    let answer = loop {
        let answer = client.get("/").await;
        if answer.status == StatusCode::OK {
            break answer;
        }
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
        assert_eq!(answer.headers["retry-after"], "1");
        refused += 1;
        came = script.came().len();
        assert_eq!(came, 2, "the service has its rest");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(answer.body, "done");
    assert!(refused > 0);
    assert_eq!(script.came().len(), came + 1);
    assert_eq!(client.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn no_more_requests_of_a_node_are_in_progress_than_a_breaker_permits() {
    let app = Slow::new().await;
    let policy = filters(json!({"circuitBreaker": {"maxRequests": 2}}));
    let lab = Lab::new(with(shop(app.at), &policy), WorkerSettings::for_tests());
    let mut all = JoinSet::new();
    for _ in 0..5 {
        let mut client = Client::http1(lab.dial("client", "echo").await).await;
        all.spawn(async move { client.get("/slow").await });
    }
    for answer in first(&mut all, 3).await {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
    }
    app.go.add_permits(2);
    for answer in first(&mut all, 2).await {
        assert_eq!(answer.status, StatusCode::OK);
    }
    returned(&mut Client::http1(lab.dial("client", "echo").await).await).await;
}

/// One endpoint fails, and one hangs: both are passed over.
#[tokio::test]
async fn an_endpoint_whose_circuit_is_open_or_full_is_passed_over() {
    let long = Step::Slow(Duration::from_secs(600));
    let in_turn = Policy { balancer: Some(Balancer::RoundRobin), ..Policy::default() };
    for (steps, bounds) in [
        (
            Step::Status(500),
            json!({"failures": {"percentage": 50, "minRequests": 2, "openFor": "1h"}}),
        ),
        (long, json!({"maxRequests": 2})),
    ] {
        let (bad, of_bad) = Script::start(&[steps]).await;
        let (good, of_good) = Script::start(&[Step::Status(200)]).await;
        let mesh = super::destination_rules::mesh(&[bad, good], in_turn.clone());
        let policy = filters(json!({"circuitBreaker": {"endpoint": bounds}}));
        let lab = Lab::new(with(mesh, &policy), WorkerSettings::for_tests());
        let mut waiting = JoinSet::new();
        while of_bad.came().len() < 2 {
            let mut client = Client::http1(lab.dial("client", "echo").await).await;
            waiting.spawn(async move { client.get("/").await });
            // Until it has arrived somewhere.
            let before = waiting.len();
            while of_bad.came().len() + of_good.came().len() < before {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        if steps == Step::Status(500) {
            while waiting.join_next().await.is_some() {}
        }
        let mut client = Client::http1(lab.dial("client", "echo").await).await;
        for _ in 0..20 {
            assert_eq!(client.get("/").await.status, StatusCode::OK);
        }
        assert_eq!(of_bad.came().len(), 2);
        waiting.abort_all();
    }
}

/// The only endpoint takes one request at a time: the second attempt has the place of the first.
#[tokio::test]
async fn a_request_that_is_sent_again_has_one_place_at_a_time() {
    let (at, script) = Script::start(&[Step::Status(503), Step::Status(200)]).await;
    let policy = filters(json!({"circuitBreaker": {"endpoint": {"maxRequests": 1}}}));
    let on = RetryOn::any(&[RetryCondition::ServerError]);
    let retry = Retry { backoff: Duration::from_millis(1), ..Retry::new(on, 1) };
    let rule = HttpRule { retry: Some(retry), ..fixture::rule(vec![to("echo", 1)]) };
    let mesh = with(shop(at), &policy).route(fixture::route("r", "echo", vec![rule]));
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let answer = Client::http1(lab.dial("client", "echo").await).await.get("/").await;
    assert_eq!((answer.status, script.came().len()), (StatusCode::OK, 2));
    returned(&mut Client::http1(lab.dial("client", "echo").await).await).await;
}
