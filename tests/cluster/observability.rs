//! Profiles and dumps that an operator takes from an agent with a read-only root file system.

use std::path::Path;
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::cluster::administer;
use crate::guide::meshed;
use crate::profile::Profile;

/// The image's program keeps the names of its functions: without them a profile says nothing.
#[test]
fn a_profile_of_an_agent_can_be_taken_and_names_functions() -> Result<()> {
    meshed()?;
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("agent.pb.gz");
    let output = file.display().to_string();
    let taking = thread::spawn(move || {
        administer(
            "node1",
            &["--show-error", "--fail", "-o", &output],
            "debug/pprof/profile?seconds=3&frequency=1000",
        )
    });
    // Something to do that is not done in system calls, where no samples are taken.
    while !taking.is_finished() {
        administer("node1", &["--show-error", "-o", "/dev/null"], "config_dump?[1-50]")?;
    }
    taking.join().ok().context("the thread that takes the profile panicked")??;
    let profile = Profile::read(&file)?;
    ensure!(profile.total() > 0, "the profile is empty");
    ensure!(profile.names_functions(), "no function of Isthmus has a name: {:?}", profile.strings);
    Ok(())
}
