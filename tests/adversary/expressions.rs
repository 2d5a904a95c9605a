//! Regular expressions of a namespace that are small to write and large to compile, in every kind of object that has some: what agents
//! hold of them, and what becomes of everybody else meanwhile.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::memory::{DETAILS, agents, all};
use crate::support::lab::manifests::Key;
use crate::support::lab::wait;
use crate::{besieged, settle};

/// Some 200 KiB each: those of [`LIGHT`] would take 200 MiB, and those of [`OBJECTS`] a gigabyte.
const HEAVY: &str = r"/(\\w+)/\\w+/(\\w+)/\\w+";
const OBJECTS: usize = 12;
const IN_EACH: usize = 400;
/// Objects with a few of them each.
const LIGHT: usize = 140;
const FEW: usize = 8;
/// Compiling them takes a while on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the expressions of a namespace may take together in an agent, of which the compiled forms are less, and as much again for what
/// reading them leaves behind, in KiB.
const AT_MOST: u64 = 128 * 1024;

/// A VirtualService whose rules match by as many expressions.
fn virtual_service(name: &str, host: &str, count: usize) -> String {
    let rules: Vec<_> = (0..count)
        .map(|at| {
            format!(
                "{{match: [{{uri: {{regex: \"{HEAVY}/{at}\"}}}}], directResponse: {{status: 418}}}}"
            )
        })
        .collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: evil}}\n\
         spec: {{hosts: [{host}], http: [{}]}}\n---\n",
        rules.join(", ")
    )
}

#[test]
fn expressions_of_a_namespace_cost_no_more_than_it_may_have() -> Result<()> {
    let mut lab = besieged(&[])?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let agents = agents(&mut lab);
    let before = all(&agents)?;
    // Each is beyond what an object may have, and then a namespace's worth of those that are not.
    for at in 0..OBJECTS {
        let many = virtual_service(&format!("heavy-{at}"), &format!("h-{at}.example"), IN_EACH);
        lab.manifests.apply(&many)?;
    }
    for at in 0..LIGHT {
        let some = virtual_service(&format!("light-{at}"), &format!("l-{at}.example"), FEW);
        lab.manifests.apply(&some)?;
    }
    let complaints = |lab: &crate::support::lab::Lab| -> Result<(usize, usize)> {
        let answer = crate::support::lab::agents::administer(lab.node("node-a")?, &[], "/status")?;
        let of_object = answer.body.matches("the regular expressions of this object").count();
        Ok((of_object, answer.body.matches("the regular expressions of the namespace").count()))
    };
    wait::within(PATIENCE, "what is too much to be refused", || {
        let (of_object, of_namespace) = complaints(&lab)?;
        Ok((of_object >= OBJECTS && of_namespace > 0).then_some(()))
    })?;
    for client in ["curl", "productpage-v1"] {
        let answer = lab.curl(client, &[DETAILS])?;
        ensure!(answer.status == 200, "{client}: {answer:?}");
    }
    // What reading them took is given back within seconds.
    wait::until("the agents to hold no more than a namespace may have", || {
        let held = all(&agents)?;
        let mut more = before.iter().zip(&held).map(|(before, held)| held.saturating_sub(*before));
        Ok(more.all(|more| more < AT_MOST).then_some(()))
    })?;
    // Others' changes are carried out meanwhile.
    let closed = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                  metadata: {name: nobody, namespace: bookinfo}\nspec: {}\n---\n";
    lab.manifests.apply(closed)?;
    settle(&lab, "curl", &[DETAILS], 0)?;
    lab.manifests.delete(&Key::new("AuthorizationPolicy", "bookinfo", "nobody"))?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(())
}
