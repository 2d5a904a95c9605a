//! Pods that come and go: captured before their first packet, or not started at all.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{
    administer, answers, apply, delete, directory, get, is_captured, kubectl, on_node, until,
    within,
};
use crate::guide::meshed;

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const CONFIGURATION: &str = "/etc/cni/net.d/10-lab.conflist";

/// Only who is in the mesh reaches Bookinfo.
const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: bookinfo}
spec: {mtls: {mode: STRICT}}
";

/// A pod of node2 whose init container asks for something as soon as it runs, once.
fn hasty(namespace: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: hasty, namespace: {namespace}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: node2}}
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: at-once
    image: localhost/isthmus-curl:lab
    imagePullPolicy: Never
    command: [/curl, --silent, --show-error, --fail, --max-time, '10', {DETAILS}]
  containers:
  - name: curl
    image: localhost/isthmus-curl:lab
    imagePullPolicy: Never
"
    )
}

fn phase(namespace: &str) -> Result<String> {
    let pod = get(&["pod", "-n", namespace, "hasty"])?;
    Ok(pod["status"]["phase"].as_str().unwrap_or_default().to_owned())
}

fn runs(namespace: &str) -> Result<()> {
    until(&format!("pod {namespace}/hasty to run"), || {
        let phase = phase(namespace)?;
        ensure!(phase != "Failed", "its first request failed");
        Ok((phase == "Running").then_some(()))
    })
}

#[test]
fn the_first_packet_of_a_pod_is_in_the_mesh() -> Result<()> {
    meshed()?;
    apply(STRICT)?;
    // What is refused in the clear, so that the next pod's success means something.
    until("STRICT to hold", || {
        let answer = crate::cluster::curl("outsider", &[DETAILS])?;
        Ok((answer.status == 0).then_some(()))
    })?;
    for _ in 0..3 {
        apply(&hasty("default"))?;
        runs("default")?;
        delete(&hasty("default"))?;
    }
    delete(STRICT)
}

/// Gives the agents a selector of nodes, as JSON.
fn agents_only_on(node: &str) -> Result<()> {
    let patch = format!(
        "{{\"spec\": {{\"template\": {{\"spec\": {{\"nodeSelector\": {{\"kubernetes.io/hostname\": {node}}}}}}}}}}}"
    );
    kubectl(&["patch", "-n", "isthmus-system", "daemonset/isthmus", "-p", &patch]).map(drop)
}

fn agents_everywhere() -> Result<()> {
    agents_only_on("null")?;
    let daemonset = ["rollout", "status", "-n", "isthmus-system", "daemonset/isthmus"];
    kubectl(&[&daemonset[..], &["--timeout=90s"]].concat()).map(drop)
}

fn without_agent(node: &str) -> Result<()> {
    let agents = ["pods", "-n", "isthmus-system", "-l", "app.kubernetes.io/name=isthmus"];
    until(&format!("{node} to be without an agent"), || {
        let pods = get(&agents)?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        Ok(pods.iter().all(|it| it["spec"]["nodeName"] != node).then_some(()))
    })
}

#[test]
fn without_its_agent_a_node_starts_only_pods_of_excluded_namespaces() -> Result<()> {
    meshed()?;
    agents_only_on("\"node1\"")?;
    without_agent("node2")?;
    for namespace in ["default", "kube-system"] {
        apply(&hasty(namespace))?;
    }
    within(Duration::from_secs(30), "an event that says what is missing", || {
        let events = kubectl(&["events", "-n", "default", "--for", "pod/hasty"])?;
        let told = events.contains("the Isthmus agent of this node does not answer");
        Ok((told && events.contains("check DaemonSet isthmus-system/isthmus")).then_some(()))
    })?;
    ensure!(phase("default")? == "Pending", "it must not run outside of the mesh");
    // Whom it asks is on the same node, and cut off; that it was given a network is enough.
    until("the pod of kube-system to start", || {
        let pod = get(&["pod", "-n", "kube-system", "hasty"])?;
        Ok(pod["status"]["podIP"].is_string().then_some(()))
    })?;
    agents_everywhere()?;
    runs("default")?;
    for namespace in ["default", "kube-system"] {
        delete(&hasty(namespace))?;
    }
    Ok(())
}

#[test]
fn the_plugin_is_put_back_into_a_configuration_that_is_written_anew() -> Result<()> {
    meshed()?;
    // What scripts/cluster/inside/node wrote.
    let original = directory().join("node2").join("10-lab.conflist.original");
    on_node("node2", "cp", &[&original.display().to_string(), CONFIGURATION])?;
    within(Duration::from_secs(20), "the plugin to be in the configuration again", || {
        let text = on_node("node2", "cat", &[CONFIGURATION])?;
        Ok(text.contains("\"isthmus\"").then_some(()))
    })?;
    apply(&hasty("default"))?;
    runs("default")?;
    delete(&hasty("default"))
}

/// A static pod of a namespace in the mesh.
fn fixed(mode: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: fixed, namespace: default, labels: {{istio.io/dataplane-mode: {mode}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: curl
    image: localhost/isthmus-curl:lab
    imagePullPolicy: Never
"
    )
}

/// The runtime knows it by another UID than the API. It has no service account, since otherwise a node that is taken over
/// would get any account's certificate by claiming to run such a pod.
#[test]
fn a_static_pod_stays_out_of_the_mesh_or_does_not_start() -> Result<()> {
    meshed()?;
    let manifest = directory().join("node2").join("manifests").join("fixed.yaml");
    fs::write(&manifest, fixed("none"))?;
    kubectl(&["wait", "--for=create", "pod/fixed-node2", "-n", "default", "--timeout=60s"])?;
    kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/fixed-node2",
        "-n",
        "default",
        "--timeout=60s",
    ])?;
    let address = address("fixed-node2")?.context("the address of fixed-node2")?;
    ensure!(is_captured("node2", &address)? == Some(false), "it asked to be left out");

    fs::write(&manifest, fixed("ambient"))?;
    within(Duration::from_secs(60), "an event that says why it does not start", || {
        let events = kubectl(&["events", "-n", "default", "--for", "pod/fixed-node2"])?;
        Ok(events.contains("a static pod has no service account").then_some(()))
    })?;
    fs::remove_file(&manifest)?;
    kubectl(&["wait", "--for=delete", "pod/fixed-node2", "-n", "default", "--timeout=60s"])
        .map(drop)
}

