//! What an operator takes from an agent whose root file system is read-only.

use anyhow::{Result, ensure};

use crate::cluster::on_node;
use crate::guide::meshed;

#[test]
fn a_profile_of_an_agent_can_be_taken() -> Result<()> {
    meshed()?;
    let url = "http://127.0.0.1:15000/debug/pprof/profile?seconds=1";
    let length = on_node(
        "node1",
        "curl",
        &["-sSf", "-o", "/dev/null", "-w", "%{size_download}", "--max-time", "20", url],
    )?;
    ensure!(length.trim().parse::<usize>()? > 0, "the profile is empty");
    Ok(())
}
