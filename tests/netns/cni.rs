//! The CNI plugin as a container runtime runs it: a pod whose namespace no manifest names, from the start of its sandbox
//! to its end.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::support::lab::manifests::{Key, child};
use crate::support::lab::pods::{NETWORK_NAMESPACE, set_addresses};
use crate::support::lab::{Lab, private, wait};
use crate::{bookinfo, captured_in, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const LIST: &str = r#"{"cniVersion":"1.0.0", "name":"lab","plugins":[{"type":"ptp"}]}"#;

fn directory(node: &str, what: &str) -> PathBuf {
    Path::new(private::DIRECTORY).join(format!("{node}-{what}"))
}

/// The settings of a node's agent.
fn settings(node: &str) -> String {
    let path = |what| directory(node, what).display().to_string();
    format!(
        "[cni]\nenabled = \"on\"\nconf_directory = \"{}\"\nbin_directory = \"{}\"\nsocket = \"{}\"\n",
        path("net.d"),
        path("bin"),
        path("cni.sock"),
    )
}

/// Bookinfo in the mesh with plugins on its nodes; what the manifest of `curl` tells of its network is taken away, as
/// in a cluster before its sandbox is made.
fn lab() -> Result<Lab> {
    let mut lab = bookinfo()?;
    for node in ["node-a", "node-b"] {
        for what in ["net.d", "bin"] {
            fs::create_dir(directory(node, what))?;
        }
        fs::write(directory(node, "net.d").join("10-lab.conflist"), LIST)?;
    }
    let key = Key::new("Pod", "default", "curl");
    lab.manifests.change(&key, |pod| {
        let metadata = child(pod, "metadata")?;
        metadata["uid"] = json!("first");
        child(metadata, "annotations")?.as_object_mut().map(|it| it.remove(NETWORK_NAMESPACE));
        pod.as_object_mut().map(|pod| pod.remove("status"));
        Ok(())
    })?;
    lab.start_agents_each(settings)?;
    for namespace in ["bookinfo", "default"] {
        let key = Key::new("Namespace", "", namespace);
        lab.manifests.label(&key, &["istio.io/dataplane-mode=ambient"])?;
    }
    captured_in(&lab, "bookinfo")?;
    Ok(lab)
}

/// What the plugins before it said.
fn previous(lab: &Lab) -> Result<Value> {
    let address = format!("{}/24", lab.address("curl")?);
    Ok(json!({"cniVersion": "1.0.0", "interfaces": [], "ips": [{"address": address}], "dns": {}}))
}

/// One run of the installed plugin: whether it succeeded, and what it printed.
fn plugin(lab: &Lab, command: &str, name: &str, uid: &str) -> Result<(bool, String)> {
    let plan = &lab.pod("curl")?.plan;
    let list = directory(&plan.node, "net.d").join("10-lab.conflist");
    let list: Value = serde_json::from_str(&fs::read_to_string(list)?)?;
    let mut entry = list["plugins"][1].clone();
    for field in ["cniVersion", "name"] {
        entry[field] = list[field].clone();
    }
    entry["prevResult"] = previous(lab)?;
    let mut process = Command::new(directory(&plan.node, "bin").join("isthmus"))
        .env_clear()
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", format!("sandbox-of-{uid}"))
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", format!("/var/run/netns/{}", plan.network_namespace))
        .env("CNI_ARGS", format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID={uid}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("run the plugin that the agent installed")?;
    process.stdin.take().context("a standard input")?.write_all(entry.to_string().as_bytes())?;
    let output = process.wait_with_output()?;
    Ok((output.status.success(), String::from_utf8(output.stdout)?.trim().to_owned()))
}

/// The identity with which `curl` speaks, as the destination's agent saw it.
fn is_in_the_mesh(lab: &Lab) -> Result<()> {
    let moment = lab.moment()?;
    let answer = lab.curl("curl", &[DETAILS])?;
    ensure!(answer.status == 200, "{}", answer.summary());
    wait::until("a line of the log that names curl", || {
        let lines = lab.lines_since(&moment);
        let named = "src.identity=\"spiffe://cluster.local/ns/default/sa/curl\"";
        Ok(lines.iter().any(|(_, line)| line.contains(named)).then_some(()))
    })
}

#[test]
fn a_pod_is_captured_when_its_sandbox_is_made_and_released_when_it_goes() -> Result<()> {
    let mut lab = lab()?;
    ensure!(lab.rules("curl")?.is_empty(), "nobody told where it is");
    let (success, output) = plugin(&lab, "ADD", "curl", "first")?;
    ensure!(success, "{output}");
    let expected = previous(&lab)?.to_string();
    ensure!(output == expected, "the result is passed on: {output}");
    ensure!(!lab.rules("curl")?.is_empty(), "captured before the plugin ends");
    is_in_the_mesh(&lab)?;
    ensure!(plugin(&lab, "CHECK", "curl", "first")?.0);
    // The API has its address now, which changes nothing.
    let pod = lab.pod("curl")?;
    let (plan, addresses) = (pod.plan.clone(), pod.attachment.addresses);
    set_addresses(&mut lab.manifests, &plan, &addresses)?;
    is_in_the_mesh(&lab)?;

    // Its successor of the same name, whose sandbox is made before the end of the old one's is told.
    lab.manifests.change(&plan.key, |pod| {
        child(pod, "metadata")?["uid"] = json!("second");
        Ok(())
    })?;
    let (success, output) = plugin(&lab, "ADD", "curl", "second")?;
    ensure!(success, "{output}");
    is_in_the_mesh(&lab)?;
    let (success, _) = plugin(&lab, "DEL", "curl", "second")?;
    ensure!(success);
    let namespace = &lab.pod("curl")?.attachment.namespace;
    let refused = || std::net::TcpStream::connect(("127.0.0.1", 15001)).is_err();
    ensure!(namespace.run(refused)?, "the agent still listens for it");
    ensure!(plugin(&lab, "DEL", "curl", "second")?.0, "again");
    for (command, count) in [("ADD", 2.0), ("CHECK", 1.0), ("DEL", 2.0)] {
        let labels = [("command", command), ("outcome", "done")];
        let counted = lab.metrics()?.sum("isthmus_cni_requests_total", &labels);
        ensure!(counted == count, "{command}: {counted}");
    }
    ensure!(lab.metrics()?.sum("isthmus_cni_add_duration_seconds_count", &[]) == 2.0);
    Ok(())
}

#[test]
fn what_is_outside_of_the_mesh_starts_and_is_captured_when_its_label_comes() -> Result<()> {
    let mut lab = lab()?;
    let namespace = Key::new("Namespace", "", "default");
    lab.manifests.label(&namespace, &["istio.io/dataplane-mode-"])?;
    // The agent may still have the label for a moment.
    wait::until("the pod to be outside of the mesh", || {
        let (success, output) = plugin(&lab, "ADD", "curl", "first")?;
        ensure!(success, "{output}");
        Ok(lab.rules("curl")?.is_empty().then_some(()))
    })?;
    lab.manifests.label(&namespace, &["istio.io/dataplane-mode=ambient"])?;
    wait::until("the pod to be captured", || Ok((!lab.rules("curl")?.is_empty()).then_some(())))?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    is_in_the_mesh(&lab)
}

#[test]
fn a_pod_that_nobody_knows_does_not_start() -> Result<()> {
    let lab = lab()?;
    let (success, output) = plugin(&lab, "ADD", "curl", "another")?;
    ensure!(!success, "{output}");
    let error: Value = serde_json::from_str(&output)?;
    ensure!(error["code"] == 11, "{output}");
    ensure!(error["msg"] == "pod default/curl cannot be captured yet", "{output}");
    ensure!(error["details"].as_str().unwrap_or_default().contains("has not heard of this pod"));
    ensure!(lab.rules("curl")?.is_empty());
    let labels = [("command", "ADD"), ("outcome", "unknown")];
    ensure!(lab.metrics()?.sum("isthmus_cni_requests_total", &labels) > 0.0);
    Ok(())
}