/// A server of node2 that has its name for good, with an account of this name, and what lets only the mesh reach it.
fn keeper(account: &str) -> String {
    format!(
        "
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {account}, namespace: default}}
---
apiVersion: v1
kind: Service
metadata: {{name: keeper, namespace: default}}
spec: {{clusterIP: None, selector: {{app: keeper}}, ports: [{{name: http, port: 9080}}]}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: keeper, namespace: default}}
spec: {{selector: {{matchLabels: {{app: keeper}}}}, mtls: {{mode: STRICT}}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: keeper, namespace: default}}
spec:
  serviceName: keeper
  updateStrategy: {{type: OnDelete}}
  selector: {{matchLabels: {{app: keeper}}}}
  template:
    metadata: {{labels: {{app: keeper}}}}
    spec:
      serviceAccountName: {account}
      nodeSelector: {{kubernetes.io/hostname: node2}}
      terminationGracePeriodSeconds: 1
      containers:
      - name: details
        image: localhost/isthmus-bookinfo:lab
        imagePullPolicy: Never
        args: ['--service', details, '--version', v1]
        ports: [{{containerPort: 9080}}]
"
    )
}

const KEEPER: &str = "http://keeper-0.keeper.default:9080/details/0";

/// Whose certificates the agent of node2 holds.
fn identities() -> Result<BTreeSet<String>> {
    let dump: Value = serde_json::from_str(&administer("node2", &[], "config_dump")?)?;
    let certificates = dump["certificates"].as_array().cloned().unwrap_or_default();
    let identities = certificates.iter().filter_map(|it| it["identity"].as_str());
    Ok(identities.map(str::to_owned).collect())
}

fn address(pod: &str) -> Result<Option<String>> {
    let pod = get(&["pod", "-n", "default", pod])?;
    Ok(pod["status"]["podIP"].as_str().map(str::to_owned))
}

/// The pods of a node whose probes are let through.
fn exempt(node: &str) -> Result<BTreeSet<String>> {
    let rules =
        on_node(node, "nft", &["--json", "list", "set", "inet", "isthmus_node", "pods_v4"])?;
    let rules: Value = serde_json::from_str(&rules)?;
    let sets = rules["nftables"].as_array().cloned().unwrap_or_default();
    let elements = sets.iter().filter_map(|it| it["set"]["elem"].as_array()).flatten();
    Ok(elements.filter_map(Value::as_str).map(str::to_owned).collect())
}

#[test]
fn a_pod_that_is_recreated_while_its_agent_is_down_is_another_one() -> Result<()> {
    const SPIFFE: &str = "spiffe://cluster.local/ns/default/sa/";
    meshed()?;
    apply(&keeper("keeper"))?;
    apply(&hasty("default"))?;
    runs("default")?;
    answers("curl", &[KEEPER], 200)?;
    answers("outsider", &[KEEPER], 0)?;
    let old = address("keeper-0")?.context("the address of keeper-0")?;
    let gone = address("hasty")?.context("the address of hasty")?;
    let exempted = exempt("node2")?;
    ensure!(exempted.contains(&old) && exempted.contains(&gone), "probes: {exempted:?}");
    ensure!(identities()?.contains(&format!("{SPIFFE}keeper")), "{:?}", identities()?);

    agents_only_on("\"node1\"")?;
    without_agent("node2")?;
    // One that does not come back, and one that comes back with another account.
    delete(&hasty("default"))?;
    apply(&keeper("keeper-again"))?;
    kubectl(&["delete", "pod", "-n", "default", "keeper-0"])?;
    within(Duration::from_secs(30), "an event that says what the pod waits for", || {
        let events = kubectl(&["events", "-n", "default", "--for", "pod/keeper-0"])?;
        Ok(events.contains("the Isthmus agent of this node does not answer").then_some(()))
    })?;
    ensure!(address("keeper-0")?.is_none(), "it must not run outside of the mesh");

    agents_everywhere()?;
    kubectl(&["wait", "--for=condition=Ready", "pod/keeper-0", "-n", "default", "--timeout=60s"])?;
    let new = address("keeper-0")?.context("the address of keeper-0")?;
    ensure!(is_captured("node2", &new)? == Some(true), "it runs outside of the mesh");
    answers("curl", &[KEEPER], 200)?;
    answers("far", &[KEEPER], 200)?;
    answers("outsider", &[KEEPER], 0)?;
    let identities = identities()?;
    ensure!(identities.contains(&format!("{SPIFFE}keeper-again")), "{identities:?}");
    ensure!(!identities.contains(&format!("{SPIFFE}keeper")), "{identities:?}");
    let exempted = exempt("node2")?;
    ensure!(exempted.contains(&new), "its probes are not let through: {exempted:?}");
    let left = [old, gone].into_iter().find(|it| *it != new && exempted.contains(it));
    ensure!(left.is_none(), "{left:?} is left: {exempted:?}");
    delete(&keeper("keeper-again"))?;
    delete(&keeper("keeper"))
}
