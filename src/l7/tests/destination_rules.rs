//! DestinationRules at a waypoint: which endpoint a request goes to, ejection, and the limits of connection pools.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::scripted::{Script, Step};
use super::support::*;
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::traffic::{
    Balancer, Cookie, Destination, HashKey, Limits, OutlierDetection, PerConnection, Policy, Ports,
};
use crate::world::fixture::{self, Fixture, backend as to};

/// Long enough to be in progress until a test ends it.
const LONG: Step = Step::Slow(Duration::from_secs(600));

/// The service with an endpoint for each of these, under the policy.
fn mesh(applications: &[SocketAddr], policy: Policy) -> Fixture {
    let mut mesh = shop_of(applications);
    let mut service = mesh.mesh.services[0].as_ref().clone();
    let destination = Destination::new("Service shop/echo, port 80".into(), policy);
    service.traffic.set(None, Ports::from([(80, Arc::new(destination))]));
    mesh.mesh.services[0] = service.into();
    mesh
}

fn lab(applications: &[SocketAddr], policy: Policy) -> Lab {
    Lab::new(mesh(applications, policy), WorkerSettings::for_tests())
}

fn limited(limits: Limits) -> Policy {
    let by = "DestinationRule shop/echo".into();
    Policy { by, limits: Some(Box::new(limits)), ..Policy::default() }
}

async fn client(lab: &Lab) -> Client {
    Client::http1(lab.dial("client", "echo").await).await
}

async fn started(steps: &[&[Step]]) -> (Vec<SocketAddr>, Vec<Arc<Script>>) {
    let mut all = (Vec::new(), Vec::new());
    for steps in steps {
        let (at, script) = Script::start(steps).await;
        all.0.push(at);
        all.1.push(script);
    }
    all
}

fn came(scripts: &[Arc<Script>]) -> Vec<usize> {
    scripts.iter().map(|script| script.came().len()).collect()
}

#[tokio::test]
async fn requests_with_one_key_go_to_one_endpoint() {
    let (at, scripts) = started(&[&[], &[], &[]]).await;
    let key = HashKey::Header(HeaderName::from_static("x-user"));
    let lab = lab(&at, Policy { balancer: Some(Balancer::Hash(key)), ..Policy::default() });
    for user in 0..20 {
        let before = came(&scripts);
        for _ in 0..3 {
            let mut client = client(&lab).await;
            let headers = [("x-user", &*user.to_string())];
            client.send(Method::GET, "/", &headers).await.unwrap();
        }
        let grown = came(&scripts).into_iter().zip(before).filter(|(after, before)| after > before);
        assert_eq!(grown.count(), 1, "user {user}");
    }
    assert!(came(&scripts).iter().all(|count| *count > 0), "{:?}", came(&scripts));
}

#[tokio::test]
async fn a_client_is_given_a_cookie_that_leads_it_back() {
    let (at, scripts) = started(&[&[], &[], &[]]).await;
    let cookie = Cookie {
        name: "user".into(),
        path: "/".into(),
        ttl: Some(Duration::from_secs(60)),
        attributes: Default::default(),
    };
    let key = HashKey::Cookie(cookie);
    let lab = lab(&at, Policy { balancer: Some(Balancer::Hash(key)), ..Policy::default() });
    for _ in 0..10 {
        let mut client = client(&lab).await;
        let before = came(&scripts);
        let answer = client.get("/").await;
        let given = answer.headers["set-cookie"].to_str().unwrap().to_owned();
        assert!(given.ends_with("; Max-Age=60; Path=/; HttpOnly"), "{given}");
        let headers = [("cookie", given.split(';').next().unwrap())];
        for _ in 0..3 {
            let answer = client.send(Method::GET, "/", &headers).await.unwrap();
            assert!(!answer.headers.contains_key("set-cookie"));
        }
        let grown: Vec<_> = came(&scripts).iter().zip(before).map(|(one, two)| one - two).collect();
        assert!(grown.contains(&4), "{grown:?}");
    }
}

