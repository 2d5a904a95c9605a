//! The cluster of `scripts/cluster`, as its operator sees it: kubectl, curl in a pod, a node's own shell.

#![allow(dead_code, reason = "the tests use different parts")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::wait::looking_every;

/// How long something may take to become true: pods start in a second or two, statuses are written in less.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to pause between two looks: each runs kubectl, which takes time from what is waited for.
const PAUSE: Duration = Duration::from_millis(200);
/// After this many seconds a request has failed.
const MAX_TIME: &str = "10";
/// Comes before the status that curl writes after the body.
const STATUS: &str = "\n--status--";

/// What came back from curl.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// 0 when there was no HTTP answer.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: String,
    /// What curl says of a request that failed.
    pub error: String,
}

/// The project's directory.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the cluster keeps its logs and sockets.
pub fn directory() -> PathBuf {
    std::env::var_os("CLUSTER").map_or_else(|| "/tmp/isthmus-cluster".into(), PathBuf::from)
}

/// A command inside of the cluster's network.
pub fn inside(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(root().join("scripts/cluster/enter"));
    command.arg(program).args(arguments).stdin(Stdio::null());
    command
}

/// A command in a node's network and mount namespace.
pub fn on_node(node: &str, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(root().join("scripts/cluster/enter"));
    command.args(["--node", node, program]).args(arguments).stdin(Stdio::null());
    succeeded(&format!("{program} {} on {node}", arguments.join(" ")), command.output()?)
}

/// Asks the agent of a node over its socket, as root on the node does, with more arguments for curl.
pub fn administer(node: &str, arguments: &[&str], path: &str) -> Result<String> {
    let (socket, url) = (format!("/run/isthmus/admin/{node}.sock"), format!("http://agent/{path}"));
    let asked = ["--silent", "--max-time", "20", "--unix-socket", &socket, &url];
    on_node(node, "curl", &[&asked, arguments].concat())
}

/// `kubectl ARGUMENTS`, its standard output.
pub fn kubectl(arguments: &[&str]) -> Result<String> {
    let output = inside("kubectl", arguments).output().context("run scripts/cluster/enter")?;
    succeeded(&format!("kubectl {}", arguments.join(" ")), output)
}

/// Applies manifests.
pub fn apply(text: &str) -> Result<()> {
    with_input(&["apply", "-f", "-"], text)
}

/// Applies a file of the project.
pub fn apply_file(path: &str) -> Result<()> {
    kubectl(&["apply", "-f", &root().join(path).display().to_string()]).map(drop)
}

/// Deletes what manifests name, and makes it again under its name.
pub fn replace_by_force(text: &str) -> Result<()> {
    with_input(&["replace", "--force", "-f", "-"], text)
}

/// Deletes what manifests name, and waits until it is gone; what is not there is no error.
pub fn delete(text: &str) -> Result<()> {
    with_input(&["delete", "--ignore-not-found", "--wait", "-f", "-"], text)
}

fn with_input(arguments: &[&str], text: &str) -> Result<()> {
    use std::io::Write;
    let mut command = inside("kubectl", arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    succeeded(&format!("kubectl {}, with the input:\n{text}\n", arguments.join(" ")), output)
        .map(drop)
}

/// An object as JSON, `null` when it is not there.
pub fn get(arguments: &[&str]) -> Result<Value> {
    let mut all = vec!["get", "--ignore-not-found", "-o", "json"];
    all.extend(arguments);
    let text = kubectl(&all)?;
    if text.trim().is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
}

/// The first pod of a Deployment's `app` label that runs and is not on its way out.
pub fn pod(namespace: &str, selector: &str) -> Result<Value> {
    let pods = get(&["pods", "-n", namespace, "-l", selector])?;
    let items = pods["items"].as_array().cloned().unwrap_or_default();
    let alive = |pod: &Value| {
        pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running"
    };
    let found = items.into_iter().find(alive);
    found.with_context(|| format!("no pod of {namespace} with {selector} runs"))
}

/// Waits until all pods of a namespace are ready, and those that were deleted are gone.
pub fn settled(namespace: &str) -> Result<()> {
    settled_within(namespace, PATIENCE)
}

/// As [`settled`], with another patience.
pub fn settled_within(namespace: &str, patience: Duration) -> Result<()> {
    within(patience, &format!("the pods of {namespace} to be ready"), || {
        let pods = get(&["pods", "-n", namespace])?;
        let items = pods["items"].as_array().cloned().unwrap_or_default();
        let ready = |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_ready = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
            pod["metadata"]["deletionTimestamp"].is_null() && conditions.iter().any(is_ready)
        };
        Ok((!items.is_empty() && items.iter().all(ready)).then_some(()))
    })
}

