//! Bookinfo in a lab, as the tests in network namespaces and the adversary suite start from. Both include this file by its
//! path; the demo, which sets up its own stage, does not.

#![allow(dead_code, reason = "the suites use different parts")]

use std::fs;
use std::path::Path;

use crate::support::lab::curl::Answer;
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, Programs, private, wait};
use anyhow::{Context, Result};

/// The application's manifests, without any of the mesh.
const APPLICATION: [&str; 4] =
    ["bookinfo.yaml", "bookinfo-versions.yaml", "clients.yaml", "foo.yaml"];

/// A waypoint for the services of `bookinfo`, which no namespace is bound to yet.
pub const WAYPOINT: &str = include_str!("../../config/bookinfo/mesh/waypoint.yaml");

/// Bookinfo on two nodes, no agents yet.
pub fn bookinfo() -> Result<Lab> {
    application(&[])
}

/// Bookinfo and `more` manifests, no agents yet.
pub fn application(more: &[&str]) -> Result<Lab> {
    private::enter()?;
    let programs = Programs::beside(Path::new(env!("CARGO_BIN_EXE_isthmus")))?;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/bookinfo");
    let documents = APPLICATION
        .iter()
        .map(|name| fs::read_to_string(directory.join(name)).context(*name))
        .chain(more.iter().map(|text| Ok((*text).to_owned())))
        .collect::<Result<Vec<_>>>()?;
    Lab::build(&documents, &programs)
}

/// Bookinfo with its namespaces enrolled, and an agent on each node that has captured every pod of them.
pub fn meshed() -> Result<Lab> {
    let mut lab = bookinfo()?;
    lab.start_agents("")?;
    enrol(&mut lab)?;
    Ok(lab)
}

/// Enrols Bookinfo's namespaces and waits until every pod of them is captured.
pub fn enrol(lab: &mut Lab) -> Result<()> {
    for namespace in ["bookinfo", "default"] {
        let key = Key::new("Namespace", "", namespace);
        lab.manifests.label(&key, &["istio.io/dataplane-mode=ambient"])?;
    }
    captured_in(lab, "bookinfo")?;
    captured_in(lab, "default")
}

/// Waits until every pod of a namespace is captured.
pub fn captured_in(lab: &Lab, namespace: &str) -> Result<()> {
    wait::until(&format!("all pods of {namespace} to be captured"), || {
        for (name, pod) in lab.pods() {
            if pod.plan.key.namespace == namespace && lab.rules(name)?.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}

/// Repeats a request until its answer has this status: a change of manifests takes effect in a moment.
pub fn settle(lab: &Lab, from: &str, arguments: &[&str], status: u16) -> Result<Answer> {
    wait::until(&format!("{from}: {arguments:?} to bring {status}"), || {
        let answer = lab.curl(from, arguments)?;
        Ok((answer.status == status).then_some(answer))
    })
}
