//! One of three endpoints gets slow, then fails, then is well again, while its readiness probe finds nothing: what clients
//! notice, without a policy, with outlier detection and retries, and with peak EWMA alone.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::{administer, answers, apply, delete, until};
use crate::load::{self, Outcomes, with_waypoint};

const REVIEWS: &str = "http://reviews.bookinfo:9080/headers";
/// The endpoint in trouble.
const BAD: &str = "app=reviews,version=v3";
/// How long it takes for an answer when it is slow, far longer than any other.
const SLOW: Duration = Duration::from_secs(4);
/// As long as an attempt may take under [`DETECTION`].
const PATIENCE: Duration = Duration::from_secs(1);
/// Requests in each phase, and how many at a time: so few that those who meet the slow endpoint are more than one in a hundred.
const COUNT: usize = 300;
const AT_ONCE: usize = 16;

const DETECTION: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: reviews, namespace: bookinfo }
spec:
  host: reviews
  trafficPolicy:
    outlierDetection: { consecutiveGatewayErrors: 3, interval: 1s, baseEjectionTime: 5s, maxEjectionPercent: 50 }
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: reviews, namespace: bookinfo }
spec:
  hosts: [reviews]
  http:
  - route: [{ destination: { host: reviews } }]
    retries: { attempts: 2, perTryTimeout: 1s, retryOn: 'gateway-error,reset' }
";

const PEAK_EWMA: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: reviews, namespace: bookinfo, annotations: { isthmus.io/load-balancer: PEAK_EWMA } }
spec: { host: reviews }
";

/// One phase under one policy.
struct Phase {
    outcomes: Outcomes,
    /// How many requests, retries among them, came to the endpoint in trouble.
    at_bad: usize,
}

struct Phases {
    healthy: Phase,
    slow: Phase,
    failing: Phase,
    back: Phase,
}

type PhaseOf = fn(&Phases) -> &Phase;

#[test]
fn outliers_slow_failing_and_returning() -> Result<()> {
    with_waypoint(&format!("{DETECTION}---\n{PEAK_EWMA}"), || {
        let ended = measured();
        load::trouble(BAD, "")?;
        ended
    })
}

fn measured() -> Result<()> {
    let without = phases("without").context("without a policy")?;
    apply(DETECTION)?;
    until("the policy to be in force", || ejects().map(|ejects| ejects.then_some(())))?;
    let detection = phases("detection").context("with outlier detection")?;
    delete(DETECTION)?;
    apply(PEAK_EWMA)?;
    until("the other policy to be in force", || {
        let dump = administer("node1", &[], "config_dump")?;
        Ok(dump.contains("PeakEwma").then_some(()))
    })?;
    let ewma = phases("ewma").context("with peak EWMA")?;
    load::publish("outliers", &table(&[&without, &detection, &ewma])?)?;
    judge(&without, &detection, &ewma)
}

/// Whether requests are retried, as [`DETECTION`] says: a slow endpoint's answer does not come.
fn ejects() -> Result<bool> {
    load::trouble(BAD, &format!("delay={}", SLOW.as_millis()))?;
    let outcomes = load::send("curl", REVIEWS, 16, AT_ONCE)?;
    load::trouble(BAD, "")?;
    Ok(outcomes.as_long_as(PATIENCE) > 0 && outcomes.as_long_as(SLOW) == 0)
}

