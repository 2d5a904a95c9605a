//! Retries by the conditions of Istio's `HTTPRetry`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use super::scripted::{Script, Step};
use super::support::*;
use crate::l7::WorkerSettings;
use crate::model::RetryCondition::*;
use crate::model::*;
use crate::traffic::{Balancer, Destination, HashKey, Policy, Ports};
use crate::world::fixture::{self, Fixture, backend as to};

const MILLISECOND: Duration = Duration::from_millis(1);
/// Longer than any test waits.
const LONG: Step = Step::Slow(Duration::from_secs(600));

fn retry(on: &[RetryCondition], attempts: u32) -> Retry {
    Retry { backoff: MILLISECOND, ..Retry::new(RetryOn::any(on), attempts) }
}

/// The service with its only rule.
fn lab(mesh: Fixture, retry: Retry, timeouts: Timeouts) -> Lab {
    let rule = HttpRule { retry: Some(retry), timeouts, ..fixture::rule(vec![to("echo", 1)]) };
    Lab::new(mesh.route(fixture::route("r", "echo", vec![rule])), WorkerSettings::for_tests())
}

async fn client(lab: &Lab) -> Client {
    Client::http1(lab.dial("client", "echo").await).await
}

/// An application that fails once, and then does as it is asked.
#[tokio::test]
async fn each_condition_has_a_request_sent_again() {
    use Step::{Head, Reset as Close, Status};
    let per_try = || Timeouts { per_try: Some(200 * MILLISECOND), ..Timeouts::default() };
    let grpc = |status| Head(200, "grpc-status", status);
    let limited = Head(503, "x-envoy-ratelimited", "true");
    let statuses = [StatusCodes];
    for (on, timeouts, first, expected) in [
        (&[ServerError][..], Timeouts::default(), Status(500), true),
        (&[ServerError], Timeouts::default(), Status(429), false),
        (&[ServerError], Timeouts::default(), Close, true),
        (&[ServerError], per_try(), LONG, true),
        (&[GatewayError], Timeouts::default(), Status(503), true),
        (&[GatewayError], Timeouts::default(), Status(500), false),
        (&[GatewayError], Timeouts::default(), Close, true),
        (&[Reset], Timeouts::default(), Close, true),
        (&[Reset], per_try(), LONG, true),
        (&[Reset], Timeouts::default(), Status(503), false),
        (&[ResetBeforeRequest], Timeouts::default(), Close, false),
        (&[ResetBeforeRequest], per_try(), LONG, false),
        (&[ConnectFailure], Timeouts::default(), Close, false),
        (&[RefusedStream], Timeouts::default(), Close, false),
        (&[Retriable4xx], Timeouts::default(), Status(409), true),
        (&[Retriable4xx], Timeouts::default(), Status(404), false),
        (&statuses, Timeouts::default(), Status(418), true),
        (&statuses, Timeouts::default(), Status(503), false),
        (&[RateLimited], Timeouts::default(), limited, true),
        (&[ServerError, GatewayError], Timeouts::default(), limited, false),
        (&[RateLimited], Timeouts::default(), Status(503), false),
        (&[Unavailable], Timeouts::default(), grpc("14"), true),
        (&[Cancelled], Timeouts::default(), grpc("1"), true),
        (&[DeadlineExceeded], Timeouts::default(), grpc("4"), true),
        (&[ResourceExhausted], Timeouts::default(), grpc("8"), true),
        (&[Internal], Timeouts::default(), grpc("13"), true),
        (&[Unavailable, Cancelled], Timeouts::default(), grpc("13"), false),
    ] {
        // For every method, because the policy's author has named the condition.
        let (at, script) = Script::start(&[first, Status(200)]).await;
        let mut retry = retry(on, 1);
        retry.on.codes = vec![StatusCode::IM_A_TEAPOT];
        let lab = lab(shop(at), retry, timeouts);
        let answer = client(&lab).await.send(Method::POST, "/", &[]).await.unwrap();
        assert_eq!(script.came().len(), 1 + usize::from(expected), "{on:?} {first:?}");
        assert!(!expected || answer.status == 200, "{on:?} {first:?}");
        assert!(!expected || !answer.headers.contains_key("grpc-status"), "{on:?} {first:?}");
    }
}

/// Once a response has begun, the time for the attempt is no matter any more: Envoy's `per_try_timeout`.
#[tokio::test]
async fn the_time_for_one_attempt_ends_when_its_response_begins() {
    let (at, script) = Script::start(&[Step::Stall]).await;
    let timeouts = Timeouts {
        per_try: Some(50 * MILLISECOND),
        request: Some(400 * MILLISECOND),
        ..Timeouts::default()
    };
    let lab = lab(shop(at), retry(&[Reset], 3), timeouts);
    let started = tokio::time::Instant::now();
    assert!(client(&lab).await.send(Method::GET, "/", &[]).await.is_err());
    assert!(started.elapsed() >= 400 * MILLISECOND);
    assert_eq!(script.came().len(), 1);
    assert_eq!(lab.requests(&["response_code=\"200\"", "response_flags=\"UT\""]), 1);
}

