//! A network namespace, and work inside it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;
use nix::sys::statfs::{NSFS_MAGIC, statfs};

/// Where `ip netns` and container runtimes keep namespaces by name.
const DIRECTORY: &str = "/run/netns";
/// The namespace of the calling thread, not of the process's first thread.
const OWN: &str = "/proc/thread-self/ns/net";
/// `NS_GET_NSTYPE` of linux/nsfs.h: `_IO(0xb7, 0x3)`; libc does not define it.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
/// `SIOCGSKNS` of linux/sockios.h: the network namespace of a socket; libc does not define it.
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// `SO_NETNS_COOKIE` of asm-generic/socket.h, since Linux 5.14; libc does not define it.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Identifies a network namespace, whatever path leads to it. Once the namespace has ended, the kernel may reuse its
/// inode for another one, but never its cookie until the next boot.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct NamespaceId {
    pub device: u64,
    pub inode: u64,
    /// `None` with kernels that do not report it.
    #[serde(default)]
    pub cookie: Option<u64>,
}

impl NamespaceId {
    /// Whether an existing namespace is the one from which this was taken, earlier in the same boot.
    pub fn is_still(&self, now: &Self) -> bool {
        let cookies = (self.cookie, now.cookie);
        (self.device, self.inode) == (now.device, now.inode)
            && !matches!(cookies, (Some(then), Some(now)) if then != now)
    }

    /// Enough to compare namespaces that exist at the same time.
    pub fn place(&self) -> Place {
        (self.device, self.inode)
    }
}

/// Device and inode of an existing namespace.
pub type Place = (u64, u64);

/// A network namespace, held open.
#[derive(Clone, Debug)]
pub struct NetworkNamespace(Arc<OwnedFd>);

/// Returns the thread to its namespace when dropped, also if the work inside panicked.
struct Return(OwnedFd);

impl NetworkNamespace {
    /// A name below `/run/netns`, or an absolute path. Anything that is not a network namespace is rejected.
    pub fn open(name_or_path: &str) -> io::Result<Self> {
        let path = resolve(name_or_path)?;
        // Checked before it is opened: the path comes from an annotation, and opening a device has effects.
        let file_system = statfs(&path).map_err(|error| explain(&path, error.into()))?;
        if file_system.filesystem_type() != NSFS_MAGIC {
            return Err(not_a_namespace(&path));
        }
        let file = File::open(&path).map_err(|error| explain(&path, error))?;
        if namespace_type(file.as_fd()).map_err(|error| explain(&path, error))?
            != libc::CLONE_NEWNET
        {
            return Err(not_a_namespace(&path));
        }
        Ok(Self(Arc::new(file.into())))
    }

    /// The namespace of the calling thread.
    pub fn own() -> io::Result<Self> {
        Self::open(OWN)
    }

    /// The namespace in which a socket was created (requires CAP_NET_ADMIN there).
    #[allow(unsafe_code)]
    pub fn of_socket(socket: &impl AsFd) -> io::Result<Self> {
        // SAFETY: the descriptor is borrowed for the whole call; this request takes no argument and returns a new
        // descriptor, which nothing else owns.
        let namespace = unsafe {
            let descriptor = libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(descriptor)
        };
        Ok(Self(Arc::new(namespace)))
    }

    /// The inode: equal for two handles of one namespace.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(fstat(self.0.as_fd())?.st_ino)
    }

    /// Equal for two handles of one namespace, whatever opened them.
    pub fn place(&self) -> io::Result<Place> {
        let file = fstat(self.0.as_fd())?;
        Ok((file.st_dev, file.st_ino))
    }

    /// Distinguishes it from every other namespace of this boot. Enters it.
    pub fn id(&self) -> io::Result<NamespaceId> {
        let (device, inode) = self.place()?;
        let cookie = self.run(cookie)?;
        Ok(NamespaceId { device, inode, cookie })
    }

    /// Runs `work` on this thread inside the namespace and returns to the old one; `work` must not await.
    ///
    /// A thread that cannot return would keep creating sockets in a workload's namespace, so the process ends then.
    /// This is the only hard stop.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let back = Return(File::open(OWN).map_err(|error| explain(Path::new(OWN), error))?.into());
        setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|error| {
            let error = io::Error::from(error);
            io::Error::new(
                error.kind(),
                format!("cannot enter a network namespace (CAP_SYS_ADMIN is needed): {error}"),
            )
        })?;
        let result = work();
        drop(back);
        Ok(result)
    }
}

