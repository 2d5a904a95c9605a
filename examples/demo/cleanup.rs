//! Removes Bookinfo from the mesh again.

use anyhow::Result;
use serde_json::json;

use crate::plaintext;
use crate::stage::Stage;
use crate::support::lab::wait;

pub fn run(stage: &mut Stage) -> Result<()> {
    stage.delete("AuthorizationPolicy", "bookinfo", "productpage-waypoint")?;
    stage.delete("HTTPRoute", "bookinfo", "reviews")?;
    stage.delete("Gateway", "bookinfo", "waypoint")?;
    stage.delete("PeerAuthentication", "bookinfo", "default")?;
    stage.delete("PeerAuthentication", "bookinfo", "ratings-disable")?;
    stage.label_namespace("bookinfo", &["istio.io/dataplane-mode-", "istio.io/use-waypoint-"])?;
    stage.label_namespace("default", &["istio.io/dataplane-mode-"])?;
    let mut left = Vec::new();
    let gone = wait::until("the capture rules to be removed", || {
        left = pods_with_rules(stage)?;
        Ok(left.is_empty().then_some(()))
    });
    stage.figure("pods_with_capture_rules", left.len());
    gone?;

    let captured = plaintext::fetch(stage)?;
    let found = plaintext::plaintext(&captured);
    stage.figure("packets_by_port", json!(captured.packets_by_port()));
    stage.figure("plaintext_found", found);
    stage.check(found, "the capture between the nodes holds no plaintext")?;
    stage.report.say("the agents end when they are asked to:");
    let codes = stage.lab.stop_agents()?;
    stage.figure("exit_codes", json!(codes));
    stage.check(codes.iter().all(|code| *code == Some(0)), "an agent did not end well")?;
    for node in stage.lab.network().nodes() {
        let rules = stage.lab.node_rules(&node.name)?;
        stage.check(!rules.contains("isthmus"), &format!("{} still has rules", node.name))?;
    }
    stage.expect("curl", &[plaintext::PAGE], 200).map(drop)
}

fn pods_with_rules(stage: &Stage) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for (name, _) in stage.lab.pods() {
        if !stage.lab.rules(name)?.is_empty() {
            left.push(name.clone());
        }
    }
    Ok(left)
}
