//! What an operator takes from an agent with a read-only root file system: profiles and dumps, the log that Telemetry filters, and
//! the trace of a request over both nodes.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::Instant;

use crate::cluster::{administer, agent_log, answers, delete, pod, until};
use crate::guide::meshed;
use crate::listener::{self, listen};
use crate::profile::Profile;
use crate::spans::{Collector, Seen};
use crate::users::guarded;

/// The image's program keeps the names of its functions: without them a profile says nothing.
#[test]
fn a_profile_of_an_agent_can_be_taken_and_names_functions() -> Result<()> {
    meshed()?;
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("agent.pb.gz");
    let output = file.display().to_string();
    let taking = thread::spawn(move || {
        administer(
            "node1",
            &["--show-error", "--fail", "-o", &output],
            "debug/pprof/profile?seconds=3&frequency=1000",
        )
    });
    // Something to do that is not done in system calls, where no samples are taken.
    while !taking.is_finished() {
        administer("node1", &["--show-error", "-o", "/dev/null"], "config_dump?[1-50]")?;
    }
    taking.join().ok().context("the thread that takes the profile panicked")??;
    let profile = Profile::read(&file)?;
    ensure!(profile.total() > 0, "the profile is empty");
    ensure!(profile.names_functions(), "no function of Isthmus has a name: {:?}", profile.strings);
    Ok(())
}

const PAGE: &str = "http://productpage.bookinfo:9080/productpage";

/// Of the namespace of the clients, where the waypoint's requests are logged.
const FAILURES_ALONE: &str = "\
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: { name: log, namespace: default }
spec:
  accessLogging: [{ filter: { expression: 'response.code >= 400' } }]
";

/// How many requests to a path the agent of the client has logged.
fn logged(path: &str) -> Result<usize> {
    let client = pod("default", "app=curl")?;
    let log = agent_log(client["spec"]["nodeName"].as_str().context("a node")?)?;
    Ok(log.lines().filter(|line| line.contains(path) && line.contains("outbound")).count())
}

#[test]
fn telemetry_says_which_requests_are_logged() -> Result<()> {
    // A request that succeeds and one that fails, in this order and with paths of this time.
    let mut times = 1_u32..;
    let mut both = || -> Result<(usize, usize)> {
        let time = times.next().context("a number")?;
        let (good, bad) =
            (format!("/details/0?logged={time}."), format!("/missing?logged={time}."));
        let url = |path: &str| format!("http://details.bookinfo:9080{path}");
        answers("curl", &[&url(&good)], 200)?;
        answers("curl", &[&url(&bad)], 404)?;
        until("the line of the failure", || Ok((logged(&bad)? > 0).then_some(())))?;
        Ok((logged(&good)?, logged(&bad)?))
    };
    guarded(FAILURES_ALONE, || {
        until("the line of the failure alone", || Ok((both()? == (0, 1)).then_some(())))?;
        delete(FAILURES_ALONE)?;
        until("lines of both requests again", || Ok((both()? == (1, 1)).then_some(())))
    })
}

/// A collector in a pod, and who sends spans there.
const TRACED: &str = "\
apiVersion: v1
kind: Namespace
metadata: { name: istio-system }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: istio, namespace: istio-system }
data:
  mesh: |
    extensionProviders:
    - name: collector
      opentelemetry:
        service: outsider.default.svc.cluster.local
        port: 4318
        http: { path: /v1/traces }
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: { name: mesh, namespace: istio-system }
spec:
  tracing: [{ providers: [{ name: collector }] }]
";

/// Services, and the kinds of their spans (2 is SERVER, 3 is CLIENT), in the trace of a page.
const COMPLETE: [(&str, i32); 5] = [
    ("curl.default", 3),
    ("productpage.bookinfo", 2),
    ("productpage.bookinfo", 3),
    ("details.bookinfo", 2),
    ("reviews.bookinfo", 2),
];

/// The spans of a trace, if all services send some within a few seconds.
fn complete(collector: &Collector, id: u128) -> Option<Vec<Seen>> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        let all = collector.all().into_iter();
        let spans: Vec<Seen> = all.filter(|seen| seen.span.trace_id == id.to_be_bytes()).collect();
        let kinds: BTreeSet<(&str, i32)> =
            spans.iter().map(|seen| (seen.service.as_str(), seen.span.kind)).collect();
        if COMPLETE.iter().all(|wanted| kinds.contains(wanted)) {
            return Some(spans);
        }
        thread::sleep(Duration::from_millis(50));
    }
    None
}

/// Checks that each span of the trace has the parent that it should have.
fn has_right_parents(spans: &[Seen]) -> Result<()> {
    let by_id: HashMap<&[u8], &Seen> =
        spans.iter().map(|seen| (seen.span.span_id.as_slice(), seen)).collect();
    for Seen { service, span } in spans {
        match (span.kind, by_id.get(span.parent_span_id.as_slice())) {
            (2, Some(caller)) => ensure!(caller.span.kind == 3, "{service}: {span:?}"),
            (3, Some(application)) => {
                ensure!(
                    application.span.kind == 2 && application.service == *service,
                    "{service}: {span:?}"
                );
            }
            (3, None) => ensure!(service == "curl.default", "{service}: {span:?}"),
            _ => bail!("a span without a parent: {service}: {span:?}"),
        }
    }
    Ok(())
}

#[test]
fn a_page_over_two_nodes_is_one_trace() -> Result<()> {
    meshed()?;
    let collector = Collector::serve(listen(listener::SPANS)?);
    guarded(&format!("{}---\n{TRACED}", listener::SERVICE), || {
        let mut traces = 1_u128..;
        let spans = until("a trace of the page, its details and reviews", || {
            let id = traces.next().context("an id")?;
            let parent = format!("traceparent: 00-{id:032x}-b7ad6b7169203331-01");
            answers("curl", &["-H", &parent, PAGE], 200)?;
            Ok(complete(&collector, id))
        })?;
        has_right_parents(&spans)
    })
}
