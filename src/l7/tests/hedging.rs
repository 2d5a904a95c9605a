//! Hedging: the first answer counts, within a budget.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::scripted::{Script, Step};
use super::support::*;
use super::traffic::filters;
use crate::filter::{Filter, Hedging, HttpFilter, RuleContext};
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::traffic::{Destination, LeastRetries, Policy, Ports, RetryBudget};
use crate::world::fixture::{self, backend as to};

const LONG: Step = Step::Slow(Duration::from_secs(600));
const SOON: Duration = Duration::from_secs(30);

struct Nothing;

impl RuleContext for Nothing {}

fn hedged(at: &[SocketAddr], hedging: Value, retry: Option<Retry>, policy: Policy) -> Lab {
    let mut mesh = shop_of(at);
    let mut service = mesh.mesh.services[0].as_ref().clone();
    let hedging = Hedging::read(&serde_json::from_value(hedging).unwrap(), &Nothing).unwrap();
    service.filters = vec![HttpFilter::Hedging(hedging)];
    let destination = Destination::new("echo".into(), policy);
    service.traffic.set(None, Ports::from([(80, Arc::new(destination))]));
    mesh.mesh.services[0] = service.into();
    let rule = HttpRule { retry, ..fixture::rule(vec![to("echo", 1)]) };
    Lab::new(mesh.route(fixture::route("r", "echo", vec![rule])), WorkerSettings::for_tests())
}

async fn started(steps: &[Step]) -> (Vec<SocketAddr>, Vec<Arc<Script>>) {
    let mut all = (Vec::new(), Vec::new());
    for step in steps {
        let (at, script) = Script::start(&[*step]).await;
        all.0.push(at);
        all.1.push(script);
    }
    all
}

/// Sends so many requests, and gives their statuses; none takes as long as the slow endpoint.
async fn sent(lab: &Lab, method: Method, count: usize, http2: bool) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        let stream = lab.dial("client", "echo").await;
        let mut client =
            if http2 { Client::http2(stream).await } else { Client::http1(stream).await };
        let body = Bytes::from_static(b"payload");
        let begun = Instant::now();
        let answer = client.exchange(method.clone(), "/", &[], body).await.unwrap();
        assert!(begun.elapsed() < SOON);
        statuses.push(answer.status.as_u16());
    }
    statuses
}

#[tokio::test]
async fn a_slow_endpoint_is_not_waited_for() {
    for http2 in [false, true] {
        let (at, scripts) = started(&[LONG, Step::Status(200)]).await;
        // Longer than the other takes on a busy machine.
        let lab = hedged(&at, json!({"delay": "200ms"}), None, Policy::default());
        assert_eq!(sent(&lab, Method::PUT, 10, http2).await, [200; 10]);
        // Every request is answered there, whichever was drawn first.
        let good = scripts[1].came();
        assert_eq!(good.len(), 10);
        assert!(good.iter().all(|one| one.body.as_deref() == Some(&b"payload"[..])));
        let slow = scripts[0].came();
        let numbers = |list: &[super::scripted::Came]| {
            let number = |one: &super::scripted::Came| {
                one.headers["x-envoy-attempt-count"].to_str().unwrap().to_owned()
            };
            list.iter().map(number).collect::<Vec<_>>()
        };
        assert!(numbers(&slow).iter().all(|it| it == "1"), "{:?}", numbers(&slow));
        let second = numbers(&good).iter().filter(|it| *it == "2").count();
        assert_eq!(second, slow.len());
        lab.counted(&["response_code=\"200\"", "response_flags=\"-\""], 10).await;
    }
}

/// What may not be sent twice, and what cannot go elsewhere, is sent once.
#[tokio::test]
async fn only_what_may_be_sent_twice_is() {
    let all = json!({"delay": "20ms", "methods": ["POST"]});
    let by_default = json!({"delay": "20ms"});
    let slow = Step::Slow(Duration::from_millis(800));
    for (hedging, method, endpoints, expected) in [
        (&by_default, Method::GET, 2, 2),
        (&by_default, Method::POST, 2, 1),
        (&all, Method::POST, 2, 2),
        (&all, Method::GET, 2, 1),
        (&by_default, Method::GET, 1, 1),
        // Two at once are enough unless the policy says otherwise.
        (&by_default, Method::GET, 3, 2),
        (&json!({"delay": "20ms", "maxRequests": 3}), Method::GET, 3, 3),
    ] {
        let (at, scripts) = started(&vec![slow; endpoints]).await;
        let lab = hedged(&at, hedging.clone(), None, Policy::default());
        assert_eq!(sent(&lab, method.clone(), 1, false).await, [200]);
        let came: usize = scripts.iter().map(|script| script.came().len()).sum();
        assert_eq!(came, expected, "{hedging} {method} {endpoints}");
    }
}

#[tokio::test]
async fn the_destinations_retry_budget_bounds_it() {
    let budget = |count| RetryBudget {
        by: "DestinationRule shop/echo".into(),
        per_million: 0,
        interval: Duration::ZERO,
        least: LeastRetries::Rate { count, interval: Duration::from_secs(3600) },
    };
    let slow = Step::Slow(Duration::from_millis(200));
    for count in [1, 3] {
        let (at, scripts) = started(&[slow, slow]).await;
        let policy = Policy { budget: Some(Box::new(budget(count))), ..Policy::default() };
        let lab = hedged(&at, json!({"delay": "20ms"}), None, policy);
        assert_eq!(sent(&lab, Method::GET, 6, false).await, [200; 6]);
        let came: usize = scripts.iter().map(|script| script.came().len()).sum();
        assert_eq!(came, 6 + count as usize);
    }
}

/// An answer that the retry policy would ask for again does not win over one that may be good.
#[tokio::test]
async fn a_failure_does_not_win() {
    let on = RetryOn::any(&[RetryCondition::ServerError]);
    // The rest is slower than the failure and faster than the test.
    let slow = Step::Slow(Duration::from_millis(500));
    let (at, scripts) = started(&[slow, Step::Status(503)]).await;
    let retry = Retry { backoff: Duration::from_millis(1), ..Retry::new(on, 1) };
    let lab = hedged(&at, json!({"delay": "20ms"}), Some(retry), Policy::default());
    assert_eq!(sent(&lab, Method::GET, 10, false).await, [200; 10]);
    assert_eq!(scripts[0].came().len(), 10);
}

/// The circuit of an endpoint holds for every request that it gets, whichever attempt that is.
#[tokio::test]
async fn no_further_attempt_goes_past_a_circuit() {
    let (at, scripts) = started(&[Step::Slow(Duration::from_millis(300)); 2]).await;
    let lab = hedged(&at, json!({"delay": "20ms"}), None, Policy::default());
    let mut mesh = lab.store.snapshot().mesh.clone();
    let service = Arc::make_mut(&mut mesh.services[0]);
    service.filters.extend(filters(json!({"circuitBreaker": {"endpoint": {"maxRequests": 1}}})));
    lab.store.publish(mesh);
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let mut client = Client::http1(lab.dial("client", "echo").await).await;
        all.spawn(async move { client.get("/").await.status.as_u16() });
    }
    assert_eq!(all.join_all().await, [200; 2]);
    // One each: the other endpoint of either was taken.
    let came = || scripts.iter().map(|script| script.came().len()).collect::<Vec<_>>();
    assert_eq!(came(), [1, 1]);
    // Where it is free, it is taken; and given back.
    for round in 1..=3 {
        assert_eq!(sent(&lab, Method::GET, 1, false).await, [200]);
        assert_eq!(came(), [1 + round; 2]);
    }
}