/// The flags are Envoy's: one more says that there were no attempts left.
#[tokio::test]
async fn requests_whose_attempts_are_used_up_are_marked() {
    let per_try = Timeouts { per_try: Some(50 * MILLISECOND), ..Timeouts::default() };
    for (timeouts, step, attempts, status, flags) in [
        (Timeouts::default(), Step::Status(503), 2, 503, "URX"),
        (Timeouts::default(), Step::Reset, 2, 503, "UC,URX"),
        (per_try, LONG, 1, 504, "UT,URX"),
        (Timeouts::default(), Step::Status(404), 2, 404, "-"),
        (Timeouts::default(), Step::Status(200), 2, 200, "-"),
    ] {
        let (at, _script) = Script::start(&[step]).await;
        let lab = lab(shop(at), retry(&[ServerError], attempts), timeouts);
        let answer = client(&lab).await.get("/").await;
        assert_eq!(answer.status, status, "{step:?}");
        let code = format!("response_code=\"{status}\"");
        lab.counted(&[&code, &format!("response_flags=\"{flags}\"")], 1).await;
    }
}

/// Of three endpoints, two fail.
async fn two_of_three_fail() -> (Vec<SocketAddr>, Vec<Arc<Script>>) {
    let mut all = (Vec::new(), Vec::new());
    for status in [503, 503, 200] {
        let (at, script) = Script::start(&[Step::Status(status)]).await;
        all.0.push(at);
        all.1.push(script);
    }
    all
}

#[tokio::test]
async fn endpoints_that_were_tried_are_avoided_unless_the_policy_says_otherwise() {
    let sticky = || Policy {
        balancer: Some(Balancer::Hash(HashKey::Query("user".into()))),
        ..Policy::default()
    };
    for (avoids, policy, always) in [
        (None, Policy::default(), true),
        (Some(true), Policy::default(), true),
        (Some(false), Policy::default(), false),
        // Who is to stay at an endpoint stays there, as in Istio.
        (None, sticky(), false),
        (Some(true), sticky(), true),
    ] {
        let (at, scripts) = two_of_three_fail().await;
        let mut mesh = shop_of(&at);
        let mut service = mesh.mesh.services[0].as_ref().clone();
        let destination = Destination::new("echo".into(), policy);
        service.traffic.set(None, Ports::from([(80, Arc::new(destination))]));
        mesh.mesh.services[0] = service.into();
        let retry = Retry { avoids_previous: avoids, ..retry(&[GatewayError], 2) };
        let lab = lab(mesh, retry, Timeouts::default());
        let mut client = client(&lab).await;
        let mut good = 0;
        // Without avoiding, all succeed with a probability below 2^-20.
        for user in 0..60 {
            good += u32::from(client.get(&format!("/?user={user}")).await.status == 200);
        }
        assert_eq!(good == 60, always, "{avoids:?}: {good}");
        let failed = scripts[0].came().len() + scripts[1].came().len();
        assert!(!always || failed <= 2 * 60, "{failed}");
    }
}

/// Three endpoints in the client's zone fail, and one elsewhere does not.
#[tokio::test]
async fn a_retry_leaves_the_locality_if_the_policy_says_so() {
    for (leaves_locality, always) in [(true, true), (false, false)] {
        let (mut at, mut scripts) = two_of_three_fail().await;
        let (third, script) = Script::start(&[Step::Status(503)]).await;
        at.insert(0, third);
        scripts.insert(0, script);
        let mut mesh = shop_of(&at);
        let mut service = mesh.mesh.services[0].as_ref().clone();
        for (number, endpoint) in service.endpoints.iter_mut().enumerate() {
            let zone = if number == 3 { "b" } else { "a" };
            endpoint.locality =
                Locality { region: "r".into(), zone: zone.into(), ..Locality::default() };
        }
        mesh.mesh.services[0] = service.into();
        let retry = Retry { leaves_locality, ..retry(&[GatewayError], 1) };
        let lab = lab(mesh, retry, Timeouts::default());
        let mut client = client(&lab).await;
        let mut good = 0;
        // Otherwise one of four is good, or one of three after a bad one.
        for _ in 0..60 {
            good += u32::from(client.get("/").await.status == 200);
        }
        assert_eq!(good == 60, always, "{good}");
    }
}

/// From a manifest of the mesh's default to traffic.
#[tokio::test]
async fn the_meshs_default_is_carried_out_as_it_is_written() {
    use crate::source::tests::translated;
    for (policy, first, sent) in [
        ("{attempts: 2, retryOn: 'retriable-4xx,418'}", Step::Status(418), 2),
        ("{attempts: 2, retryOn: 'reset'}", Step::Reset, 2),
        ("{attempts: 2, retryOn: 'reset'}", Step::Status(503), 1),
        // Without `retryOn`.
        ("{attempts: 2}", Step::Head(200, "grpc-status", "14"), 2),
        ("{attempts: 2}", Step::Status(503), 1),
        ("{attempts: 1, retryOn: '5xx', perTryTimeout: 200ms}", LONG, 2),
        ("{attempts: 0}", Step::Reset, 1),
    ] {
        let translation = translated(&format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
             defaultHttpRetryPolicy: {policy}\n"
        ));
        assert!(translation.complaints.is_empty(), "{:?}", translation.complaints);
        let (at, script) = Script::start(&[first, Step::Status(200)]).await;
        let mut mesh = shop(at);
        mesh.mesh.retry = translation.mesh.retry;
        let lab = Lab::new(mesh, WorkerSettings::for_tests());
        _ = client(&lab).await.send(Method::POST, "/", &[]).await.unwrap();
        assert_eq!(script.came().len(), sent, "{policy} {first:?}");
    }
}
