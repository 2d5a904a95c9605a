//! Inspects the network namespaces of this machine. Blocks.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::base::Str;
use crate::sock::{NamespaceId, NetworkNamespace, Place};

/// The runtimes' path of `/run/netns`; in the agent's container that may be another directory.
const OLD_DIRECTORY: &str = "/var/run/netns";
const DIRECTORY: &str = "/run/netns";

/// A network namespace of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its path.
    pub network_namespace: Str,
    pub id: NamespaceId,
    /// Of all its interfaces, without loopback and link-local ones.
    pub addresses: Vec<IpAddr>,
}

/// Converts the path of a namespace from the runtime's mounts to the agent's.
pub fn path_here(path: &str) -> String {
    match Path::new(path).strip_prefix(OLD_DIRECTORY) {
        Ok(name) => Path::new(DIRECTORY).join(name).to_string_lossy().into_owned(),
        Err(_) => path.to_owned(),
    }
}

/// Every namespace that has a name in `directory` (containerd and CRI-O keep those of their sandboxes there), except
/// this thread's own and those whose path `leave_out` knows. A namespace that vanishes meanwhile is skipped.
///
/// # Errors
/// The directory cannot be read.
/// The directory cannot be read.
pub fn scan(directory: &Path, leave_out: impl Fn(&str) -> bool) -> io::Result<Vec<Candidate>> {
    let own = NetworkNamespace::own()?.place()?;
    let mut candidates = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let Ok(entry) = entry else { continue };
        let path = entry.path();
        let Some(name) = path.to_str().filter(|name| !leave_out(name)) else { continue };
        match look_into(name, own) {
            Ok(Some(candidate)) => candidates.push(candidate),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "skipping a network namespace in the search for pods")
            }
        }
    }
    Ok(candidates)
}

fn look_into(path: &str, own: Place) -> io::Result<Option<Candidate>> {
    let namespace = NetworkNamespace::open(path)?;
    // A host-network pod has no separate network namespace.
    if namespace.place()? == own {
        return Ok(None);
    }
    let id = namespace.id()?;
    let addresses = addresses_in(&namespace)?;
    Ok(Some(Candidate { network_namespace: Str::from(path), id, addresses }))
}

/// The addresses at which others may reach the processes in the namespace.
///
/// # Errors
/// The namespace cannot be entered, or its addresses cannot be read.
pub fn addresses_in(namespace: &NetworkNamespace) -> io::Result<Vec<IpAddr>> {
    let interfaces = namespace.run(getifaddrs)??;
    let mut addresses: Vec<IpAddr> = interfaces
        .filter(|one| !one.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .filter_map(|one| {
            let address = one.address?;
            let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
        })
        .filter(|address| !is_local(*address))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Every namespace may have the same ones of these.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_namespace_or_our_own_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("/proc/self/ns/net", directory.path().join("own")).unwrap();
        assert_eq!(scan(directory.path(), |_| false).unwrap(), []);
        assert!(scan(&directory.path().join("missing"), |_| false).is_err());
    }

    #[test]
    fn runtimes_may_use_the_old_directory() {
        assert_eq!(path_here("/var/run/netns/cni-1"), "/run/netns/cni-1");
        assert_eq!(path_here("/run/netns/cni-1"), "/run/netns/cni-1");
        assert_eq!(path_here("/proc/7/ns/net"), "/proc/7/ns/net");
        assert_eq!(path_here(""), "");
    }

    #[test]
    fn loopback_and_link_local_addresses_name_nobody() {
        for (address, local) in [
            ("127.0.0.1", true),
            ("169.254.7.127", true),
            ("fe80::1", true),
            ("::1", true),
            ("10.0.0.1", false),
            ("fd00::1", false),
        ] {
            assert_eq!(is_local(address.parse().unwrap()), local, "{address}");
        }
    }
}
