//! A rate limit over all pods of a Service, on two nodes, through the installed controller: 100 requests a second, within the
//! error that docs/traffic-policy.md states.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{administer, apply, get, until};
use crate::load::{documents, publish, send, with_waypoint};

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
    with_waypoint(POLICY, limited)
}

fn limited() -> Result<()> {
    apply(POLICY)?;
    until("both agents to exchange tokens", || {
        for node in ["node1", "node2"] {
            let status: Value = serde_json::from_str(&administer(node, &[], "status")?)?;
            let shared = &status["sharedLimits"];
            if shared["limits"] != 1 || shared["exchanged"] != 1 {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    let to_both = load(REVIEWS, "the Service")?;

    // All of it to the pods of one node, which has a part of the limit.
    let pods = get(&["pods", "-n", "bookinfo", "-l", "app=reviews"])?;
    let pods = pods["items"].as_array().context("pods")?;
    let on_node1 = pods.iter().filter(|pod| pod["spec"]["nodeName"] == "node1");
    let part = on_node1.clone().count() as f64 / pods.len() as f64;
    let address = on_node1.clone().find_map(|pod| pod["status"]["podIP"].as_str());
    let one = format!("http://{}:9080/health", address.context("a pod on node1")?);
    let to_one = load(&one, "a pod of one node")?;
    let Loaded { passed, seconds, .. } = to_one;
    let alone = part * (BURST + RATE * seconds);
    ensure!(passed > 1.5 * alone, "{passed} in {seconds} s, where the node's own part is {alone}");
    let received = ["node1", "node2"].map(|node| -> Result<f64> {
        let status: Value = serde_json::from_str(&administer(node, &[], "status")?)?;
        Ok(status["sharedLimits"]["thousandths"]["received"].as_f64().unwrap_or_default())
    });
    let received: f64 = received.into_iter().sum::<Result<f64>>()?;
    ensure!(received > 0.0, "no token was moved");
    let mut table = "| requests to | seconds | sent | passed | at most | of one node |\n\
         | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for (all, alone) in [(to_both, String::new()), (to_one, format!("{alone:.0}"))] {
        let Loaded { what, sent, passed, seconds, most } = all;
        writeln!(table, "| {what} | {seconds:.1} | {sent} | {passed} | {most:.0} | {alone} |")?;
    }
    publish("shared_limits", &table)
}

struct Loaded {
    what: &'static str,
    sent: usize,
    passed: f64,
    seconds: f64,
    most: f64,
}

/// Some thousand requests as fast as curl can.
fn load(url: &str, what: &'static str) -> Result<Loaded> {
    // The buckets fill up.
    std::thread::sleep(Duration::from_secs(2));
    let sent = if documents() { 10_000 } else { 3000 };
    let outcomes = send("curl", url, sent, 8)?;
    let seconds = outcomes.took.as_secs_f64();
    let passed = outcomes.with_status(200) as f64;
    let limited = outcomes.with_status(429);
    let most = BURST + RATE * seconds + ERROR;
    println!("{what}: {passed} passed and {limited} were limited in {seconds:.1} s, of {most:.0}");
    ensure!(passed <= most, "{what}: {passed} in {seconds} s, at most {most}");
    ensure!(passed as usize + limited >= sent - sent / 30, "{what}: {passed} and {limited}");
    Ok(Loaded { what, sent, passed, seconds, most })
}
