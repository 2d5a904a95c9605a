//! Pods that come and go: captured before their first packet, or not started at all.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cluster::{apply, delete, directory, get, kubectl, on_node, until, within};
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

#[test]
fn without_its_agent_a_node_starts_only_pods_of_excluded_namespaces() -> Result<()> {
    meshed()?;
    let only = |node: &str| {
        let selector = format!(
            "{{\"spec\": {{\"template\": {{\"spec\": {{\"nodeSelector\": {{\"kubernetes.io/hostname\": {node}}}}}}}}}}}"
        );
        kubectl(&["patch", "-n", "isthmus-system", "daemonset/isthmus", "-p", &selector])
    };
    only("\"node1\"")?;
    let agents = ["pods", "-n", "isthmus-system", "-l", "app.kubernetes.io/name=isthmus"];
    until("node2 to be without an agent", || {
        let pods = get(&agents)?;
        let nodes = pods["items"].as_array().cloned().unwrap_or_default();
        Ok(nodes.iter().all(|it| it["spec"]["nodeName"] != "node2").then_some(()))
    })?;
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
    only("null")?;
    kubectl(&["rollout", "status", "-n", "isthmus-system", "daemonset/isthmus", "--timeout=90s"])?;
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
