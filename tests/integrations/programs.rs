//! The programs, on a node or in a pod of the lab.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::support::lab::Lab;
use crate::support::lab::curl::curl;
use crate::support::lab::netns::Namespace;
use crate::support::lab::network::Node;
use crate::support::lab::process::{Process, command};
use crate::{application, captured_in, enrol};

/// Where `scripts/integrations` has put those that it built.
const DIRECTORY: &str = "INTEGRATION_PROGRAMS";

/// One of them, by its name.
pub fn program(name: &str) -> Result<PathBuf> {
    let directory = std::env::var_os(DIRECTORY)
        .with_context(|| format!("{DIRECTORY} is not set: run scripts/integrations"))?;
    let path = Path::new(&directory).join(name);
    ensure!(path.exists(), "{} is missing: run scripts/integrations", path.display());
    Ok(path)
}

/// The node that the programs run on.
pub fn node(lab: &Lab) -> Result<&Node> {
    lab.network().nodes().first().context("no node")
}

/// Starts one there, and waits until it listens.
pub fn start(lab: &Lab, path: &Path, arguments: &[&str], port: u16) -> Result<Process> {
    start_in(lab, &node(lab)?.namespace, path, arguments, port)
}

/// Starts one in a pod, and waits until it listens.
pub fn start_in_pod(
    lab: &Lab,
    pod: &str,
    path: &Path,
    arguments: &[&str],
    port: u16,
) -> Result<Process> {
    start_in(lab, &lab.pod(pod)?.attachment.namespace, path, arguments, port)
}

fn start_in(
    lab: &Lab,
    at: &Namespace,
    path: &Path,
    arguments: &[&str],
    port: u16,
) -> Result<Process> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut command = command(at, path);
    command.args(arguments);
    let mut process = Process::start(&name, at, command, lab.logs())?;
    process.wait_for_port(port)?;
    Ok(process)
}

/// A pod of the namespace `auth` for one of them, on the node where details does not run, with a Service of its name.
fn pod(name: &str, port: u16) -> String {
    let namespace = "
apiVersion: v1
kind: Namespace
metadata: {name: auth, labels: {istio.io/dataplane-mode: ambient}}
---";
    format!("{namespace}{}", pod_of("auth", name, port))
}

/// The same in another namespace that is there.
pub fn pod_of(namespace: &str, name: &str, port: u16) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  labels: {{app: {name}}}
  annotations: {{isthmus.io/node: node-a, isthmus.io/network-namespace: {name}}}
spec:
  serviceAccountName: {name}
  containers: [{{name: {name}, image: {name}, ports: [{{name: grpc-or-http, containerPort: {port}}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: authorizer, port: {port}, targetPort: {port}}}]
"
    )
}

/// Bookinfo in the mesh with `manifests`, and the pod of a program, which is not started yet.
pub fn meshed_with(name: &str, port: u16, manifests: &str) -> Result<Lab> {
    let mut lab = application(&[&pod(name, port), manifests])?;
    lab.start_agents("")?;
    enrol(&mut lab)?;
    captured_in(&lab, "auth")?;
    Ok(lab)
}

/// The JSON that a program of the node answers with, when it answers.
pub fn ask(lab: &Lab, url: &str) -> Result<Option<Value>> {
    let answer = curl(&node(lab)?.namespace, &[url])?;
    Ok((answer.status == 200).then(|| answer.json()))
}
