//! Faults in the share that is stated, over 10,000 requests each: the draw is exact. What is counted is what clients got, what the
//! client's node says in its metrics, and what came to the application.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::cluster::{apply, on_node, until};
use crate::load::{self, with_waypoint};

const REQUESTS: usize = 10_000;
const DELAY: Duration = Duration::from_secs(1);
/// A share of so many hundredths of a percent begins anywhere in its period.
const MARGIN: usize = 1;

const FAULTS: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: reviews, namespace: bookinfo }
spec:
  hosts: [reviews]
  http:
  - fault: { abort: { httpStatus: 418, percentage: { value: 7.25 } } }
    route: [{ destination: { host: reviews } }]
---
apiVersion: isthmus.io/v1alpha1
kind: TrafficPolicy
metadata: { name: ratings, namespace: bookinfo }
spec:
  targetRefs: [{ group: '', kind: Service, name: ratings }]
  fault: { abort: { httpStatus: 418, percentage: 20 } }
---
apiVersion: isthmus.io/v1alpha1
kind: TrafficPolicy
metadata: { name: details, namespace: bookinfo }
spec:
  targetRefs: [{ group: '', kind: Service, name: details }]
  fault: { delay: { fixedDelay: 1s, percentage: 1 } }
";

/// A fault of one kind, and a client of its own.
#[derive(Clone, Copy)]
struct Case {
    what: &'static str,
    percent: f64,
    app: &'static str,
    from: &'static str,
    node: &'static str,
    /// Of the requests that are concerned, in metrics.
    flag: &'static str,
}

const CASES: [Case; 3] = [
    Case {
        what: "`abort` of a VirtualService",
        percent: 7.25,
        app: "reviews",
        from: "curl",
        node: "node1",
        flag: "FI",
    },
    Case {
        what: "`abort` of a TrafficPolicy",
        percent: 20.0,
        app: "ratings",
        from: "stranger",
        node: "node1",
        flag: "FI",
    },
    Case {
        what: "`delay` of a TrafficPolicy",
        percent: 1.0,
        app: "details",
        from: "far",
        node: "node2",
        flag: "DI",
    },
];

#[test]
fn faults_in_the_stated_share() -> Result<()> {
    with_waypoint(FAULTS, || {
        apply(FAULTS)?;
        for case in CASES {
            until(case.what, || {
                let before = flagged(case)?;
                load::send(case.from, &url(case), 100, 8)?;
                Ok((flagged(case)? > before).then_some(()))
            })?;
        }
        let rows = std::thread::scope(|scope| {
            let cases = CASES.map(|case| scope.spawn(move || measured(case)));
            cases.map(|case| case.join().map_err(|_| anyhow!("a client panicked")))
        });
        let mut table = "| fault | stated | of 10,000 requests |\n| --- | --- | --- |\n".to_owned();
        for (case, row) in CASES.iter().zip(rows) {
            writeln!(table, "| {} | {} % | {} |", case.what, case.percent, row??)?;
        }
        load::publish("faults", &table)
    })
}

fn url(case: Case) -> String {
    format!("http://{}.bookinfo:9080/headers", case.app)
}

/// How many requests the fault concerned.
fn measured(case: Case) -> Result<usize> {
    let Case { what, percent, app, from, flag, .. } = case;
    let stated = (REQUESTS as f64 * percent / 100.0).round() as usize;
    let before = flagged(case)?;
    let tag = format!("faults-{flag}-{}", std::process::id());
    let outcomes = load::send(from, &format!("{}?run={tag}", url(case)), REQUESTS, 8)?;
    let (aborted, passed) = (outcomes.with_status(418), outcomes.with_status(200));
    // Where the machine is too slow for the readiness probes, some find no endpoint that is ready.
    let failed = REQUESTS - aborted - passed;
    // A request is counted when it has been answered; the last one a moment later.
    let counted = until("the requests to be counted", || {
        let counted = flagged(case)? - before;
        Ok((counted + MARGIN + failed >= stated).then_some(counted))
    })?;
    let came = load::came_to(&format!("app={app}"), &tag)?;
    println!("{what}: {counted} of {stated}; {aborted} aborted, {came} came, {failed} failed");
    ensure!(failed * 20 <= REQUESTS, "{what}: {failed} failed");
    ensure!(counted.abs_diff(stated) <= MARGIN + failed, "{what}: {counted}, and {stated} shall");
    ensure!(came >= passed, "{what}: {passed} of {came} were answered");
    if flag == "FI" {
        ensure!(aborted <= counted && counted <= aborted + failed, "{what}: {aborted} aborted");
        ensure!(came <= REQUESTS - counted, "{what}: {came} came, and {counted} were aborted");
    } else {
        let waited = outcomes.as_long_as(DELAY);
        ensure!(aborted == 0 && waited >= counted, "{what}: {waited} took as long");
    }
    Ok(counted)
}

/// How many requests to the service the client's node has counted with the flag.
fn flagged(case: Case) -> Result<usize> {
    let metrics = on_node(case.node, "curl", &["-fsS", "http://127.0.0.1:15020/metrics"])?;
    let labels = [
        "istio_requests_total{".to_owned(),
        "reporter=\"waypoint\"".to_owned(),
        format!("destination_service_name=\"{}\"", case.app),
        format!("response_flags=\"{}\"", case.flag),
    ];
    let fits = |line: &&str| labels.iter().all(|label| line.contains(label.as_str()));
    let values = metrics.lines().filter(fits).filter_map(|line| line.rsplit_once(' '));
    values.map(|(_, value)| value.parse::<usize>().context("a count")).sum()
}
