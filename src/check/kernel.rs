//! The kernel: its version, and whether it takes the capture rules.

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::utsname::uname;

use super::{Outcome, Report};
use crate::redirect::{self, Applied, CapturePlan};

/// What the agent needs.
const OLDEST: (u32, u32) = (5, 10);
/// Closes conntrack's entry of a connection that was reset, so that its ports can be used again.
const BETTER: (u32, u32) = (6, 5);

pub(super) fn look(report: &mut Report) {
    report.add(
        "kernel-version",
        match uname() {
            Ok(name) => version(&name.release().to_string_lossy()),
            Err(error) => Outcome::Unknown(error.to_string()),
        },
    );
    report.add("kernel-rules", rules());
}

fn version(release: &str) -> Outcome {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Outcome::Unknown(format!("{release:?} is no version"));
    };
    match (major, minor) {
        version if version < OLDEST => {
            Outcome::Failure(format!("Linux {release} is older than 5.10"))
        }
        version if version < BETTER => Outcome::Warning(format!(
            "Linux {release}: before 6.5, ports of a connection that was refused stay unusable for a while"
        )),
        _ => Outcome::Pass(format!("Linux {release}")),
    }
}

/// Applies the rules of a workload where they meet nobody: in a namespace that ends with its thread.
fn rules() -> Outcome {
    let apply = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| match error {
            Errno::EPERM => {
                Outcome::Unknown("making a network namespace takes CAP_SYS_ADMIN".to_owned())
            }
            error => Outcome::Failure(format!("no network namespace can be made: {error}")),
        })?;
        let plan = CapturePlan { dns: true, ..CapturePlan::default() };
        let applied = redirect::raise_loopback()
            .and_then(|()| redirect::apply(&redirect::plan_workload(&plan)));
        applied.map_err(|error| Outcome::Failure(error.to_string()))
    };
    let applied = std::thread::scope(|scope| scope.spawn(apply).join());
    match applied {
        Ok(Ok(applied)) => taken(&applied),
        Ok(Err(outcome)) => outcome,
        Err(_) => Outcome::Failure("applying the rules panicked".to_owned()),
    }
}

fn taken(applied: &Applied) -> Outcome {
    if applied.plain {
        return Outcome::Warning(
            "the kernel lacks nft_objref, nft_reject_inet or nft_socket: drops are not counted, and SYN cookies of others \
             not refused"
                .to_owned(),
        );
    }
    if let Some(why) = &applied.misaligned {
        return Outcome::Warning(format!("TCP timestamps keep their offsets: {why}"));
    }
    match &applied.without_routes[..] {
        [] => Outcome::Pass("the kernel takes the whole table, for IPv4 and IPv6".to_owned()),
        families => Outcome::Warning(format!(
            "no route brings replies to borrowed addresses back ({families:?}): the agent connects with the workload's address"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(matches!(version("5.4.0-100-generic"), Outcome::Failure(_)));
        assert!(matches!(version("5.10.0"), Outcome::Warning(_)));
        assert!(matches!(version("6.12.3-cloud"), Outcome::Pass(_)));
        assert!(matches!(version("10.1"), Outcome::Pass(_)));
        assert!(matches!(version("unknown"), Outcome::Unknown(_)));
    }

    #[test]
    fn a_kernel_without_optional_modules_is_warned_of() {
        let plain = Applied { plain: true, ..Applied::default() };
        assert!(matches!(taken(&plain), Outcome::Warning(_)));
        assert!(matches!(taken(&Applied::default()), Outcome::Pass(_)));
    }
}