impl Drop for Return {
    fn drop(&mut self) {
        if let Err(error) = setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET) {
            tracing::error!(%error, "a thread cannot leave a workload's network namespace: stopping the process");
            std::process::abort();
        }
    }
}

/// A name must stay below the directory: it comes from an annotation.
fn resolve(name_or_path: &str) -> io::Result<PathBuf> {
    if name_or_path.starts_with('/') {
        return Ok(PathBuf::from(name_or_path));
    }
    if name_or_path.is_empty()
        || name_or_path.contains('/')
        || name_or_path == "."
        || name_or_path == ".."
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name_or_path:?} is neither an absolute path nor a name below {DIRECTORY}"),
        ));
    }
    Ok(Path::new(DIRECTORY).join(name_or_path))
}

/// For the calling thread's namespace.
#[allow(unsafe_code)]
fn cookie() -> Option<u64> {
    let socket = std::os::unix::net::UnixDatagram::unbound().ok()?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the whole call; the kernel writes no more than `length` bytes, which is the size of
    // `cookie`, and the number of those that it wrote.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (outcome == 0 && length as usize == size_of::<u64>()).then_some(cookie)
}

#[allow(unsafe_code)]
fn namespace_type(file: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is borrowed for the whole call; this request takes no argument and writes nothing.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
}

fn explain(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("network namespace {}: {error}", path.display()))
}

fn not_a_namespace(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "{} is not a network namespace; check that it is mounted (`ip netns list`) and visible to the agent",
            path.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_network_namespaces() {
        let own = NetworkNamespace::open(OWN).unwrap();
        let again = NetworkNamespace::open("/proc/self/ns/net").unwrap();
        assert_eq!(own.inode().unwrap(), again.inode().unwrap());
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let of_socket = NetworkNamespace::of_socket(&socket);
        assert!(of_socket.is_err() || of_socket.unwrap().inode().unwrap() == own.inode().unwrap());
        for path in ["/proc/self/ns/uts", "/dev/null", "/proc/self/status", "/etc"] {
            let error = NetworkNamespace::open(path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
            assert!(error.to_string().contains(path), "{error}");
        }
        let missing = NetworkNamespace::open("isthmus-no-such-name").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(missing.to_string().contains("/run/netns/isthmus-no-such-name"), "{missing}");
    }

    #[test]
    fn a_namespace_is_itself_by_any_path_and_no_later_one() {
        let own = NetworkNamespace::open(OWN).unwrap();
        let again = NetworkNamespace::open("/proc/self/ns/net").unwrap();
        assert_eq!(own.place().unwrap(), again.place().unwrap());
        let id = NamespaceId { device: 4, inode: 7, cookie: Some(1) };
        for (device, inode, cookie, still) in [
            (4, 7, Some(1), true),
            (4, 7, None, true),
            (4, 7, Some(2), false),
            (4, 8, Some(1), false),
            (5, 7, Some(1), false),
        ] {
            let now = NamespaceId { device, inode, cookie };
            assert_eq!(id.is_still(&now), still, "{now:?}");
        }
    }

    #[test]
    fn names_stay_below_the_directory() {
        for name in ["", ".", "..", "../self", "a/b"] {
            assert_eq!(resolve(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
        assert_eq!(resolve("node-a").unwrap(), Path::new("/run/netns/node-a"));
        assert_eq!(resolve("/proc/7/ns/net").unwrap(), Path::new("/proc/7/ns/net"));
    }
}
