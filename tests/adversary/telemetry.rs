//! Telemetry: what a tenant says holds for its own workloads alone, and neither a header nor an object makes spans that are large, or
//! that say what another wants.

use anyhow::{Result, ensure};

use crate::collector::{Collector, Seen, mesh_config, text};
use crate::support::lab::manifests::Key;
use crate::support::lab::wait;
use crate::{WAYPOINT, application, captured_in, enrol, settle};

const PAGE: &str = "http://details.bookinfo:9080/details/0";

/// All that its owner may write in the namespace `evil`, to get others' spans, to end them, or to read the agent's environment.
const ATTACKS: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: all, namespace: evil}
spec:
  tracing:
  - providers: [{name: evil}]
    customTags:
      agent: {environment: {name: PATH, defaultValue: default}}
      sent: {header: {name: x-tag}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: selects, namespace: evil}
spec:
  selector: {matchLabels: {app: details}}
  tracing: [{providers: [{name: evil}]}]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: targets, namespace: evil}
spec:
  targetRefs:
  - {group: '', kind: Service, name: details, namespace: bookinfo}
  tracing: [{disableSpanReporting: true}]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: same-name, namespace: evil}
spec:
  targetRefs:
  - {group: '', kind: Service, name: details}
  - {group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}
  tracing: [{providers: [{name: evil}]}]
---
apiVersion: v1
kind: Service
metadata: {name: details, namespace: evil, labels: {istio.io/use-waypoint: waypoint, istio.io/use-waypoint-namespace: bookinfo}}
spec: {clusterIP: 10.96.66.6, selector: {app: details}, ports: [{name: http, port: 9080}]}
";

#[test]
fn a_tenant_gets_and_ends_nobody_elses_spans() -> Result<()> {
    let mut lab = application(&[crate::EVIL, WAYPOINT])?;
    lab.manifests
        .label(&Key::new("Namespace", "", "bookinfo"), &["istio.io/use-waypoint=waypoint"])?;
    let ((mesh, at), (evil, evil_at)) = (Collector::start(&lab)?, Collector::start(&lab)?);
    lab.manifests.apply(&mesh_config(&[("mesh", at), ("evil", evil_at)]))?;
    lab.manifests.apply(ATTACKS)?;
    lab.start_agents("")?;
    enrol(&mut lab)?;
    captured_in(&lab, "evil")?;
    let huge = format!("x-tag: \"}},{{\"k{}", "x".repeat(6_000));
    let attacker = wait::until("spans of the attacker and of its victim", || {
        settle(&lab, "attacker", &["-H", &huge, PAGE], 200)?;
        settle(&lab, "curl", &["-H", &huge, PAGE], 200)?;
        let is_request = |seen: &&Seen| seen.span.attributes.iter().any(|it| it.key == "sent");
        let attacker = evil.of("attacker.evil").iter().find(is_request).cloned();
        let of_others =
            !mesh.of("details.bookinfo").is_empty() && !mesh.of("curl.default").is_empty();
        Ok(attacker.filter(|_| of_others))
    })?;
    let foreign = evil.all().into_iter().find(|seen| !seen.service.ends_with(".evil"));
    ensure!(foreign.is_none(), "the attacker got a span of {:?}", foreign.map(|it| it.service));
    // Its own ones say nothing of the agent, and are bounded.
    let attributes = &attacker.span.attributes;
    ensure!(text(attributes, "agent") == "default", "{attributes:?}");
    let sent = text(attributes, "sent");
    ensure!(sent.len() <= 1_024 && sent.starts_with("\"},{\"kx"), "{} bytes: {sent:?}", sent.len());
    ensure!(attributes.iter().filter(|it| it.key == "k").count() == 0, "{attributes:?}");
    // Nobody else's spans have its tags.
    let tagged =
        |seen: &Seen| seen.span.attributes.iter().any(|it| it.key == "agent" || it.key == "sent");
    ensure!(!mesh.all().iter().any(tagged));
    Ok(())
}

/// What the owner of `evil` may write to be counted as another, or to fill the metrics.
const FORGERY: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: forgery, namespace: evil}
spec:
  metrics:
  - overrides:
    - tagOverrides:
        source_workload: {value: '\"productpage-v1\"'}
        source_workload_namespace: {value: '\"bookinfo\"'}
        source_principal: {value: '\"spiffe://cluster.local/ns/bookinfo/sa/bookinfo-productpage\"'}
        destination_service_name: {operation: REMOVE}
        le: {value: request.path}
        path: {value: request.path}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: target, namespace: evil}
spec:
  targetRefs: [{group: '', kind: Service, name: details, namespace: bookinfo}]
  metrics: [{overrides: [{disabled: true}]}]
";

/// Series of all tenants come from one agent: none can be written in another's name, and those of one tenant's clients have their
/// bound.
#[test]
fn a_tenant_forges_and_fills_nobody_elses_metrics() -> Result<()> {
    let mut lab = application(&[crate::EVIL, WAYPOINT])?;
    lab.manifests
        .label(&Key::new("Namespace", "", "bookinfo"), &["istio.io/use-waypoint=waypoint"])?;
    lab.manifests.apply(FORGERY)?;
    lab.start_agents("[metrics]\nmax_namespace_series = 100\n")?;
    enrol(&mut lab)?;
    captured_in(&lab, "evil")?;
    let requests = "istio_requests_total";
    let own = [("source_workload", "attacker"), ("source_workload_namespace", "evil")];
    wait::until("requests of the attacker, by their path", || {
        settle(&lab, "attacker", &[PAGE], 200)?;
        let metrics = lab.metrics()?;
        Ok(metrics.find(requests, &own).any(|it| it.labels.contains_key("path")).then_some(()))
    })?;
    for number in 0..40 {
        settle(&lab, "attacker", &[&format!("{PAGE}?{number}")], 200)?;
    }
    settle(&lab, "curl", &[PAGE], 200)?;
    let metrics = lab.metrics()?;
    let paths = metrics.find(requests, &own).filter(|it| it.labels.contains_key("path")).count();
    ensure!(paths <= 25, "{paths} series: a quarter of the namespace's is its part for one other");
    ensure!(
        metrics.sum("isthmus_metrics_folded_total", &[]) > 0.0,
        "the others are counted all the same"
    );
    let forged = metrics.find(requests, &[("source_workload", "productpage-v1")]);
    ensure!(forged.count() == 0, "nobody was asked by productpage");
    let legitimate = [("source_workload", "curl"), ("destination_service_name", "details")];
    ensure!(metrics.sum(requests, &legitimate) > 0.0, "the victim's metrics are as they were");
    Ok(())
}
