//! What this process may do, which is mostly what an agent that is started in the same way may do.

use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};

use super::{Outcome, Report};
use crate::config::Settings;

/// Numbers of capabilities (capabilities(7)).
const NEEDED: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];
/// Files for some 16,000 connections.
const FEWEST_FILES: u64 = 65_536;
const CGROUPS: &str = "/sys/fs/cgroup";
/// For a node with a few waypoints.
const WORKERS: usize = 4;

pub(super) fn look(report: &mut Report, settings: &Settings) {
    let status = std::fs::read_to_string("/proc/self/status");
    report.add(
        "capabilities",
        match status {
            Ok(status) => capabilities(&status),
            Err(error) => Outcome::Unknown(format!("/proc/self/status: {error}")),
        },
    );
    report.add(
        "file-limit",
        match getrlimit(Resource::RLIMIT_NOFILE) {
            Ok((_, hard)) => files(hard),
            Err(error) => Outcome::Unknown(error.to_string()),
        },
    );
    let bound = settings.memory_bound();
    report.add("memory-limit", memory(limit(), bound.total(0), bound.total(WORKERS)));
}

fn capabilities(status: &str) -> Outcome {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(Ok(set)) = effective.map(|text| u64::from_str_radix(text.trim(), 16)) else {
        return Outcome::Unknown("/proc/self/status has no CapEff".to_owned());
    };
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(_, bit)| set >> bit & 1 == 0).map(|(name, _)| *name).collect();
    match missing.is_empty() {
        true => Outcome::Pass("CAP_SYS_ADMIN and CAP_NET_ADMIN".to_owned()),
        false => Outcome::Failure(format!("this process lacks {}", missing.join(" and "))),
    }
}

fn files(hard: u64) -> Outcome {
    match hard {
        0..FEWEST_FILES => Outcome::Warning(format!("at most {hard}")),
        hard => Outcome::Pass(format!("at most {hard}")),
    }
}

/// The tightest limit of this process's cgroup and those above it; `Ok(None)`: none.
fn limit() -> Result<Option<u64>, String> {
    let own = std::fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"));
    let path = path.ok_or("there is no cgroup of version 2")?;
    let mut place = PathBuf::from(CGROUPS).join(path.trim_start_matches('/'));
    let mut limit = None;
    while place.starts_with(CGROUPS) {
        let of_place = max(&place.join("memory.max"));
        limit = [limit, of_place].into_iter().flatten().min();
        if !place.pop() {
            break;
        }
    }
    Ok(limit)
}

fn max(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn memory(limit: Result<Option<u64>, String>, least: usize, usual: usize) -> Outcome {
    let mib = |bytes: usize| bytes / (1024 * 1024);
    let (least_mib, usual_mib) = (mib(least), mib(usual));
    let limit = match limit {
        Err(why) => return Outcome::Unknown(why),
        Ok(None) => {
            return Outcome::Pass(format!(
                "none; the settings allow for {usual_mib} MiB with {WORKERS} waypoint workers"
            ));
        }
        Ok(Some(limit)) => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let limit_mib = mib(limit);
    if limit < least {
        return Outcome::Failure(format!(
            "{limit_mib} MiB, and the settings allow for {least_mib} MiB without any waypoint"
        ));
    }
    if limit < usual {
        return Outcome::Warning(format!(
            "{limit_mib} MiB, and the settings allow for {usual_mib} MiB with {WORKERS} waypoint workers"
        ));
    }
    Outcome::Pass(format!(
        "{limit_mib} MiB; the settings allow for {usual_mib} MiB with {WORKERS} waypoint workers"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_rights_is_told_which_it_lacks() {
        assert!(matches!(capabilities("CapEff:\t000001ffffffffff\n"), Outcome::Pass(_)));
        let none = capabilities("CapPrm:\t0\nCapEff:\t0000000000001000\n");
        assert_eq!(none, Outcome::Failure("this process lacks CAP_SYS_ADMIN".to_owned()));
        assert!(matches!(capabilities(""), Outcome::Unknown(_)));
    }

    #[test]
    fn a_limit_below_the_bound_of_the_settings_is_told() {
        const MIB: usize = 1024 * 1024;
        let judged = |limit: u64| memory(Ok(Some(limit)), 200 * MIB, 400 * MIB);
        assert!(matches!(judged(100 << 20), Outcome::Failure(_)));
        assert!(matches!(judged(300 << 20), Outcome::Warning(_)));
        assert!(matches!(judged(500 << 20), Outcome::Pass(_)));
        assert!(matches!(memory(Ok(None), 1, 2), Outcome::Pass(_)));
        assert!(matches!(memory(Err("no".into()), 1, 2), Outcome::Unknown(_)));
    }

    #[test]
    fn few_files_are_a_warning() {
        assert!(matches!(files(1_024), Outcome::Warning(_)));
        assert!(matches!(files(1 << 20), Outcome::Pass(_)));
    }
}
