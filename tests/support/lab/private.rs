//! The private world in which a lab lives: separate network and mount namespaces, so that nothing of the
//! host is touched and everything vanishes with the process.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::command::run;

/// Where named network namespaces are; `ip netns` and the agent agree on it.
pub const NETWORK_NAMESPACES: &str = "/run/netns";

/// The lab's own files: manifests, logs, certificates. In the private `/run`, hence in memory.
pub const DIRECTORY: &str = "/run/lab";

/// Moves the calling thread, and what it starts from now on, into a private world.
///
/// As root this concerns the thread alone, so tests in one process have a world each. Otherwise a user
/// namespace is made first, which the kernel allows only while the process has a single thread.
pub fn enter() -> Result<()> {
    if !geteuid().is_root() {
        become_root_of_a_user_namespace()?;
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .context("unshare the network and mount namespaces: root, or CAP_SYS_ADMIN, is needed")?;
    let none: Option<&Path> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("make the mounts private")?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NODEV, Some("mode=755"))
        .context("mount a private /run")?;
    fs::create_dir(NETWORK_NAMESPACES)?;
    fs::create_dir(DIRECTORY)?;
    run("ip", &["link", "set", "lo", "up"])?;
    Ok(())
}

/// Replaces the host's names with `hosts`, in the private world only. Names that are not in it do not exist:
/// a question to a name server that cannot be reached would take seconds.
pub fn set_hosts(hosts: &str) -> Result<()> {
    // curl's LDAP library asks for the machine's own name at every start.
    let own = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let hosts = format!("{hosts}127.0.0.1 {own}");
    replace("/etc/hosts", "hosts", &hosts)?;
    // A link into the host's `/run` leads nowhere here, which has the same effect.
    if Path::new("/etc/resolv.conf").exists() {
        replace("/etc/resolv.conf", "resolv.conf", "nameserver 127.0.0.1\noptions attempts:1\n")?;
    }
    Ok(())
}

/// Lets programs of the lab ask a name server at `address` for names that no hosts file has. After [`set_hosts`].
pub fn set_name_server(address: IpAddr) -> Result<()> {
    // The very file that is mounted over the host's, which must not be touched.
    let file = Path::new(DIRECTORY).join("resolv.conf");
    ensure!(file.exists(), "the machine has no /etc/resolv.conf to put the lab's over");
    fs::write(&file, format!("nameserver {address}\noptions attempts:1\n"))
        .with_context(|| format!("write {}", file.display()))
}

fn replace(path: &str, name: &str, content: &str) -> Result<()> {
    let file = Path::new(DIRECTORY).join(name);
    fs::write(&file, content)?;
    let none: Option<&Path> = None;
    mount(Some(&file), path, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("mount the lab's {path}"))
}

/// Whether this process is in a user namespace other than the machine's first.
pub fn in_user_namespace() -> bool {
    // The first one maps all users there are (user_namespaces(7)).
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().last() != Some("4294967295")
}

fn become_root_of_a_user_namespace() -> Result<()> {
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).context(
        "make a user namespace: not root, and the kernel refuses; run as root, or check \
         /proc/sys/user/max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns",
    )?;
    // Without this the kernel refuses the map of groups (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    Ok(())
}
