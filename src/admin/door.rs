//! The admin socket. A process that may open it can read everything and stop the agent.
//!
//! Three checks protect it, each of them sufficient: only root (the agent's user) may access the directory and the
//! socket's file, and the kernel reports the user of each client process ([`may_administer`]). The file has a separate
//! name per node, and is put in place in one step, so that there is always a socket to connect to. During an upgrade
//! the newest agent owns the name; an agent whose successor went away takes it back.
//!
//! An abstract socket would have no file to protect, and a TCP port cannot identify its clients.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

#[cfg(test)]
mod tests;

/// The end of the name of each agent's socket.
const SUFFIX: &str = ".sock";
/// The longest name of a file is 255 bytes; the longest name of a node is 253.
const MAX_NAME: usize = 255 - SUFFIX.len();
/// How often an agent looks whether its name is still there: a system call.
const LOOK: Duration = Duration::from_secs(2);
/// What others may do with the directory: nothing.
const OTHERS: u32 = 0o077;

/// Who may administer an agent that runs as `own`: root, and the user that the agent runs as, who could do anything to it
/// anyway. Capabilities do not count, and neither do groups. The client judges an agent by the same rule, so that nobody
/// else answers in its place.
pub fn may_administer(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

/// The process at the other end, as the kernel knew it when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    /// 0 for a process without a number in the agent's PID namespace.
    pub pid: i32,
}

/// A listening socket, and its file.
pub(super) struct Door {
    directory: Directory,
    name: String,
    listener: UnixListener,
    /// Device and inode of the socket's file.
    file: (u64, u64),
}

/// A private directory. It is held open, so that no name on the path to it can be changed after the check.
struct Directory {
    path: PathBuf,
    file: File,
}

/// The name of the socket of a node's agent.
pub fn socket_name(node: &str) -> String {
    format!("{}{SUFFIX}", node.get(..MAX_NAME).unwrap_or(node))
}

/// The names of the sockets in a directory, in order: of every agent that runs on this machine with these settings.
///
/// # Errors
/// The directory does not exist, or cannot be read.
pub fn socket_names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(SUFFIX) && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Connects to the agent whose socket is at `path`.
///
/// # Errors
/// There is no socket, nothing listens, permission is denied, or another user's process listens.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let file = open(path, libc::O_PATH)?;
    if !file.metadata()?.file_type().is_socket() {
        return Err(refused(format!("{} is no socket", path.display())));
    }
    // By the open file: the path of a socket may have only 107 bytes.
    let stream = UnixStream::connect(held(&file)).await?;
    let owner = stream.peer_cred()?.uid();
    if !may_administer(owner, own_user()) {
        let why = format!("a process of user {owner} listens at {}, no agent", path.display());
        return Err(refused(why));
    }
    Ok(stream)
}

impl Door {
    /// Creates the socket and takes over its name from its owner.
    ///
    /// # Errors
    /// The directory is not private, or the name belongs to something other than a socket.
    pub(super) fn open(directory: &Path, node: &str) -> io::Result<Self> {
        let directory = Directory::make(directory)?;
        let name = socket_name(node);
        let (listener, file) = directory.bind(&name)?;
        Ok(Self { directory, name, listener, file })
    }

    /// The next connection of a permitted client; `None` for any other client, whose connection is closed.
    pub(super) async fn accept(&self) -> io::Result<Option<(UnixStream, Caller)>> {
        let (stream, _) = self.listener.accept().await?;
        let peer = stream.peer_cred()?;
        let caller = Caller { uid: peer.uid(), pid: peer.pid().unwrap_or(0) };
        if may_administer(caller.uid, own_user()) {
            return Ok(Some((stream, caller)));
        }
        let (uid, pid) = (caller.uid, caller.pid);
        tracing::warn!(target: crate::telemetry::AUDIT, uid, pid, "administration is refused");
        Ok(None)
    }

    /// Ready when nothing listens under the name any more: a successor that had it went away.
    pub(super) async fn lost(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.directory.identity(&self.name).is_ok_and(|file| file == self.file) {
                continue;
            }
            let other = self.directory.path.join(&self.name);
            match connect(&other).await {
                // A successor listens; in any case, the socket is not stale.
                Ok(_) => {}
                Err(error) if is_stale(&error) => return,
                Err(error) => tracing::debug!(path = %other.display(), %error, "not this agent's"),
            }
        }
    }

    /// Takes the name back, in a new directory if the old one was removed.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.directory = Directory::make(&self.directory.path)?;
        (self.listener, self.file) = self.directory.bind(&self.name)?;
        Ok(())
    }
}

impl Drop for Door {
    /// Removes the name; that of a successor stays.
    fn drop(&mut self) {
        if self.directory.identity(&self.name).is_ok_and(|file| file == self.file) {
            _ = fs::remove_file(self.directory.at(&self.name));
        }
    }
}

impl Directory {
    fn make(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let file = open(path, libc::O_PATH | libc::O_DIRECTORY).map_err(|error| {
            refused(format!("{error}: it must be a directory, and no link to one"))
        })?;
        let found = file.metadata()?;
        if !may_administer(found.uid(), own_user()) {
            let why = format!("it belongs to user {}; remove it, or name another", found.uid());
            return Err(refused(why));
        }
        if found.mode() & OTHERS != 0 {
            let mode = found.mode() & 0o7777;
            let why = format!("others may use it (mode {mode:o}); chmod 700, or name another");
            return Err(refused(why));
        }
        Ok(Self { path: path.to_owned(), file })
    }

    /// A path into this very directory.
    fn at(&self, name: &str) -> PathBuf {
        held(&self.file).join(name)
    }

    /// A socket that listens under the name; an existing one is replaced in one step.
    fn bind(&self, name: &str) -> io::Result<(UnixListener, (u64, u64))> {
        match fs::symlink_metadata(self.at(name)) {
            Ok(found) if found.file_type().is_socket() => {}
            Ok(_) => {
                let why = format!("{} is no socket; remove it", self.path.join(name).display());
                return Err(refused(why));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Agents in pods all have the process number 1, so a random number distinguishes them.
        let own = format!(".{:016x}", fastrand::u64(..));
        let listener = UnixListener::bind(self.at(&own))?;
        let ready = fs::set_permissions(self.at(&own), fs::Permissions::from_mode(0o600))
            .and_then(|()| self.identity(&own))
            .and_then(|file| fs::rename(self.at(&own), self.at(name)).map(|()| file));
        if ready.is_err() {
            _ = fs::remove_file(self.at(&own));
        }
        ready.map(|file| (listener, file))
    }

    fn identity(&self, name: &str) -> io::Result<(u64, u64)> {
        fs::symlink_metadata(self.at(name)).map(|it| (it.dev(), it.ino()))
    }
}

/// Never follows a symbolic link.
fn open(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(flags | libc::O_NOFOLLOW).open(path)
}

/// The path of an open file, even if its name has changed.
fn held(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn is_stale(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}
