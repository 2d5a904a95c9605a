//! Which pod is which, after the agent of a node has ended: as the runtime says, with what was kept of it and without.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::{
    agent, answers, apply, curl, delete, get, kill, namespace_of, on_node, pod, within,
};
use crate::guide::meshed;

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const KEPT: &str = "/run/isthmus/sandboxes/node1";

/// Only `curl` may call; `stranger` is its neighbour on node1.
const ONLY_CURL: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-curl, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: details}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/curl]}}]}]
";

/// What the runtime told the plugin, in files.
fn kept() -> Result<usize> {
    let names = on_node("node1", "ls", &[KEPT])?;
    Ok(names.lines().filter(|name| name.ends_with(".json")).count())
}

fn agent_again() -> Result<()> {
    let name = agent("node1")?;
    let count =
        |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    let before = count(&get(&["pod", "-n", "isthmus-system", &name])?);
    kill(&name)?;
    within(Duration::from_secs(60), "the agent of node1 to be ready again", || {
        let pod = get(&["pod", "-n", "isthmus-system", &name])?;
        let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
        Ok((count(&pod) > before && ready).then_some(()))
    })
}

fn only_curl_is_served() -> Result<()> {
    answers("curl", &[DETAILS], 200)?;
    let stranger = curl("stranger", &[DETAILS])?;
    ensure!(stranger.status != 200, "stranger is served: {stranger:?}");
    Ok(())
}

#[test]
fn an_agent_that_starts_again_asks_the_runtime_and_no_pod() -> Result<()> {
    meshed()?;
    apply(ONLY_CURL)?;
    within(Duration::from_secs(30), "the policy to hold", || {
        Ok((curl("stranger", &[DETAILS])?.status != 200).then_some(()))
    })?;
    only_curl_is_served()?;
    ensure!(kept()? >= 3, "what the plugin was told is not kept in {KEPT}");
    let address = |app: &str| -> Result<String> {
        let pod = pod("default", &format!("app={app}"))?;
        Ok(pod["status"]["podIP"].as_str().context("an address")?.to_owned())
    };
    let own = namespace_of("node1", &address("stranger")?)?.context("its namespace")?;
    let stolen = format!("{}/32", address("curl")?);
    on_node("node1", "ip", &["-n", &own, "addr", "add", &stolen, "dev", "lo"])?;
    agent_again()?;
    let kept_then = only_curl_is_served().context("with what was kept");
    // As after an installation: nobody was told of the pods that run.
    on_node("node1", "sh", &["-c", &format!("rm -f {KEPT}/*")])?;
    agent_again()?;
    let asked_then = only_curl_is_served().context("with nothing kept");
    on_node("node1", "ip", &["-n", &own, "addr", "del", &stolen, "dev", "lo"])?;
    kept_then.and(asked_then)?;
    ensure!(kept()? >= 3, "what the runtime said is not kept");
    delete(ONLY_CURL)
}