/// The arguments of `kubectl` for curl in a Deployment of the namespace `default`.
fn curl_arguments<'a>(from: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["exec", from, "--", "/curl", "--silent", "--show-error", "--include"];
    all.extend(["--max-time", MAX_TIME, "--write-out", "\n--status--%{http_code}"]);
    all.extend(arguments);
    all
}

/// curl in a pod of the Deployment `from` of the namespace `default`; a request that fails is an answer too.
pub fn curl(from: &str, arguments: &[&str]) -> Result<Answer> {
    let from = format!("deployment/{from}");
    let output = inside("kubectl", &curl_arguments(&from, arguments)).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let Some((content, status)) = text.rsplit_once(STATUS) else {
        bail!("curl in {from} did not run: {error}");
    };
    let (head, body) = content.split_once("\r\n\r\n").unwrap_or((content, ""));
    Ok(Answer {
        status: status.trim().parse().unwrap_or(0),
        head: head.to_owned(),
        body: body.to_owned(),
        error,
    })
}

/// Repeats a request until its answer has this status.
pub fn answers(from: &str, arguments: &[&str], status: u16) -> Result<Answer> {
    let mut last = Answer::default();
    let found = until(&format!("{from}: {arguments:?} to bring {status}"), || {
        last = curl(from, arguments)?;
        Ok((last.status == status).then(|| last.clone()))
    });
    found.with_context(|| format!("the last answer was {last:?}"))
}

/// curl that goes on in the background.
pub fn spawn_curl(from: &str, arguments: &[&str]) -> Result<Child> {
    let from = format!("deployment/{from}");
    let mut command = inside("kubectl", &curl_arguments(&from, arguments));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command.spawn()?)
}

/// The agent's pod on a node.
pub fn agent(node: &str) -> Result<String> {
    let field = format!("spec.nodeName={node}");
    let selector = "app.kubernetes.io/name=isthmus";
    let pods = get(&["pods", "-n", "isthmus-system", "-l", selector, "--field-selector", &field])?;
    let items = pods["items"].as_array().cloned().unwrap_or_default();
    let alive = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    let name = items.iter().find(alive).and_then(|pod| pod["metadata"]["name"].as_str());
    name.map(str::to_owned).with_context(|| format!("no agent on {node}"))
}

/// Ends the container of a pod of `isthmus-system` as the kernel would, without a word to it.
pub fn kill(pod: &str) -> Result<()> {
    let pod = get(&["pod", "-n", "isthmus-system", pod])?;
    let node = pod["spec"]["nodeName"].as_str().context("a node")?;
    let id =
        pod["status"]["containerStatuses"][0]["containerID"].as_str().context("a container")?;
    let id = id.rsplit('/').next().unwrap_or_default();
    let socket = directory().join(node).join("containerd.sock").display().to_string();
    let killed = Command::new("ctr")
        .args(["-a", &socket, "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", id])
        .status()?;
    ensure!(killed.success(), "a container on {node} could not be killed");
    Ok(())
}

/// What the agent of a node logged, since it started.
pub fn agent_log(node: &str) -> Result<String> {
    kubectl(&["logs", "-n", "isthmus-system", &agent(node)?])
}

/// Whether the rules of the agent are in the network namespace of a pod; `None` when the pod has no namespace.
pub fn is_captured(node: &str, address: &str) -> Result<Option<bool>> {
    let Some(name) = namespace_of(node, address)? else { return Ok(None) };
    let network = format!("--net=/run/netns/{name}");
    let rules = on_node(node, "nsenter", &[&network, "nft", "list", "tables"])?;
    Ok(Some(rules.contains("isthmus")))
}

/// The name of the network namespace of a pod, below a node's `/run/netns`.
pub fn namespace_of(node: &str, address: &str) -> Result<Option<String>> {
    for name in on_node(node, "ls", &["/run/netns"])?.split_whitespace() {
        // Whatever runs there may end meanwhile.
        let addresses = on_node(node, "ip", &["-n", name, "-o", "addr"]).unwrap_or_default();
        if addresses.contains(&format!(" {address}/")) {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

/// A program of this machine in the network namespace of a pod, in the background, without kubectl.
pub fn exec_in(node: &str, address: &str, command: &[&str]) -> Result<Child> {
    let name = namespace_of(node, address)?.context("the pod's network namespace")?;
    let mut enter = Command::new(root().join("scripts/cluster/enter"));
    enter.args(["--node", node, "nsenter", &format!("--net=/run/netns/{name}")]).args(command);
    Ok(enter.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// Looks until `probe` returns something; an error of `probe` ends the wait.
pub fn until<T>(what: &str, probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    within(PATIENCE, what, probe)
}

/// As [`until`], with another patience.
pub fn within<T>(
    patience: Duration,
    what: &str,
    probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    looking_every(PAUSE, patience, what, probe)
}

fn succeeded(what: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{what}: {}: {}", output.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
