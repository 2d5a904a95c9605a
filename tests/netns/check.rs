//! `isthmus check` and `isthmus analyze` beside a running agent, as an operator runs them on its node.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::apiserver::{ApiServer, Trouble, kubeconfig};
use crate::support::lab::agents::socket;
use crate::support::lab::{Lab, wait};
use crate::{meshed, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";

/// Runs a subcommand on the node of the client, with the socket of its agent.
fn isthmus(lab: &Lab, arguments: &[&str]) -> Result<Output> {
    let node = &lab.pod("curl")?.plan.node;
    let (program, socket) = (&lab.programs().isthmus, socket(node));
    let run = || Command::new(program).args(arguments).args(["--socket", &socket]).output();
    Ok(lab.node(node)?.namespace.run(run)??)
}

fn json(output: &Output) -> Result<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).with_context(|| format!("no JSON: {said}"))
}

#[test]
fn a_node_with_a_good_agent_passes_its_checks() -> Result<()> {
    let lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let output = isthmus(&lab, &["check", "--output", "json"])?;
    let report = json(&output)?;
    let checks = report["checks"].as_array().context("checks")?;
    let outcome = |id: &str| {
        let check = checks.iter().find(|it| it["id"] == id);
        check.map(|it| it["outcome"].as_str().unwrap_or_default()).unwrap_or_default()
    };
    for id in [
        "settings",
        "kernel-rules",
        "capabilities",
        "port-metrics",
        "port-readiness",
        "agent-answers",
        "agent-version",
        "agent-ready",
        "workloads",
        "certificates",
        "roots",
        "clock",
        "source",
        "queues",
    ] {
        ensure!(outcome(id) == "pass", "{id}: {report:#}");
    }
    ensure!(outcome("api-server") == "not checked", "the source is a directory: {report:#}");
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    Ok(())
}

#[test]
fn a_pod_that_cannot_be_captured_fails_the_check_that_says_so() -> Result<()> {
    let mut lab = meshed()?;
    let node = lab.pod("curl")?.plan.node.clone();
    lab.manifests.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: lost\n  namespace: default\n  annotations: {{isthmus.io/node: {node}, \
         isthmus.io/network-namespace: nowhere}}\nspec: {{containers: [{{name: lost, image: none}}]}}\nstatus: {{podIP: \
         10.10.1.200}}\n"
    ))?;
    wait::until("the check to name the pod", || {
        let output = isthmus(&lab, &["check"])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let told = text.lines().any(|line| line.contains("FAIL") && line.contains("default/lost"));
        Ok((told && output.status.code() == Some(2)).then_some(()))
    })
}

#[test]
fn the_running_agent_analyzes_what_its_source_knows() -> Result<()> {
    let mut lab = meshed()?;
    lab.manifests.apply(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: idle, namespace: bookinfo}\nspec:\n  \
         parentRefs: [{group: \"\", kind: Service, name: details}]\n  rules: [{backendRefs: [{name: details, port: 9080}]}]\n",
    )?;
    wait::until("the finding", || {
        let output = isthmus(&lab, &["analyze", "--output", "json"])?;
        let report = json(&output)?;
        let findings = report["findings"].as_array().context("findings")?;
        let is_it = |it: &&Value| it["code"] == "ISA0101" && it["name"] == "idle";
        let code = output.status.code();
        Ok((findings.iter().any(|it| is_it(&it)) && code == Some(3)).then_some(()))
    })
}

#[test]
fn a_cluster_is_asked_for_kinds_rights_and_agents() -> Result<()> {
    let lab = meshed()?;
    let node = lab.node(&lab.pod("curl")?.plan.node)?;
    let pod = |name: &str, image: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": "istio-system", "labels": {"app.kubernetes.io/name": "isthmus"},
                "ownerReferences": [{"kind": "DaemonSet", "name": "isthmus", "controller": true}],
            },
            "spec": {"nodeName": name, "containers": [{"name": "agent", "image": image}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        })
    };
    let server = ApiServer::new([pod("one", "isthmus:1"), pod("two", "isthmus:1")]);
    server.serve_in(&node.namespace)?;
    let directory = tempfile::tempdir()?;
    let kubeconfig = kubeconfig(directory.path())?;
    let config = directory.path().join("agent.toml");
    let settings = format!("[source]\nkind = \"kubernetes\"\nkubeconfig = {kubeconfig:?}\n");
    std::fs::write(&config, settings)?;
    let config = config.to_str().context("a path")?;
    let outcomes = || -> Result<Vec<(String, String)>> {
        let report = json(&isthmus(&lab, &["check", "--output", "json", "--config", config])?)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let checks = report["checks"].as_array().context("checks")?;
        let of_cluster = checks.iter().filter(|it| it["section"] == "cluster");
        Ok(of_cluster.map(|it| (text(&it["outcome"]), text(&it["message"]))).collect())
    };
    let found = outcomes()?;
    let named: Vec<&str> = found.iter().map(|(outcome, _)| outcome.as_str()).collect();
    // The stand-in serves no kind of Gateway API.
    assert_eq!(named, ["pass", "warning", "pass", "pass"], "{found:?}");
    ensure!(found[0].1.contains("v1.36.0"), "{found:?}");
    ensure!(found[1].1.contains("gateway.networking.k8s.io"), "{found:?}");
    ensure!(found[3].1.contains("2 pods of isthmus:1"), "{found:?}");

    server.put(pod("two", "isthmus:2"));
    server.trouble("gateways", Trouble::Status(403));
    let found = outcomes()?;
    ensure!(found[2].0 == "failure" && found[2].1.contains("list gateways"), "{found:?}");
    ensure!(found[3].0 == "warning" && found[3].1.contains("isthmus:2"), "{found:?}");
    server.trouble("version", Trouble::Silent);
    let found = outcomes()?;
    ensure!(found[0].0 == "failure" && found[0].1.contains("no answer"), "{found:?}");
    Ok(())
}