#[tokio::test]
async fn an_endpoint_with_errors_in_a_row_is_ejected() {
    let outliers = |consecutive_errors, max_ejection_percent| Policy {
        outliers: Some(OutlierDetection {
            consecutive_errors,
            max_ejection_percent,
            ..OutlierDetection::default()
        }),
        ..Policy::default()
    };
    let (at, scripts) = started(&[&[Step::Status(500)], &[Step::Status(200)]]).await;
    let lab = lab(&at, outliers(3, 10));
    let mut client = client(&lab).await;
    for _ in 0..100 {
        client.get("/").await;
    }
    assert_eq!(came(&scripts), [3, 97]);
    // The only endpoint, which the policy permits to eject.
    let (at, scripts) = started(&[&[Step::Status(500)]]).await;
    for (percent, status, sent) in [(99, 500, 5), (100, 503, 7)] {
        let lab = self::lab(&at, outliers(2, percent));
        let mut client = self::client(&lab).await;
        for _ in 0..4 {
            client.get("/").await;
        }
        assert_eq!(client.get("/").await.status, status);
        assert_eq!(came(&scripts), [sent], "{percent}");
        let unhealthy = lab.requests(&["response_flags=\"UH\""]);
        assert_eq!(unhealthy, if percent == 100 { 3 } else { 0 });
    }
}

/// Three endpoints, of which one gets slow and fast again.
#[tokio::test]
async fn a_slow_endpoint_is_left_alone() {
    let (at, scripts) = started(&[&[], &[], &[]]).await;
    let lab = lab(&at, Policy { balancer: Some(Balancer::PeakEwma), ..Policy::default() });
    let mut client = client(&lab).await;
    let mut requests = async |count: usize| {
        let before = came(&scripts);
        for _ in 0..count {
            assert_eq!(client.get("/").await.status, StatusCode::OK);
        }
        let after = came(&scripts).into_iter();
        after.zip(before).map(|(after, before)| after - before).collect::<Vec<usize>>()
    };
    let counts = requests(60).await;
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    // The request that finds it out is nearly the last one.
    scripts[0].goes_on(Step::Slow(Duration::from_millis(500)));
    let counts = requests(60).await;
    assert!(counts[0] <= 3, "{counts:?}");
}

/// Three endpoints, of which one fails, fails again when it is probed, and returns.
#[tokio::test]
async fn one_that_fails_is_probed_and_returns() {
    let (at, scripts) = started(&[&[], &[], &[]]).await;
    let outliers = OutlierDetection {
        consecutive_errors: 3,
        interval: Duration::from_millis(10),
        base_ejection_time: Duration::from_secs(1),
        ..OutlierDetection::default()
    };
    let balancer = Some(Balancer::RoundRobin);
    let lab = lab(&at, Policy { outliers: Some(outliers), balancer, ..Policy::default() });
    let mut client = client(&lab).await;
    let world = lab.world();
    let echo = world.service(&fixture::key("echo")).unwrap();
    let destination = echo.traffic.of_client("any", &[], 80).unwrap();
    scripts[0].goes_on(Step::Status(503));
    let mut failed_until = async |until: &dyn Fn() -> bool| {
        let mut failed = 0;
        let requests = async {
            while !until() {
                failed += usize::from(client.get("/").await.status != StatusCode::OK);
            }
        };
        tokio::time::timeout(Duration::from_secs(30), requests).await.unwrap();
        failed
    };
    let is_ejected = || destination.ejected().is_some();
    assert_eq!(failed_until(&is_ejected).await, 3);
    // Until its time has passed, nobody notices it; then one request does.
    assert_eq!(failed_until(&|| came(&scripts)[0] > 3).await, 1);
    assert!(is_ejected());
    scripts[0].goes_on(Step::Status(200));
    assert_eq!(failed_until(&|| came(&scripts)[0] >= 14).await, 0);
    assert!(!destination.are_some_out());
}

