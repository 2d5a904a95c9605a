//! The leader of the controller dies in each phase of a rotation of the root, under load: the next leader goes on where it
//! was, and nobody's traffic notices. What takes a day is made to be due by its date in the Secret, which is all that a
//! leader goes by.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::{apply, delete, get, kill, kubectl, settled, until};
use crate::controller::{OBJECTS, leader, published_roots, roots_of_replicas, secret, signs};
use crate::failures::load;
use crate::guide::{captured, meshed};

const SYSTEM: &str = "isthmus-system";
const ANNOUNCED: &str = "isthmus.io/next-announced";
const OLD_UNTIL: &str = "isthmus.io/old-root-until";
const LONG_AGO: &str = "2020-01-01T00:00:00Z";

#[test]
fn a_rotation_goes_on_when_its_leader_dies_in_any_phase() -> Result<()> {
    meshed()?;
    apply(OBJECTS)?;
    let before = secret()?;
    let load = load();

    leader_dies()?;
    annotate(&json!({ "isthmus.io/rotate-root": "test" }))?;
    another_leads("the next root to be announced", is_announced)?;
    trusted(2)?;
    // As if it had died between making the next root and announcing it.
    leader_dies()?;
    annotate(&json!({ ANNOUNCED: null }))?;
    another_leads("the next root to be announced again", is_announced)?;
    let next = secret()?["data"]["next-ca-cert.pem"].clone();
    ensure!(next.is_string() && signing()? == before["data"]["ca-cert.pem"], "it signs too early");
    // Agents have the roots with their certificates.
    agents_start_anew()?;

    leader_dies()?;
    annotate(&json!({ ANNOUNCED: LONG_AGO }))?;
    another_leads("the next root to sign", || Ok(signing()? == next))?;
    ensure!(annotation(OLD_UNTIL)?.is_some(), "the old root has no end");
    trusted(2)?;
    agents_start_anew()?;

    leader_dies()?;
    annotate(&json!({ OLD_UNTIL: LONG_AGO }))?;
    another_leads("the old root to be forgotten", || Ok(annotation(OLD_UNTIL)?.is_none()))?;
    trusted(1)?;
    ensure!(signing()? == next && secret()?["data"]["old-root-cert.pem"].is_null(), "left over");
    settled(SYSTEM)?;
    signs().context("with the new root alone")?;
    // New certificates, of agents that never knew the old root.
    agents_start_anew()?;

    load.all_went_well()?;
    captured("default", "app=curl", true)?;
    delete(OBJECTS)
}

/// Kills the one that leads, while the other replica is there.
fn leader_dies() -> Result<()> {
    settled(SYSTEM)?;
    let holder = leader()?;
    let pod = holder.split('_').next().unwrap_or_default();
    ensure!(!pod.is_empty(), "nobody leads");
    kill(pod)
}

/// Waits until something was done, and until it was another leader who did it.
fn another_leads(what: &str, mut is_done: impl FnMut() -> Result<bool>) -> Result<()> {
    let (dead, begun) = (leader()?, Instant::now());
    until(what, || Ok(is_done()?.then_some(())))?;
    ensure!(leader()? != dead, "{what}: the leader was not dead");
    eprintln!("{what}: {:?} after the leader's death", begun.elapsed());
    Ok(())
}

/// So many roots are published, and come with certificates of each replica.
fn trusted(roots: usize) -> Result<()> {
    settled(SYSTEM)?;
    until(&format!("{roots} roots to be trusted"), || {
        let published = published_roots()?.matches("BEGIN CERTIFICATE").count();
        Ok((published == roots && roots_of_replicas()? == BTreeSet::from([roots])).then_some(()))
    })
}

fn agents_start_anew() -> Result<()> {
    kubectl(&["-n", SYSTEM, "rollout", "restart", "daemonset/isthmus"])?;
    kubectl(&["-n", SYSTEM, "rollout", "status", "daemonset/isthmus", "--timeout=120s"])?;
    settled(SYSTEM)
}

/// There may be a date of another one, that was given up.
fn is_announced() -> Result<bool> {
    let roots = secret()?["data"]["next-announced-root-cert.pem"].is_string();
    Ok(roots && annotation(ANNOUNCED)?.is_some())
}

fn signing() -> Result<Value> {
    Ok(secret()?["data"]["ca-cert.pem"].clone())
}

fn annotation(key: &str) -> Result<Option<String>> {
    let secret = get(&["secret", "isthmus-ca", "-n", SYSTEM])?;
    Ok(secret["metadata"]["annotations"][key].as_str().map(str::to_owned))
}

fn annotate(annotations: &Value) -> Result<()> {
    let patch = json!({ "metadata": { "annotations": annotations } }).to_string();
    kubectl(&["patch", "secret", "isthmus-ca", "-n", SYSTEM, "-p", &patch]).map(drop)
}
