//! What a client asks for its own request: gRPC's deadline, and Envoy's headers.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use super::scripted::{Came, Script, Step};
use super::support::*;
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::traffic::{Destination, OutlierDetection, Policy, Ports};
use crate::world::fixture::{self, backend as to};

const LONG: Step = Step::Slow(Duration::from_secs(600));
/// No test waits so long, and each deadline is far below.
const SOON: Duration = Duration::from_secs(30);
const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// Sends one request to an application that does this, and gives the answer with what came.
async fn ask(
    steps: &[Step],
    rule: HttpRule,
    headers: &[(&str, &str)],
) -> (Lab, Option<Answer>, Vec<Came>) {
    let (at, script) = Script::start(steps).await;
    let mesh = shop(at).route(fixture::route("r", "echo", vec![rule]));
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    let begun = Instant::now();
    let answer = client.send(Method::GET, "/", headers).await.ok();
    assert!(begun.elapsed() < SOON);
    (lab, answer, script.came())
}

fn rule(request: Option<u64>, retry: Option<Retry>) -> HttpRule {
    let request = request.map(Duration::from_millis);
    let timeouts = Timeouts { request, ..Timeouts::default() };
    HttpRule { timeouts, retry, ..fixture::rule(vec![to("echo", 1)]) }
}

/// The shortest of what the route and the client say, whichever says it.
#[tokio::test]
async fn the_shortest_deadline_holds() {
    let (quick, hour) = ("100", "3600000");
    let timeout = "x-envoy-upstream-rq-timeout-ms";
    for (of_route, headers) in [
        (Some(100), vec![(timeout, hour)]),
        (Some(3_600_000), vec![(timeout, quick)]),
        (None, vec![(timeout, quick)]),
        (None, vec![("x-envoy-upstream-rq-per-try-timeout-ms", quick)]),
        (Some(100), vec![GRPC, ("grpc-timeout", "1H")]),
        (Some(3_600_000), vec![GRPC, ("grpc-timeout", "100m")]),
        (None, vec![GRPC, ("grpc-timeout", "100000u")]),
        (None, vec![GRPC, ("grpc-timeout", "1H"), (timeout, quick)]),
    ] {
        let (lab, answer, _) = ask(&[LONG], rule(of_route, None), &headers).await;
        let answer = answer.unwrap();
        match headers.contains(&GRPC) {
            true => assert_eq!(answer.headers["grpc-status"], "14", "{headers:?}"),
            false => assert_eq!(answer.status, 504, "{headers:?}"),
        }
        lab.counted(&["response_flags=\"UT\""], 1).await;
    }
    // Not of a request that is none of gRPC, and 0 is no deadline.
    for headers in [vec![("grpc-timeout", "1n")], vec![GRPC, ("grpc-timeout", "0S")]] {
        let (_, answer, _) = ask(&[Step::Status(200)], rule(None, None), &headers).await;
        assert_eq!(answer.unwrap().status, 200);
    }
}

/// The application hears how long it has, and nothing of what was asked of the proxy.
#[tokio::test]
async fn the_application_is_told_what_is_left() {
    for (headers, expected, of_grpc) in [
        (vec![], None, false),
        (vec![("x-envoy-upstream-rq-timeout-ms", "60000")], Some(60_000), false),
        (
            vec![
                ("x-envoy-upstream-rq-timeout-ms", "60000"),
                ("x-envoy-upstream-rq-per-try-timeout-ms", "20000"),
            ],
            Some(20_000),
            false,
        ),
        (vec![GRPC, ("grpc-timeout", "30S")], Some(30_000), true),
        // A client's own word is none.
        (vec![("x-envoy-expected-rq-timeout-ms", "5"), ("x-envoy-retry-on", "5xx")], None, false),
    ] {
        let (_, _, came) = ask(&[Step::Status(200)], rule(None, None), &headers).await;
        let told = &came[0].headers;
        let number = |name: &str| told.get(name).map(|value| value.to_str().unwrap().to_owned());
        let left = number("x-envoy-expected-rq-timeout-ms").map(|it| it.parse::<u64>().unwrap());
        match expected {
            Some(most) => {
                let left = left.expect("it is told");
                assert!(left <= most && left > most - 15_000, "{left} of {most}");
            }
            None => assert_eq!(left, None, "{headers:?}"),
        }
        let grpc = number("grpc-timeout");
        assert_eq!(grpc, left.filter(|_| of_grpc).map(|left| format!("{left}m")), "{headers:?}");
        let asked = |name: &http::HeaderName| {
            name.as_str().starts_with("x-envoy-upstream")
                || name.as_str().starts_with("x-envoy-retr")
        };
        assert!(!told.keys().any(asked), "{told:?}");
    }
}

