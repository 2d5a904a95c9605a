//! A rate limit over all pods of a Service, on two nodes, through the installed controller: 100 requests a second, within the
//! error that docs/traffic-policy.md states.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{
    administer, answers, apply, apply_file, curl, delete, get, kubectl, settled, until,
};
use crate::guide::meshed;

const REVIEWS: &str = "http://reviews.bookinfo:9080/health";
const RATE: f64 = 100.0;
const BURST: f64 = 100.0;
/// What comes back in a second, and two requests for each of two nodes.
const ERROR: f64 = RATE + 4.0;

const POLICY: &str = "\
apiVersion: isthmus.io/v1alpha1
kind: TrafficPolicy
metadata: { name: shared, namespace: bookinfo }
spec:
  targetRefs: [{ group: '', kind: Service, name: reviews }]
  rateLimit: { shared: { requests: 100, interval: 1s, burst: 100 } }
";

#[test]
fn a_hundred_requests_a_second_over_two_nodes() -> Result<()> {
    meshed()?;
    apply_file("config/bookinfo/mesh/waypoint.yaml")?;
    kubectl(&["label", "namespace", "bookinfo", "istio.io/use-waypoint=waypoint", "--overwrite"])?;
    let outcome = limited();
    delete(POLICY)?;
    let ended = outcome.and_then(|()| answers("curl", &[REVIEWS], 200).map(drop));
    place("reviews-v1", "null")?;
    place("reviews-v2", "null")?;
    kubectl(&["label", "namespace", "bookinfo", "istio.io/use-waypoint-"])?;
    kubectl(&["delete", "-n", "bookinfo", "gateway", "waypoint"])?;
    settled("bookinfo")?;
    ended
}

/// Binds a Deployment to a node, or to none.
fn place(deployment: &str, node: &str) -> Result<()> {
    let selector = format!("{{\"kubernetes.io/hostname\":{node}}}");
    let patch =
        format!("{{\"spec\":{{\"template\":{{\"spec\":{{\"nodeSelector\":{selector}}}}}}}}}");
    kubectl(&["patch", "deployment", deployment, "-n", "bookinfo", "-p", &patch])?;
    let name = format!("deployment/{deployment}");
    kubectl(&["rollout", "status", &name, "-n", "bookinfo", "--timeout=120s"]).map(drop)
}

fn limited() -> Result<()> {
    place("reviews-v1", "\"node1\"")?;
    place("reviews-v2", "\"node2\"")?;
    settled("bookinfo")?;
    answers("curl", &[REVIEWS], 200)?;
    apply(POLICY)?;
    until("both agents to exchange tokens", || {
        for node in ["node1", "node2"] {
            let status: Value = serde_json::from_str(&administer(node, &[], "/status")?)?;
            let shared = &status["sharedLimits"];
            if shared["limits"] != 1 || shared["exchanged"] != 1 {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    load(REVIEWS, "to the Service")?;

    // All of it to the pods of one node, which has a part of the limit.
    let pods = get(&["pods", "-n", "bookinfo", "-l", "app=reviews"])?;
    let pods = pods["items"].as_array().context("pods")?;
    let on_node1 = pods.iter().filter(|pod| pod["spec"]["nodeName"] == "node1");
    let part = on_node1.clone().count() as f64 / pods.len() as f64;
    let address = on_node1.clone().find_map(|pod| pod["status"]["podIP"].as_str());
    let one = format!("http://{}:9080/health", address.context("a pod on node1")?);
    let (passed, seconds) = load(&one, "to one node")?;
    let alone = part * (BURST + RATE * seconds);
    if part < 0.5 {
        ensure!(
            passed > 1.5 * alone,
            "{passed} in {seconds} s, where the node's own part is {alone}"
        );
    }
    let received = ["node1", "node2"].map(|node| -> Result<f64> {
        let status: Value = serde_json::from_str(&administer(node, &[], "/status")?)?;
        Ok(status["sharedLimits"]["thousandths"]["received"].as_f64().unwrap_or_default())
    });
    let received: f64 = received.into_iter().sum::<Result<f64>>()?;
    ensure!(received > 0.0, "no token was moved");
    Ok(())
}

/// Some thousand requests as fast as curl can; how many passed, in how many seconds.
fn load(url: &str, what: &str) -> Result<(f64, f64)> {
    // The buckets fill up.
    std::thread::sleep(Duration::from_secs(2));
    let url = format!("{url}?[1-3000]");
    let begun = Instant::now();
    let answer = curl("curl", &["--parallel", "--parallel-max", "8", &url])?;
    let seconds = begun.elapsed().as_secs_f64();
    let statuses = |status: u16| {
        let told = format!("--status--{status}");
        let count = answer.head.matches(&told).count() + answer.body.matches(&told).count();
        (count + usize::from(answer.status == status)) as f64
    };
    let (passed, limited) = (statuses(200), statuses(429));
    let most = BURST + RATE * seconds + ERROR;
    println!("{what}: {passed} passed and {limited} were limited in {seconds:.1} s, of {most:.0}");
    ensure!(passed <= most, "{what}: {passed} in {seconds} s, at most {most}");
    ensure!(passed + limited >= 2900.0, "{what}: {passed} and {limited}: {}", answer.error);
    Ok((passed, seconds))
}