fn phases(policy: &str) -> Result<Phases> {
    let phase = |name: &str, trouble: &str| -> Result<Phase> {
        load::trouble(BAD, trouble)?;
        let tag = format!("{policy}-{name}-{}", std::process::id());
        let outcomes = load::send("curl", &format!("{REVIEWS}?run={tag}"), COUNT, AT_ONCE)?;
        let at_bad = load::came_to(BAD, &tag)?;
        let (success, p99) = (outcomes.success(), outcomes.percentile(99));
        println!("{policy}, {name}: {success:.1} %, p99 {p99:?}, {at_bad} at the endpoint");
        Ok(Phase { outcomes, at_bad })
    };
    returned(policy, "before")?;
    let healthy = phase("healthy", "")?;
    let slow = phase("slow", &format!("delay={}", SLOW.as_millis()))?;
    let failing = phase("failing", "status=503")?;
    load::trouble(BAD, "")?;
    // Peak EWMA trusts an endpoint again little by little, and nobody waits for that here.
    if policy != "ewma" {
        returned(policy, "after")?;
    }
    let back = phase("back", "")?;
    Ok(Phases { healthy, slow, failing, back })
}

/// Waits until the endpoint gets requests again and has answered some.
fn returned(policy: &str, when: &str) -> Result<()> {
    let tag = format!("{policy}-{when}-{}", std::process::id());
    until("the endpoint to get requests", || {
        load::send("curl", &format!("{REVIEWS}?run={tag}"), 20, AT_ONCE)?;
        Ok((load::came_to(BAD, &tag)? > 10).then_some(()))
    })?;
    answers("curl", &[REVIEWS], 200).map(drop)
}

fn judge(without: &Phases, detection: &Phases, ewma: &Phases) -> Result<()> {
    for (what, phases) in [("without", without), ("detection", detection), ("ewma", ewma)] {
        for (phase, Phase { outcomes, at_bad }) in
            [("healthy", &phases.healthy), ("slow", &phases.slow), ("back", &phases.back)]
        {
            let success = outcomes.success();
            ensure!(success >= 99.0, "{what}, {phase}: {success} % were answered");
            let shares = phase == "slow" || what == "ewma" || *at_bad >= COUNT / 10;
            ensure!(shares, "{what}, {phase}: {at_bad} requests came to the endpoint");
        }
    }
    // Without a policy clients wait for it, and get what it says; its part depends on how fast it says it.
    ensure!(without.slow.outcomes.as_long_as(SLOW) > 0, "nobody had to wait");
    let failed = without.failing.outcomes.with_status(503);
    ensure!(failed * 100 >= COUNT * 5, "{failed} of {COUNT} failed without a policy");
    // With it they notice nothing, but for the first few.
    ensure!(detection.failing.outcomes.success() >= 97.0, "{:?}", detection.failing.outcomes);
    ensure!(detection.slow.outcomes.percentile(99) < SLOW, "{:?}", detection.slow.outcomes);
    for (what, phase) in [
        ("slow, detection", &detection.slow),
        ("failing, detection", &detection.failing),
        ("slow, peak EWMA", &ewma.slow),
    ] {
        let at_bad = phase.at_bad;
        ensure!(at_bad * 10 <= COUNT, "{what}: {at_bad} of {COUNT} came to the endpoint");
    }
    Ok(())
}

fn table(all: &[&Phases; 3]) -> Result<String> {
    let mut text = "| the endpoint | no policy | | | outlier detection, retries, 1 s for a try | | | peak EWMA | | |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n\
         | | success | p99 | requests to it | success | p99 | requests to it | success | p99 | requests to it |\n"
        .to_owned();
    let rows: [(&str, PhaseOf); 4] = [
        ("is well", |it| &it.healthy),
        ("takes 4 s", |it| &it.slow),
        ("answers 503", |it| &it.failing),
        ("is well again", |it| &it.back),
    ];
    for (name, of) in rows {
        write!(text, "| {name} |")?;
        for Phase { outcomes, at_bad } in all.map(of) {
            let p99 = outcomes.percentile(99).as_secs_f64() * 1000.0;
            let part = 100.0 * *at_bad as f64 / outcomes.count() as f64;
            write!(text, " {:.1} % | {p99:.0} ms | {part:.1} % |", outcomes.success())?;
        }
        text.push('\n');
    }
    writeln!(text, "\n{COUNT} requests in each phase, {AT_ONCE} at a time.")?;
    Ok(text)
}
