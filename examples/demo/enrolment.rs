//! Into the mesh, by a label on the namespace.

use anyhow::Result;
use serde_json::json;

use crate::plaintext::{self, PAGE};
use crate::stage::{Stage, mutual_tls};

/// The label that enrols.
const ENROL: &str = "istio.io/dataplane-mode=ambient";

pub fn run(stage: &mut Stage) -> Result<()> {
    stage.report.say("an agent on each node, started over the same manifests");
    stage.lab.start_agents("")?;
    enrol(stage)?;
    // The client's connection, and the page's own to details.
    let counts = stage.settle_counts(
        "connections with mutual TLS",
        |stage| stage.lab.curl("curl", &[PAGE]).map(drop),
        |metrics| ["productpage-v1", "details-v1"].map(|pod| mutual_tls(metrics, pod)),
        |counts| counts.iter().all(|count| *count >= 1.0),
    )?;
    stage.report.evidence(&format!("connections with mutual TLS in one request: {counts:?}"));

    let moment = stage.lab.moment()?;
    let captured = plaintext::fetch(stage)?;
    stage.log_evidence(&moment, &["productpage-v1", "inbound"])?;
    let found = plaintext::plaintext(&captured);
    let ports = captured.packets_by_port();
    let tunnelled = ports.get(&15008).copied().unwrap_or(0);
    stage.figure("packets_by_port", json!(ports));
    stage.figure("plaintext_found", found);
    stage.check(!found, "plaintext between the nodes")?;
    stage.check(tunnelled > 0, "nothing went to port 15008 between the nodes")?;

    let echo = stage.expect("curl", &["http://productpage.bookinfo:9080/headers"], 200)?;
    let peer = echo.json()["peer"].as_str().unwrap_or_default().to_owned();
    stage.figure("peer_seen_by_the_application", peer.clone());
    let client = stage.lab.address("curl")?.to_string();
    stage.check(peer.starts_with(&format!("{client}:")), "the client's address was not kept")?;
    rules(stage)
}

/// Enrols Bookinfo and its clients; the namespace of `outsider` stays outside.
pub fn enrol(stage: &mut Stage) -> Result<()> {
    stage.label_namespace("bookinfo", &[ENROL])?;
    stage.label_namespace("default", &[ENROL])
}

/// Every enrolled pod has capture rules, and no other.
fn rules(stage: &mut Stage) -> Result<()> {
    let mut captured = 0;
    for (name, pod) in stage.lab.pods() {
        let has = !stage.lab.rules(name)?.is_empty();
        let enrolled = pod.plan.key.namespace != "legacy";
        stage.check(has == enrolled, &format!("pod {name}: capture rules: {has}"))?;
        captured += usize::from(has);
    }
    stage.figure("pods_with_capture_rules", captured);
    Ok(())
}
