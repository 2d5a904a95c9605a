//! The wall clock of the agents' machines is set while they run.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::certificates::serials;
use crate::support::lab::{Lab, private, wait};
use crate::{bookinfo, enrol, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const NODES: [&str; 2] = ["node-a", "node-b"];
const HOUR: i64 = 60 * 60;
const DAY: i64 = 24 * HOUR;

/// The clock that the agents see.
struct Clock(File);

impl Clock {
    /// To be called before the agents are started.
    fn install(lab: &mut Lab) -> Result<Self> {
        let library = lab.programs().bookinfo.with_file_name("libclock.so");
        ensure!(library.exists(), "{} is not there: cargo build --examples", library.display());
        let path = Path::new(private::DIRECTORY).join("clock");
        fs::write(&path, 0_i64.to_ne_bytes())?;
        let variable = |name: &str, value: &Path| (name.to_owned(), value.display().to_string());
        lab.environment
            .extend([variable("LD_PRELOAD", &library), variable("ISTHMUS_TEST_CLOCK", &path)]);
        Ok(Self(File::options().write(true).open(path)?))
    }

    /// Seconds after the right time.
    fn set(&self, seconds: i64) -> Result<()> {
        Ok(self.0.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }
}

fn all_serials(lab: &mut Lab) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for node in NODES {
        all.extend(serials(lab, node)?);
    }
    ensure!(all.len() >= 6 && all.iter().all(|(_, serial)| !serial.is_empty()), "{all:?}");
    Ok(all)
}

/// Waits until every certificate of both agents is another.
fn all_renewed(lab: &mut Lab, before: &[(String, String)]) -> Result<()> {
    wait::until("all certificates to be renewed", || {
        let now = all_serials(lab)?;
        Ok(before.iter().all(|one| !now.contains(one)).then_some(()))
    })
}

#[test]
fn a_clock_that_is_set_leaves_the_mesh_with_valid_certificates() -> Result<()> {
    let mut lab = bookinfo()?;
    let clock = Clock::install(&mut lab)?;
    lab.start_agents("")?;
    enrol(&mut lab)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    settle(&lab, "stranger", &[DETAILS], 200)?;

    // Past the middle of their lives: renewed within seconds, and in use meanwhile.
    let (before, since) = (all_serials(&mut lab)?, lab.moment()?);
    clock.set(14 * HOUR)?;
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200);
    all_renewed(&mut lab, &before)?;
    let told = lab.lines_since(&since);
    ensure!(
        told.iter().any(|(_, line)| line.contains("clock of this machine has jumped")),
        "{told:?}"
    );

    // Past their ends: the next connection does not see an old one.
    let (before, since) = (all_serials(&mut lab)?, lab.moment()?);
    clock.set(40 * DAY)?;
    let answer = lab.curl("curl", &[DETAILS])?;
    assert_eq!(answer.status, 200, "{answer:?}");
    all_renewed(&mut lab, &before)?;
    settle(&lab, "stranger", &[DETAILS], 200)?;
    let told = lab.lines_since(&since);
    ensure!(!told.iter().any(|(_, line)| line.contains("expired")), "{told:?}");

    // Back to the right time: those of the future are replaced, and peers understand each other again.
    let before = all_serials(&mut lab)?;
    clock.set(0)?;
    all_renewed(&mut lab, &before).context("after the clock was set back")?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    settle(&lab, "stranger", &[DETAILS], 200)?;
    Ok(())
}
