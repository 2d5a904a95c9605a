//! What fails on a cluster, and what goes on: the agent of a node, the controller, the API server, a rolling update.

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;

use crate::cluster::{
    agent, agent_log, answers, apply, apply_file, delete, directory, exec_in, get, kill, kubectl,
    pod, root, settled, settled_within, spawn_curl, until, within,
};
use crate::guide::{captured, meshed};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const RATINGS: &str = "http://ratings.bookinfo:9080/ratings/0";

/// Requests from a pod of node1 to one of node2, a new connection for each, 25 a second.
pub struct Load {
    end: Arc<AtomicBool>,
    sent: Option<JoinHandle<Result<Vec<String>>>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// In clients one after the other, each of which starts before the last one ends.
pub fn load() -> Load {
    const SECONDS: u64 = 3;
    let client = || {
        let url = format!("{DETAILS}?[1-{}]", SECONDS * 25);
        spawn_curl("curl", &["--rate", "25/s", "-H", "Connection: close", "-o", "/dev/null", &url])
    };
    let end = Arc::new(AtomicBool::new(false));
    let ends = end.clone();
    let sent = std::thread::spawn(move || {
        let (mut bad, mut last) = (Vec::new(), client()?);
        loop {
            std::thread::sleep(Duration::from_secs(SECONDS - 1));
            let next = if ends.load(Ordering::Relaxed) { None } else { Some(client()?) };
            let (good, others) = outcome(last)?;
            if good as u64 != SECONDS * 25 || !others.is_empty() {
                bad.push(format!("{good} good, others: {others:?}"));
            }
            match next {
                Some(next) => last = next,
                None => return Ok(bad),
            }
        }
    });
    Load { end, sent: Some(sent) }
}

impl Load {
    /// Ends it, and fails unless every request was answered 200.
    pub fn all_went_well(mut self) -> Result<()> {
        self.end.store(true, Ordering::Relaxed);
        let sent = self.sent.take().context("it was sent")?;
        let bad = sent.join().map_err(|_| anyhow::anyhow!("the load ended early"))??;
        ensure!(bad.is_empty(), "requests failed: {bad:#?}");
        Ok(())
    }
}

/// How many of a client's requests were answered 200, and the others' statuses.
fn outcome(client: Child) -> Result<(usize, Vec<String>)> {
    let output = client.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let statuses = text.lines().filter_map(|line| line.strip_prefix("--status--"));
    let (good, bad): (Vec<_>, Vec<_>) = statuses.partition(|status| *status == "200");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let bad = bad.into_iter().map(str::to_owned).chain(errors.lines().map(str::to_owned));
    Ok((good.len(), bad.collect()))
}

#[test]
fn a_killed_agent_concerns_its_node_only_and_serves_again_at_once() -> Result<()> {
    meshed()?;
    // Both ends on node2, on one connection: they must not notice.
    let untouched =
        spawn_curl("far", &["--rate", "5/s", "-o", "/dev/null", &format!("{DETAILS}?[1-75]")])?;
    kill(&agent("node1")?)?;
    let back = within(Duration::from_secs(60), "the agent of node1 to be ready again", || {
        let pod = get(&["pod", "-n", "isthmus-system", &agent("node1")?])?;
        let status = &pod["status"]["containerStatuses"][0];
        let again = status["restartCount"].as_u64() > Some(0) && status["ready"] == true;
        Ok(again.then(Instant::now))
    })?;
    answers("curl", &[DETAILS], 200)?;
    let took = back.elapsed();
    ensure!(took < Duration::from_secs(2), "a new connection worked only after {took:?}");
    let (good, bad) = outcome(untouched)?;
    ensure!(bad.is_empty() && good == 75, "the other node noticed: {good} good, {bad:?}");
    Ok(())
}

#[test]
fn a_rolling_restart_of_the_agents_refuses_no_connection() -> Result<()> {
    meshed()?;
    let load = load();
    std::thread::sleep(Duration::from_secs(2));
    kubectl(&["-n", "isthmus-system", "rollout", "restart", "daemonset/isthmus"])?;
    kubectl(&["-n", "isthmus-system", "rollout", "status", "daemonset/isthmus", "--timeout=120s"])?;
    settled("isthmus-system")?;
    load.all_went_well()?;
    captured("default", "app=curl", true)
}

/// The second one finds agents in every state: starting, taking over, serving, idle.
#[test]
fn two_rolling_restarts_in_quick_succession_refuse_no_connection() -> Result<()> {
    meshed()?;
    let restart =
        || kubectl(&["-n", "isthmus-system", "rollout", "restart", "daemonset/isthmus"]).map(drop);
    let end = Arc::new(AtomicBool::new(false));
    let restarted = restarted_agents(end.clone());
    // The first node's new agent starts after a second or two, the other node's some seconds later. One restart a second is
    // the most that kubectl allows.
    for gap in [1300, 1700, 2100, 2500, 4500] {
        let load = load();
        std::thread::sleep(Duration::from_secs(1));
        restart()?;
        std::thread::sleep(Duration::from_millis(gap));
        restart()?;
        let daemonset = ["-n", "isthmus-system", "rollout", "status", "daemonset/isthmus"];
        kubectl(&[&daemonset[..], &["--timeout=120s"]].concat())?;
        // The last of the old ones ends meanwhile.
        settled("isthmus-system")?;
        load.all_went_well().with_context(|| format!("gap {gap} ms"))?;
        answers("curl", &[DETAILS], 200)?;
    }
    end.store(true, Ordering::Relaxed);
    let restarted = restarted.join().map_err(|_| anyhow::anyhow!("nobody looked"))??;
    ensure!(restarted.is_empty(), "containers that the kubelet had to restart: {restarted:?}");
    captured("default", "app=curl", true)
}

/// Looks at the agents until told, and says which had to be restarted, and what they said before that.
fn restarted_agents(end: Arc<AtomicBool>) -> JoinHandle<Result<BTreeMap<String, String>>> {
    std::thread::spawn(move || {
        let mut restarted = BTreeMap::new();
        while !end.load(Ordering::Relaxed) {
            let selector = "app.kubernetes.io/name=isthmus";
            let pods = get(&["pods", "-n", "isthmus-system", "-l", selector])?;
            for pod in pods["items"].as_array().into_iter().flatten() {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let again = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
                if again > Some(0) && !restarted.contains_key(&name) {
                    let log = ["logs", "-n", "isthmus-system", "--previous", "--tail=5", &name];
                    restarted.insert(name.clone(), kubectl(&log).unwrap_or_default());
                }
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        Ok(restarted)
    })
}

#[test]
fn without_the_controller_nothing_changes_and_new_pods_wait() -> Result<()> {
    meshed()?;
    let scale = |replicas: &str| {
        kubectl(&["-n", "isthmus-system", "scale", "deployment/isthmus-controller", replicas])
    };
    scale("--replicas=0")?;
    until("the controller to be gone", || {
        let pods = get(&[
            "pods",
            "-n",
            "isthmus-system",
            "-l",
            "app.kubernetes.io/name=isthmus-controller",
        ])?;
        Ok(pods["items"].as_array().is_none_or(Vec::is_empty).then_some(()))
    })?;
    answers("curl", &[DETAILS], 200)?;
    // An identity that no node has a certificate of yet.
    apply(LATE)?;
    until("an event that says what the pod waits for", || {
        let events =
            kubectl(&["get", "events", "-n", "default", "-o", "jsonpath={.items[*].message}"])?;
        Ok((events.contains("isthmus") && events.contains("certificate")).then_some(()))
    })?;
    answers("curl", &[RATINGS], 200)?;
    scale("--replicas=2")?;
    settled("isthmus-system")?;
    kubectl(&["wait", "--for=condition=Ready", "pod/late", "--timeout=90s"])?;
    delete(LATE)
}

const LATE: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: late, namespace: default}
---
apiVersion: v1
kind: Pod
metadata: {name: late, namespace: default}
spec:
  serviceAccountName: late
  terminationGracePeriodSeconds: 1
  containers:
  - {name: wait, image: 'localhost/isthmus-curl:lab', imagePullPolicy: Never}
";

#[test]
fn without_the_api_server_the_mesh_serves_on_and_catches_up() -> Result<()> {
    meshed()?;
    for node in NODES {
        let level = "/logging?level=isthmus::source=debug";
        let pod = agent(node)?;
        kubectl(&[
            "exec",
            "-n",
            "isthmus-system",
            &pod,
            "--",
            "isthmus",
            "admin",
            "--post",
            level,
        ])?;
    }
    // kubectl exec goes through the API server, so the load comes from the pod's network namespace itself.
    let service = get(&["service", "details", "-n", "bookinfo"])?["spec"]["clusterIP"].clone();
    let url = format!("http://{}:9080/details/0?[1-600]", service.as_str().context("an address")?);
    let curl = pod("default", "app=curl")?["status"]["podIP"].clone();
    let curl = curl.as_str().context("an address")?;
    let load = exec_in(
        "node1",
        curl,
        &[
            "curl",
            "--silent",
            "--show-error",
            "--rate",
            "20/s",
            "--max-time",
            "10",
            "-H",
            "Connection: close",
            "-o",
            "/dev/null",
            "--write-out",
            "\n--status--%{http_code}",
            &url,
        ],
    )?;
    let pid = std::fs::read_to_string(directory().join("log/apiserver.pid"))?;
    ensure!(Command::new("kill").arg(pid.trim()).status()?.success(), "no API server");
    let (good, bad) = outcome(load)?;
    start_api_server()?;
    ensure!(bad.is_empty() && good == 600, "{good} good, others: {bad:?}");
    answers("curl", &[DETAILS], 200)?;
    apply_file("config/bookinfo/mesh/peer-authentication-strict.yaml")?;
    answers("outsider", &[DETAILS], 0).with_context(|| said_of("PeerAuthentication"))?;
    kubectl(&["delete", "peerauthentication", "--all", "-n", "bookinfo"])?;
    answers("outsider", &[DETAILS], 200)?;
    // The controller manager may look before the nodes have said that they live, and call all pods not ready; the kubelets,
    // which try the server less and less often, may take a minute to see that and to correct it.
    for namespace in ["bookinfo", "default", "isthmus-system"] {
        settled_within(namespace, Duration::from_secs(180))?;
    }
    Ok(())
}

const NODES: [&str; 2] = ["node1", "node2"];

/// What the agents logged of a kind last, for a failure that cannot be looked at where it happened.
fn said_of(kind: &str) -> String {
    let said = |node: &&str| {
        let log = agent_log(node).unwrap_or_else(|error| format!("no log: {kind}: {error}"));
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(kind)).collect();
        format!("{node}:\n{}", lines[lines.len().saturating_sub(12)..].join("\n"))
    };
    NODES.iter().map(said).collect::<Vec<_>>().join("\n")
}

fn start_api_server() -> Result<()> {
    let started = Command::new(root().join("scripts/cluster/enter"))
        .arg(root().join("scripts/cluster/inside/apiserver"))
        .status()?;
    ensure!(started.success(), "the API server does not start");
    until("the API server", || Ok(kubectl(&["get", "--raw", "/readyz"]).ok()))?;
    Ok(())
}
