//! A retry storm: every endpoint fails, and every request may be sent four times. What comes to the endpoints is counted there.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cluster::{apply, delete, until};
use crate::load::{self, with_waypoint};

const REVIEWS: &str = "http://reviews.bookinfo:9080/headers";
const ALL: [&str; 3] =
    ["app=reviews,version=v1", "app=reviews,version=v2", "app=reviews,version=v3"];
/// How often a request is sent at most.
const ATTEMPTS: usize = 4;
/// The least time between two attempts of [`RETRIES`].
const BACKOFF: Duration = Duration::from_millis(100);
/// What a budget allows, in percent.
const SHARE: usize = 20;
/// A retry of each 10 s besides.
const LEAST: usize = 1;

const RETRIES: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: reviews, namespace: bookinfo }
spec:
  hosts: [reviews]
  http:
  - route: [{ destination: { host: reviews } }]
    retries: { attempts: 3, retryOn: 5xx, backoff: 100ms }
";

const RULE: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: reviews, namespace: bookinfo }
spec:
  host: reviews
  trafficPolicy:
    retryBudget: { percent: 20, minRetryConcurrency: 1, budgetInterval: 10s }
";

const CONSTRAINT: &str = "\
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: { name: reviews, namespace: bookinfo }
spec:
  targetRefs: [{ group: '', kind: Service, name: reviews }]
  retryConstraint: { budget: { percent: 20, interval: 10s }, minRetryRate: { count: 1, interval: 10s } }
";

#[test]
fn a_storm_of_retries_does_not_amplify() -> Result<()> {
    with_waypoint(&format!("{RETRIES}---\n{RULE}---\n{CONSTRAINT}"), || {
        let ended = storms();
        for pod in ALL {
            load::trouble(pod, "")?;
        }
        ended
    })
}

fn storms() -> Result<()> {
    for pod in ALL {
        load::trouble(pod, "status=503")?;
    }
    let count = if load::documents() { 2000 } else { 400 };
    apply(RETRIES)?;
    unbounded()?;
    let without = storm("without", count)?;
    // Where no endpoint is ready for a moment, a request comes to none.
    ensure!(without.came * 10 >= count * ATTEMPTS * 9, "{} came of {count}", without.came);
    let mut text = format!(
        "| policy | requests | came to the endpoints | times |\n| --- | --- | --- | --- |\n{}",
        without.row("none")
    );
    for (what, policy) in [("XBackendTrafficPolicy", CONSTRAINT), ("DestinationRule", RULE)] {
        apply(policy)?;
        // These count in the budget's interval as well.
        let mut before = 0;
        until("the budget to be in force", || {
            before += 10;
            Ok((storm("warm", 10)?.came < 10 * ATTEMPTS / 2).then_some(()))
        })?;
        let budget = storm(what, count)?;
        let seconds = budget.took.as_secs() as usize + 1;
        // By the rate, or one at a time, each of which waits before it is sent.
        let least = match what {
            "DestinationRule" => budget.took.as_millis() / BACKOFF.as_millis() + 1,
            _ => (LEAST * (2 + seconds / 10)) as u128,
        };
        let most = count + (count + before) * SHARE / 100 + least as usize;
        println!("{what}: {} of at most {most} in {:?}", budget.came, budget.took);
        ensure!(budget.came <= most, "{what}: {} came, at most {most}", budget.came);
        // It is used, too.
        ensure!(budget.came > count, "{what}: nothing was sent again");
        text += &budget.row(what);
        delete(policy)?;
        unbounded()?;
    }
    load::publish("storm", &text)
}

/// Waits until every request is sent as often as it may be.
fn unbounded() -> Result<()> {
    until("requests to be sent again", || {
        Ok((storm("warm", 10)?.came == 10 * ATTEMPTS).then_some(()))
    })
}

struct Storm {
    requests: usize,
    came: usize,
    took: Duration,
}

impl Storm {
    fn row(&self, policy: &str) -> String {
        let Self { requests, came, .. } = self;
        format!("| {policy} | {requests} | {came} | {:.2} |\n", *came as f64 / *requests as f64)
    }
}

/// So many requests, all of which fail.
fn storm(name: &str, requests: usize) -> Result<Storm> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static STORMS: AtomicUsize = AtomicUsize::new(0);
    let number = STORMS.fetch_add(1, Ordering::Relaxed);
    let tag = format!("storm-{name}-{number}-{}", std::process::id());
    let outcomes = load::send("curl", &format!("{REVIEWS}?run={tag}."), requests, 16)?;
    let failed = outcomes.with_status(503);
    ensure!(failed == requests, "{failed} of {requests} got 503");
    Ok(Storm { requests, came: load::came_to("app=reviews", &tag)?, took: outcomes.took })
}
