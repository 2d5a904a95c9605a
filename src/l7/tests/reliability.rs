//! Timeouts and retries of routes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::scripted::{Script, Step};
use super::support::*;
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::world::fixture::{self, backend as to};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn retry(codes: &[u16], attempts: u32) -> Option<Retry> {
    let codes = codes.iter().map(|code| StatusCode::from_u16(*code).unwrap()).collect();
    Some(Retry { backoff: millis(20), ..Retry::new(RetryOn::codes(codes), attempts) })
}

fn lab(at: SocketAddr, timeouts: Timeouts, retry: Option<Retry>) -> Lab {
    let rule = HttpRule { timeouts, retry, ..fixture::rule(vec![to("echo", 1)]) };
    Lab::new(shop(at).route(fixture::route("r", "echo", vec![rule])), WorkerSettings::for_tests())
}

async fn client(lab: &Lab, http2: bool) -> Client {
    let stream = lab.dial("client", "echo").await;
    match http2 {
        true => Client::http2(stream).await,
        false => Client::http1(stream).await,
    }
}

fn request(limit: u64) -> Timeouts {
    Timeouts { request: Some(millis(limit)), ..Timeouts::default() }
}

fn backend(limit: u64) -> Timeouts {
    Timeouts { backend_request: Some(millis(limit)), ..Timeouts::default() }
}

#[tokio::test]
async fn what_takes_too_long_is_answered_504() {
    for timeouts in [request(100), backend(100)] {
        for http2 in [false, true] {
            let (at, script) =
                Script::start(&[Step::Slow(Duration::from_secs(5)), Step::Status(200)]).await;
            let lab = lab(at, timeouts, None);
            let mut client = client(&lab, http2).await;
            let started = Instant::now();
            let answer = client.get("/").await;
            assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{timeouts:?}");
            assert!((millis(100)..millis(2000)).contains(&started.elapsed()));
            assert_eq!(lab.requests(&["response_code=\"504\"", "response_flags=\"UT\""]), 1);
            assert_eq!(client.get("/").await.status, StatusCode::OK, "the connection goes on");
            assert_eq!(script.came().len(), 2, "nothing is sent again");
        }
    }
    let (at, _) = Script::start(&[Step::Slow(millis(300))]).await;
    let lab = lab(at, Timeouts::default(), None);
    assert_eq!(client(&lab, false).await.get("/").await.status, StatusCode::OK, "no limit");
}

#[tokio::test]
async fn a_response_that_does_not_come_to_its_end_is_broken_off() {
    for http2 in [false, true] {
        let (at, _) = Script::start(&[Step::Stall]).await;
        let lab = lab(at, request(100), None);
        let mut client = client(&lab, http2).await;
        let started = Instant::now();
        assert!(client.send(Method::GET, "/", &[]).await.is_err());
        assert!(started.elapsed() < millis(2000));
        assert_eq!(lab.requests(&["response_code=\"200\"", "response_flags=\"UT\""]), 1);
    }
}

#[tokio::test]
async fn statuses_that_the_route_names_are_asked_for_again() {
    use Step::Status;
    for (steps, attempts, status, sent) in [
        (&[Status(503), Status(500), Status(200)][..], 2, 200, 3),
        (&[Status(503), Status(503), Status(500)], 2, 500, 3),
        (&[Status(503)], 1, 503, 2),
        (&[Status(502)], 3, 502, 1),
        (&[Status(200)], 3, 200, 1),
    ] {
        for method in [Method::GET, Method::POST] {
            let (at, script) = Script::start(steps).await;
            let lab = lab(at, Timeouts::default(), retry(&[500, 503], attempts));
            let mut client = client(&lab, false).await;
            let body = Bytes::from_static(b"payload");
            // What a client says of its attempts does not count.
            let headers = [("x", "1"), ("x-envoy-attempt-count", "9")];
            let answer = client.exchange(method.clone(), "/a?b", &headers, body).await.unwrap();
            assert_eq!(answer.status, status, "{steps:?}");
            let came = script.came();
            assert_eq!(came.len(), sent, "{steps:?}");
            for (attempt, one) in came.into_iter().enumerate() {
                let count = one.headers["x-envoy-attempt-count"].to_str().unwrap();
                assert_eq!(count, (attempt + 1).to_string());
                assert_eq!((one.method.as_str(), one.target.as_str()), (method.as_str(), "/a?b"));
                assert_eq!(one.body.as_deref(), Some(&b"payload"[..]));
                assert_eq!(one.headers["x"], "1");
            }
            assert_eq!(lab.requests(&[]), 1, "one request, whatever its attempts");
        }
    }
}

#[tokio::test]
async fn long_bodies_are_sent_once_and_those_that_fit_again() {
    for http2 in [false, true] {
        for (length, sent) in [(64 * 1024, 2), (64 * 1024 + 1, 1)] {
            let (at, script) = Script::start(&[Step::Status(503), Step::Status(200)]).await;
            let lab = lab(at, Timeouts::default(), retry(&[503], 2));
            let mut client = client(&lab, http2).await;
            let body = Bytes::from(vec![b'x'; length]);
            let answer = client.exchange(Method::PUT, "/", &[], body.clone()).await.unwrap();
            assert_eq!(answer.status, if sent == 2 { 200 } else { 503 }, "{length}");
            let came = script.came();
            assert_eq!(came.len(), sent);
            assert!(came.iter().all(|one| one.body.as_ref() == Some(&body)));
        }
    }
}

