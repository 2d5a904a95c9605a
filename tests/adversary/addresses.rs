//! Addresses that a pod with CAP_NET_ADMIN gives itself, and connects from: they are no source that a policy may believe.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::authority::service;
use crate::capture::means::{ask, connect, namespace};
use crate::support::lab::command::run;
use crate::support::lab::{Lab, PORT, wait};
use crate::{besieged, captured_in};

const VAULT: &str = include_str!("http.yaml");
const MACHINE: &str = "172.30.0.254";
const VIP: &str = "10.96.66.5";
/// Only from here the machine may be used.
const CLAIMED: &str = "10.99.0.1";

/// Where nobody judges at the other end, the client's agent does.
fn only_from(blocks: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: only, namespace: vault}}\n\
         spec:\n  targetRefs: [{{group: '', kind: Service, name: machine}}]\n  action: ALLOW\n\
         \x20 rules: [{{from: [{{source: {{ipBlocks: ['{blocks}']}}}}]}}]\n"
    )
}

/// The status of a request from this address of the attacker's, or why it has none.
fn status(lab: &Lab, from: &str) -> Result<String> {
    let (from, to) = (SocketAddr::new(from.parse()?, 0), SocketAddr::new(VIP.parse()?, PORT));
    let request = "GET /secret HTTP/1.1\r\nHost: machine\r\nConnection: close\r\n\r\n";
    let attacker = namespace(lab, "attacker")?;
    let answer = attacker.run(|| connect(from, to).and_then(|mut it| ask(&mut it, request)))?;
    Ok(answer.map_or_else(|error| error.to_string(), |it| it.get(9..12).unwrap_or(&it).to_owned()))
}

#[test]
fn an_address_that_a_pod_gave_itself_is_no_source() -> Result<()> {
    let machine = service("machine", VIP, "istio.io/use-waypoint: waypoint", MACHINE);
    let machine = machine.replace("namespace: evil", "namespace: vault");
    let mut lab = besieged(&[VAULT, &machine, &only_from("10.99.0.0/16")])?;
    captured_in(&lab, "vault")?;
    let recorder = crate::recorder::Recorder::in_namespace(lab.network().own())?;
    let own = lab.address("attacker")?.to_string();
    let claim = format!("{CLAIMED}/32");
    namespace(&lab, "attacker")?.run(|| run("ip", &["address", "add", &claim, "dev", "lo"]))??;
    wait::until("the policy to be in force", || {
        let status = status(&lab, &own)?;
        println!("from {own}: {status}");
        Ok((status == "403").then_some(()))
    })?;
    let claimed = status(&lab, CLAIMED)?;
    ensure!(claimed == "403", "from {CLAIMED}, which is nobody's: {claimed}");
    let saw = recorder.take();
    ensure!(!saw.contains("secret"), "the machine saw it: {saw}");
    // The pod's own address is believed, whichever it connects from.
    lab.manifests.apply(&only_from(&format!("{own}/32")))?;
    wait::until("the pod's own address to be let in", || {
        Ok((status(&lab, &own)? == "200").then_some(()))
    })?;
    ensure!(status(&lab, CLAIMED)? == "200", "the pod is the same");
    Ok(())
}
