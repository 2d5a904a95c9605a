//! What an operator takes from an agent whose root file system is read-only.

use anyhow::{Result, ensure};

use crate::cluster::administer;
use crate::guide::meshed;

#[test]
fn a_profile_of_an_agent_can_be_taken() -> Result<()> {
    meshed()?;
    let arguments = ["--show-error", "--fail", "-o", "/dev/null", "-w", "%{size_download}"];
    let length = administer("node1", &arguments, "debug/pprof/profile?seconds=1")?;
    ensure!(length.trim().parse::<usize>()? > 0, "the profile is empty");
    Ok(())
}