/// A timeout that passes while the client sends its request, and one that passes while the application does not answer.
#[tokio::test]
async fn a_client_that_sends_slowly_has_no_endpoint_ejected() {
    for (body, ejected) in [("abc", false), ("abcdefghij", true)] {
        let (at, _scripts) = started(&[&[LONG]]).await;
        let outliers = OutlierDetection {
            consecutive_errors: 1,
            max_ejection_percent: 100,
            ..OutlierDetection::default()
        };
        let timeouts =
            Timeouts { request: Some(Duration::from_millis(1500)), ..Timeouts::default() };
        let rule = HttpRule { timeouts, ..fixture::rule(vec![to("echo", 1)]) };
        let policy = Policy { outliers: Some(outliers), ..Policy::default() };
        let mesh = mesh(&at, policy).route(fixture::route("r", "echo", vec![rule]));
        let lab = Lab::new(mesh, WorkerSettings::for_tests());
        let mut stream = lab.dial("client", "echo").await;
        let head = "POST / HTTP/1.1\r\nHost: echo\r\nContent-Length: 10\r\n\r\n";
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 504");
        let world = lab.world();
        let traffic = &world.service(&fixture::key("echo")).unwrap().traffic;
        let found = traffic.of_client("any", &[], 80).unwrap().ejected();
        assert_eq!(found.is_some(), ejected, "{body}");
    }
}

#[tokio::test]
async fn no_more_requests_are_in_progress_than_the_policy_says() {
    let (at, scripts) = started(&[&[LONG, Step::Status(200)]]).await;
    let lab = lab(&at, limited(Limits { max_requests: Some(1), ..Limits::default() }));
    let (mut slow, mut other) = (client(&lab).await, client(&lab).await);
    let slow = tokio::spawn(async move { slow.get("/").await });
    scripts[0].wait_for(1).await;
    assert_eq!(other.get("/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let labels = ["response_code=\"503\"", "response_flags=\"UO\""];
    assert_eq!(lab.requests(&labels), 1);
    assert_eq!(came(&scripts), [1], "it was not sent");
    // A request that its client gives up gives its place back.
    slow.abort();
    let served = async {
        while other.get("/").await.status != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), served).await.unwrap();
}

#[tokio::test]
async fn a_request_waits_for_its_connection() {
    let (at, scripts) = started(&[&[Step::Status(200)]]).await;
    let lab = lab(&at, limited(Limits { max_connections: Some(1), ..Limits::default() }));
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = client(&lab).await;
        clients.push(tokio::spawn(async move { client.get("/").await.status }));
    }
    for client in clients {
        assert_eq!(client.await.unwrap(), StatusCode::OK);
    }
    assert_eq!(came(&scripts), [8]);
}

#[tokio::test]
async fn a_connection_takes_so_many_requests() {
    for (max_requests, expected) in [(None, 1), (Some(1), 6), (Some(2), 3), (Some(9), 1)] {
        for http2 in [false, true] {
            let (at, scripts) = started(&[&[Step::Status(200)]]).await;
            let per_connection = PerConnection { max_requests, idle_timeout: None };
            let lab = lab(&at, limited(Limits { per_connection, ..Limits::default() }));
            let stream = lab.dial("client", "echo").await;
            let mut client = match http2 {
                true => Client::http2(stream).await,
                false => Client::http1(stream).await,
            };
            for _ in 0..6 {
                assert_eq!(client.get("/").await.status, StatusCode::OK);
            }
            assert_eq!(scripts[0].connections(), expected, "{max_requests:?} {http2}");
        }
    }
}

#[tokio::test]
async fn no_more_requests_are_retried_at_once_than_the_policy_says() {
    let (at, scripts) = started(&[&[Step::Status(503), LONG, Step::Status(503)]]).await;
    let backoff = Duration::from_millis(1);
    let codes = RetryOn::codes(vec![StatusCode::SERVICE_UNAVAILABLE]);
    let retry = Some(Retry { backoff, ..Retry::new(codes, 3) });
    let rule = HttpRule { retry, ..fixture::rule(vec![to("echo", 1)]) };
    let limits = Limits { max_retries: Some(1), ..Limits::default() };
    let mesh = mesh(&at, limited(limits)).route(fixture::route("r", "echo", vec![rule]));
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let mut retried = client(&lab).await;
    let retried = tokio::spawn(async move { retried.get("/").await });
    // Its first retry goes on.
    scripts[0].wait_for(2).await;
    let answer = client(&lab).await.get("/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(came(&scripts), [3], "it was sent once");
    retried.abort();
}