/// MeshConfig's default holds for requests without a route and for rules that say nothing, and for no others.
#[tokio::test]
async fn the_meshs_default_holds_where_no_rule_says_how_to_retry() {
    let of_route = |retry| Some(HttpRule { retry, ..fixture::rule(vec![to("echo", 1)]) });
    for (rule, status, sent) in [
        (None, 200, 2),
        (of_route(None), 200, 2),
        (of_route(retry(&[], 1)), 503, 1),
        (of_route(retry(&[503], 0)), 503, 1),
    ] {
        let (at, script) = Script::start(&[Step::Status(503), Step::Status(200)]).await;
        let mut mesh = shop(at);
        let default = DefaultRetry { retry: retry(&[503], 1).unwrap(), each: None };
        mesh.mesh.retry = Some(default.into());
        if let Some(rule) = rule {
            mesh = mesh.route(fixture::route("r", "echo", vec![rule]));
        }
        let lab = Lab::new(mesh, WorkerSettings::for_tests());
        assert_eq!(client(&lab, false).await.get("/").await.status, status);
        assert_eq!(script.came().len(), sent);
    }
    let (at, script) =
        Script::start(&[Step::Slow(Duration::from_secs(5)), Step::Status(200)]).await;
    let mut mesh = shop(at);
    let default = DefaultRetry { retry: retry(&[], 1).unwrap(), each: Some(millis(100)) };
    mesh.mesh.retry = Some(default.into());
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    assert_eq!(client(&lab, false).await.get("/").await.status, StatusCode::OK);
    assert_eq!(script.came().len(), 2, "the attempt that took too long, and another");
}

#[tokio::test]
async fn what_may_have_been_processed_is_sent_again_only_when_it_is_idempotent() {
    for (first, limits, failed) in [
        (Step::Reset, Timeouts::default(), 503),
        (Step::Slow(Duration::from_secs(5)), backend(100), 504),
    ] {
        for (method, status, sent) in [(Method::PUT, 200, 2), (Method::POST, failed, 1)] {
            let (at, script) = Script::start(&[first, Step::Status(200)]).await;
            let lab = lab(at, limits, retry(&[], 1));
            let mut client = client(&lab, false).await;
            let body = Bytes::from_static(b"payload");
            let answer = client.exchange(method.clone(), "/", &[], body.clone()).await.unwrap();
            assert_eq!(answer.status, status, "{first:?} {method}");
            let came = script.came();
            assert_eq!(came.len(), sent, "{first:?} {method}");
            assert!(came.iter().all(|one| one.body.as_ref() == Some(&body)));
        }
    }
}

#[tokio::test]
async fn the_requests_timeout_covers_all_attempts() {
    let (at, script) = Script::start(&[Step::Status(500)]).await;
    let lab = lab(at, request(150), retry(&[500], 10));
    let started = Instant::now();
    let answer = client(&lab, false).await.get("/").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert!((millis(150)..millis(2000)).contains(&started.elapsed()), "{:?}", started.elapsed());
    let sent = script.came().len();
    assert!((2..6).contains(&sent), "{sent}");
}

#[tokio::test]
async fn another_attempt_waits_and_goes_elsewhere() {
    let (bad, first) = Script::start(&[Step::Status(503)]).await;
    let (good, second) = Script::start(&[Step::Status(200)]).await;
    let mut mesh = shop(bad);
    let other = outsider("other", good);
    let mut service = mesh.mesh.services[0].as_ref().clone();
    let mut endpoint = service.endpoints[0].clone();
    endpoint.workload = Some(other.uid.clone());
    endpoint.ports[0].target = good.port();
    service.endpoints.push(endpoint);
    mesh.mesh.services[0] = service.into();
    let backoff = millis(100);
    let retry = Some(Retry { backoff, ..retry(&[503], 1).unwrap() });
    let rule = HttpRule { retry, ..fixture::rule(vec![to("echo", 1)]) };
    let mesh = mesh.workload(other).route(fixture::route("r", "echo", vec![rule]));
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let mut client = client(&lab, false).await;
    for _ in 0..10 {
        let (before, started) = (first.came().len(), Instant::now());
        assert_eq!(client.get("/").await.status, StatusCode::OK);
        assert!(first.came().len() == before || started.elapsed() >= backoff);
    }
    assert_eq!(second.came().len(), 10);
}

/// Most endpoints of the service refuse connections.
#[tokio::test]
async fn without_attempts_another_endpoint_is_not_tried_either() {
    for (retry, tried_others) in [(None, true), (retry(&[503], 1), true), (retry(&[503], 0), false)]
    {
        let (good, script) = Script::start(&[Step::Status(200)]).await;
        let mut mesh = shop(good);
        let mut service = mesh.mesh.services[0].as_ref().clone();
        for number in 0..2 {
            let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let closed = closed.local_addr().unwrap();
            let other = outsider(&format!("closed-{number}"), closed);
            let mut endpoint = service.endpoints[0].clone();
            endpoint.workload = Some(other.uid.clone());
            endpoint.ports[0].target = closed.port();
            service.endpoints.push(endpoint);
            mesh = mesh.workload(other);
        }
        mesh.mesh.services[0] = service.into();
        let rule = HttpRule { retry, ..fixture::rule(vec![to("echo", 1)]) };
        let mesh = mesh.route(fixture::route("r", "echo", vec![rule]));
        let lab = Lab::new(mesh, WorkerSettings::for_tests());
        let mut refused = 0;
        for _ in 0..20 {
            let answer = client(&lab, false).await.get("/").await;
            refused += usize::from(answer.status == StatusCode::SERVICE_UNAVAILABLE);
        }
        assert_eq!(refused == 0, tried_others, "{refused} of 20");
        assert_eq!(script.came().len(), 20 - refused);
    }
}
