//! Retry budgets: a destination in trouble gets no more than its requests and the share that may be sent again.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::scripted::{Script, Step};
use super::support::*;
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::source::tests::translated;
use crate::traffic::{Destination, LeastRetries, Limits, Policy, Ports, RetryBudget, Traffic};
use crate::world::fixture::{self, Fixture, backend as to};

/// Longer than any test.
const HOUR: Duration = Duration::from_secs(3600);

fn budget(percent: u32, interval: Duration, least: LeastRetries) -> Policy {
    let by = "DestinationRule shop/echo".into();
    let budget = RetryBudget { by, per_million: percent * 10_000, interval, least };
    Policy { budget: Some(Box::new(budget)), ..Policy::default() }
}

/// A service whose requests are retried up to three times, under a policy.
fn under(mesh: Fixture, policy: Policy) -> Lab {
    let mut traffic = Traffic::default();
    let destination = Destination::new("echo".into(), policy);
    traffic.set(None, Ports::from([(80, Arc::new(destination))]));
    with(mesh, traffic)
}

fn with(mut mesh: Fixture, traffic: Traffic) -> Lab {
    let service = mesh.mesh.services[0].as_ref().clone();
    mesh.mesh.services[0] = Service { traffic, ..service }.into();
    let on = RetryOn::any(&[RetryCondition::ServerError]);
    let retry = Some(Retry { backoff: Duration::from_millis(1), ..Retry::new(on, 3) });
    let rule = HttpRule { retry, ..fixture::rule(vec![to("echo", 1)]) };
    Lab::new(mesh.route(fixture::route("r", "echo", vec![rule])), WorkerSettings::for_tests())
}

/// So many requests of so many clients at once.
async fn storm(lab: &Lab, clients: usize, each: usize) {
    let streams: Vec<_> =
        futures_util::future::join_all((0..clients).map(|_| lab.dial("client", "echo"))).await;
    let tasks = streams.into_iter().map(|stream| {
        tokio::spawn(async move {
            let mut client = Client::http1(stream).await;
            for _ in 0..each {
                assert_eq!(client.get("/").await.status, StatusCode::SERVICE_UNAVAILABLE);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

/// Without a budget each request is sent four times.
#[tokio::test]
async fn a_storm_of_retries_is_no_more_than_the_budget() {
    const REQUESTS: usize = 10 * 20;
    for (percent, policy) in [
        (300, Policy::default()),
        (20, budget(20, HOUR, LeastRetries::AtOnce(0))),
        (50, budget(50, HOUR, LeastRetries::AtOnce(0))),
        (0, budget(0, HOUR, LeastRetries::AtOnce(0))),
    ] {
        let (at, script) = Script::start(&[Step::Status(503)]).await;
        let lab = under(shop(at), policy);
        storm(&lab, 10, REQUESTS / 10).await;
        let came = script.came().len();
        let most = REQUESTS + REQUESTS * percent / 100;
        assert!(came <= most, "{came} for {REQUESTS} under {percent} %");
        // What there is is used, too: a request may meet others that take what it could have had, and then ends.
        assert!(came >= REQUESTS + REQUESTS * percent / 200, "{came} under {percent} %");
        lab.counted(&["response_code=\"503\""], REQUESTS as u64).await;
        let over = lab.requests(&["response_code=\"503\"", "response_flags=\"UO\""]);
        let exhausted = lab.requests(&["response_code=\"503\"", "response_flags=\"URX\""]);
        assert_eq!(over + exhausted, REQUESTS as u64, "each is told why it was not sent again");
        assert_eq!(over == 0, percent == 300, "{over}");
    }
}

/// Requests in progress are counted, by whichever client, and the budget holds instead of `maxRetries`.
#[tokio::test]
async fn retries_in_progress_are_a_share_of_what_is_in_progress() {
    let long = Step::Slow(Duration::from_secs(600));
    // With the one that fails there are five.
    for (others, expected) in [(0, 503), (3, 503), (4, 200)] {
        let mut steps = vec![long; others];
        steps.extend([Step::Status(503), Step::Status(200)]);
        let (at, script) = Script::start(&steps).await;
        let limits = Limits { max_retries: Some(1), ..Limits::default() };
        let policy = Policy {
            limits: Some(Box::new(limits)),
            ..budget(20, Duration::ZERO, LeastRetries::AtOnce(0))
        };
        let lab = under(shop(at), policy);
        let mut held = Vec::new();
        for number in 0..others {
            let mut client = Client::http1(lab.dial("client", "echo").await).await;
            held.push(tokio::spawn(async move { client.get("/").await }));
            script.wait_for(number + 1).await;
        }
        let mut client = Client::http1(lab.dial("client", "echo").await).await;
        let answer = client.get("/").await;
        assert_eq!(answer.status, expected, "{others}");
        held.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// The minimum holds however little is in progress.
#[tokio::test]
async fn a_minimum_is_left_to_destinations_with_little_traffic() {
    for (policy, expected) in [
        (budget(20, Duration::ZERO, LeastRetries::AtOnce(3)), 200),
        (budget(20, Duration::ZERO, LeastRetries::AtOnce(0)), 503),
        (budget(20, HOUR, LeastRetries::Rate { count: 1, interval: HOUR }), 200),
    ] {
        let (at, _script) = Script::start(&[Step::Status(503), Step::Status(200)]).await;
        let lab = under(shop(at), policy);
        let mut client = Client::http1(lab.dial("client", "echo").await).await;
        assert_eq!(client.get("/").await.status, expected);
    }
}

/// From the manifests of either API to traffic: a fifth of the requests is sent again.
#[tokio::test]
async fn the_budget_of_a_manifest_holds() {
    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: echo, namespace: shop}\n\
        spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}\n---\n";
    for manifest in [
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: echo, namespace: shop}\n\
         spec: {host: echo, trafficPolicy: {retryBudget: {percent: 20, minRetryConcurrency: 1, budgetInterval: 1h}}}\n",
        "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\n\
         metadata: {name: echo, namespace: shop}\nspec: {targetRefs: [{kind: Service, name: echo, group: ''}], \
         retryConstraint: {budget: {percent: 20, interval: 1h}, minRetryRate: {count: 1, interval: 1h}}}\n",
    ] {
        let translation = translated(&format!("{SERVICE}{manifest}"));
        let of_policies = translation.complaints.iter().filter(|it| it.kind != "Service");
        assert_eq!(of_policies.count(), 0, "{:?}", translation.complaints);
        let (at, script) = Script::start(&[Step::Status(503)]).await;
        let lab = with(shop(at), translation.mesh.services[0].traffic.clone());
        // One after the other: a minimum of one at once would otherwise be taken besides.
        storm(&lab, 1, 50).await;
        let came = script.came().len();
        let by_rate = manifest.contains("minRetryRate");
        assert!(!by_rate || (58..=61).contains(&came), "{came}");
        assert!(by_rate || came == 50 * 4, "one at once is always allowed: {came}");
    }
}