/// Each attempt is told what is left for it.
#[tokio::test]
async fn a_retry_has_less_time_than_the_first_attempt() {
    let on = RetryOn::any(&[RetryCondition::ServerError]);
    let backoff = Duration::from_millis(200);
    let retry = Retry { backoff, ..Retry::new(on, 1) };
    let headers = [GRPC, ("grpc-timeout", "60S")];
    let steps = [Step::Status(503), Step::Status(200)];
    let (_, _, came) = ask(&steps, rule(None, Some(retry)), &headers).await;
    let left = came.iter().map(|one| {
        let text = one.headers["grpc-timeout"].to_str().unwrap();
        text.trim_end_matches('m').parse::<u64>().unwrap()
    });
    let left: Vec<_> = left.collect();
    assert!(left.len() == 2 && left[1] + 200 <= left[0] && left[0] <= 60_000, "{left:?}");
}

/// A client may have its requests retried, within what the route gives.
#[tokio::test]
async fn a_client_cannot_amplify_its_requests() {
    let policy = |attempts| {
        let on = RetryOn::any(&[RetryCondition::Reset]);
        Some(Retry { backoff: Duration::from_millis(1), ..Retry::new(on, attempts) })
    };
    let when = ("x-envoy-retry-on", "5xx");
    for (policy, headers, sent) in [
        (None, vec![when], 2),
        (None, vec![when, ("x-envoy-max-retries", "2")], 3),
        (None, vec![when, ("x-envoy-max-retries", "4000000000")], 4),
        (None, vec![("x-envoy-max-retries", "5")], 1),
        (policy(0), vec![when, ("x-envoy-max-retries", "5")], 1),
        (policy(1), vec![when, ("x-envoy-max-retries", "5")], 2),
        (policy(1), vec![when, ("x-envoy-max-retries", "0")], 1),
        (policy(1), vec![], 1),
    ] {
        let (lab, _, came) = ask(&[Step::Status(503)], rule(None, policy), &headers).await;
        assert_eq!(came.len(), sent, "{headers:?}");
        let flags = if sent > 1 { "URX" } else { "-" };
        lab.counted(&[&format!("response_flags=\"{flags}\"")], 1).await;
    }
}

/// The time for one stream covers its response, as Envoy's does.
#[tokio::test]
async fn a_stream_that_lasts_too_long_is_marked() {
    let headers = [("x-envoy-upstream-stream-duration-ms", "150")];
    for (step, status) in [(LONG, Some(504)), (Step::Stall, None)] {
        let (lab, answer, _) = ask(&[step], rule(None, None), &headers).await;
        assert_eq!(answer.map(|it| it.status.as_u16()), status);
        lab.counted(&["response_flags=\"UMSDR\""], 1).await;
    }
}

/// Of a deadline that the client gives nobody hears, so that it has no endpoint ejected for others; of the route's they do.
#[tokio::test]
async fn a_client_in_a_hurry_ejects_nothing() {
    for (of_route, headers, ejected) in [
        (None, vec![("x-envoy-upstream-rq-timeout-ms", "50")], false),
        (None, vec![("x-envoy-upstream-stream-duration-ms", "50")], false),
        (Some(3_600_000), vec![GRPC, ("grpc-timeout", "50m")], false),
        (Some(50), vec![GRPC, ("grpc-timeout", "1H")], true),
        (Some(50), vec![], true),
    ] {
        let (at, _script) = Script::start(&[LONG]).await;
        let (other, _other) = Script::start(&[LONG]).await;
        let mut mesh = shop_of(&[at, other]);
        let outliers = OutlierDetection { consecutive_errors: 1, ..OutlierDetection::default() };
        let policy = Policy { outliers: Some(outliers), ..Policy::default() };
        let destination = Arc::new(Destination::new("echo".into(), policy));
        let mut service = mesh.mesh.services[0].as_ref().clone();
        service.traffic.set(None, Ports::from([(80, destination.clone())]));
        mesh.mesh.services[0] = service.into();
        let mesh = mesh.route(fixture::route("r", "echo", vec![rule(of_route, None)]));
        let lab = Lab::new(mesh, WorkerSettings::for_tests());
        for _ in 0..3 {
            let mut client = Client::http1(lab.dial("client", "echo").await).await;
            _ = client.send(Method::GET, "/", &headers).await;
        }
        assert_eq!(destination.ejected().is_some(), ejected, "{of_route:?} {headers:?}");
    }
}
