//! TCP timestamps of a captured namespace: without offsets as long as it is captured, and as they were afterwards.

use isthmus::redirect::{self, Applied, Place};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::{lab::Namespace, program};

const PARAMETER: &str = "ipv4/tcp_timestamps";

fn value(namespace: &Namespace) -> String {
    namespace.command("cat /proc/sys/net/ipv4/tcp_timestamps").trim().to_owned()
}

fn remove(namespace: &Namespace) {
    namespace.run(|| redirect::remove(Place::Workload)).unwrap();
}

#[test]
fn they_have_no_offsets_while_captured() {
    let namespace = Namespace::new();
    let untouched = Namespace::new();
    assert_eq!(value(&namespace), "1");
    for _ in 0..2 {
        // Another agent applies again what it finds.
        for _ in 0..2 {
            namespace.apply(&program());
            assert_eq!(value(&namespace), "2");
        }
        remove(&namespace);
        assert_eq!(value(&namespace), "1");
    }
    assert_eq!(value(&untouched), "1");
}

#[test]
fn what_the_pod_chose_stays() {
    let namespace = Namespace::new();
    for chosen in ["0", "2"] {
        namespace.set(PARAMETER, chosen);
        namespace.apply(&program());
        assert_eq!(value(&namespace), chosen);
        remove(&namespace);
        assert_eq!(value(&namespace), chosen);
    }
    namespace.set(PARAMETER, "1");
    namespace.apply(&program());
    namespace.set(PARAMETER, "0");
    remove(&namespace);
    assert_eq!(value(&namespace), "0");
}

/// As container runtimes have it for agents that are not privileged.
fn with_proc_sys_read_only<T>(work: impl FnOnce() -> T) -> T {
    let none: Option<&str> = None;
    let path = "/proc/sys";
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some(path), path, none, MsFlags::MS_BIND, none).unwrap();
    mount(none, path, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)
        .unwrap();
    assert!(std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", "2").is_err());
    work()
}

#[test]
fn a_read_only_proc_is_no_obstacle() {
    let namespace = Namespace::new();
    let apply = || redirect::apply(&program());
    let applied = namespace.run(|| with_proc_sys_read_only(apply)).unwrap();
    assert_eq!(applied, Applied::default());
    assert_eq!(value(&namespace), "2");
    let remove = || redirect::remove(Place::Workload);
    namespace.run(|| with_proc_sys_read_only(remove)).unwrap();
    assert_eq!(value(&namespace), "1");
}

/// An agent that may not write them captures all the same, and says so.
#[test]
fn offsets_that_must_stay_are_no_secret() {
    let namespace = Namespace::new();
    let apply = || {
        let mut own = capabilities(None).unwrap();
        own.effective.remove(CapabilitySet::SYS_ADMIN);
        set_capabilities(None, own).unwrap();
        redirect::apply(&program())
    };
    let applied = namespace.run(|| with_proc_sys_read_only(apply)).unwrap();
    assert!(applied.misaligned.is_some_and(|why| !why.is_empty()));
    assert_eq!(value(&namespace), "1");
    assert!(namespace.rules().contains("table inet isthmus"));
    remove(&namespace);
    assert_eq!(value(&namespace), "1");
}
