//! What must not work: each attack on the mesh that somebody found, or that users of other meshes report, as a test with
//! real network namespaces, real processes and real agents. An attack succeeds or fails by what the victim's application
//! saw, never by what an agent says of itself; each test also shows that the same way works for who may use it, so that it
//! can fail. `docs/security.md` says who may do what, and names these tests.

#[path = "../support/support.rs"]
mod support;

mod admin;
#[path = "../support/apiserver.rs"]
mod apiserver;
mod authority;
mod authorizers;

#[path = "../support/bookinfo.rs"]
mod bookinfo_lab;
mod cluster;
#[path = "../support/collector.rs"]
mod collector;
mod costs;

mod capture;
mod early;
mod egress;
mod expressions;
mod floods;
#[path = "../support/frames.rs"]
mod frames;
mod gateways;
mod http;
mod identity;
#[path = "../support/issued.rs"]
mod issued;
mod jwks;
mod jwt;
mod led;
mod lies;
mod limits;
mod recorder;
mod removal;
mod rules;
mod runtime;
mod shares;
#[path = "../support/siege.rs"]
mod siege;
mod streams;
mod telemetry;
mod tokens;
mod traffic;
mod tunnels;
#[path = "../support/upstream.rs"]
mod upstream;
mod ways;
mod wildcards;

mod memory;
mod unread;

pub use bookinfo_lab::{WAYPOINT, application, bookinfo, captured_in, enrol, meshed, settle};

use anyhow::Result;
use support::lab::Lab;

/// A namespace of the mesh whose owner attacks, with a pod on each node.
const EVIL: &str = include_str!("evil.yaml");

/// Bookinfo enrolled on two nodes, and beside it the namespace `evil`, whose pods `attacker` (node-a) and `accomplice`
/// (node-b) are captured too. `more`: further manifests.
pub fn besieged(more: &[&str]) -> Result<Lab> {
    besieged_with(more, "")
}

/// The same with more settings of the agents.
pub fn besieged_with(more: &[&str], settings: &str) -> Result<Lab> {
    let mut lab = application(&[&[EVIL], more].concat())?;
    lab.start_agents(settings)?;
    enrol(&mut lab)?;
    captured_in(&lab, "evil")?;
    Ok(lab)
}

/// The suite's own check: the attacker is an ordinary client as long as it does what everybody may.
#[test]
fn the_attacker_is_an_ordinary_client() -> Result<()> {
    let lab = besieged(&[])?;
    settle(&lab, "attacker", &["http://details.bookinfo:9080/details/0"], 200)?;
    Ok(())
}
