//! What the container runtime said, on disk, for an agent that starts again: a file for each sandbox in a directory that
//! only root may look into. Written before the runtime has its answer, removed when the sandbox ends.
//!
//! Whatever is not surely this agent's own word is left out and told: a file or directory of another user or that others
//! may write, a file that is no record. What the machine's last start or the end of a namespace made untrue is removed. All
//! of it blocks for as long as a small file takes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::record::RecordError;
use super::{Record, Sandbox};
use crate::base::Seldom;
use crate::sock::NetworkNamespace;

/// The kernel's name of this boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// Only its owner may look.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Rights of others in what is trusted.
const WRITABLE_BY_OTHERS: u32 = 0o022;
const OF_OTHERS: u32 = 0o077;
/// Bytes of a record: paths, names and a few addresses.
const MAX_LENGTH: u64 = 64 * 1024;
/// Records of a node, which has some hundred pods: so many are read, whatever lies there.
const MAX_RECORDS: usize = 10_000;

/// The records of one node.
pub struct Ledger {
    directory: PathBuf,
    boot: String,
    trouble: Seldom,
}

impl Ledger {
    /// Makes the directory when it is missing.
    ///
    /// # Errors
    /// It cannot be made, or others may write to it.
    pub fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
        let found = fs::symlink_metadata(directory)?;
        if !found.is_dir() || found.uid() != geteuid().as_raw() {
            return Err(io::Error::new(
                ErrorKind::PermissionDenied,
                "it is not a directory of the agent's user",
            ));
        }
        if found.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(io::Error::new(ErrorKind::PermissionDenied, "others may write to it"));
        }
        fs::set_permissions(directory, fs::Permissions::from_mode(DIRECTORY_MODE))?;
        let boot = fs::read_to_string(BOOT)?.trim().to_owned();
        Ok(Self { directory: directory.to_owned(), boot, trouble: Seldom::new() })
    }

    /// In place of what was said of its namespace before.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, workload: &str, sandbox: &Sandbox) -> io::Result<()> {
        let record = Record::new(workload, sandbox, &self.boot);
        let text = record.print().map_err(io::Error::other)?;
        let name = record.file_name();
        let temporary = self.directory.join(format!(".{name}.{}", std::process::id()));
        _ = fs::remove_file(&temporary);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&temporary)?;
        file.write_all(&text)?;
        fs::rename(&temporary, self.directory.join(name))
    }

    /// Nothing there is no error.
    pub fn remove(&self, sandbox: &Sandbox) {
        let record = Record::new("", sandbox, &self.boot);
        self.forget(&self.directory.join(record.file_name()));
    }

    fn forget(&self, path: &Path) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound && self.trouble.is_due() => {
                tracing::warn!(path = %path.display(), %error, "a record of a sandbox cannot be removed");
            }
            _ => {}
        }
    }

    /// The records that count now.
    pub fn read(&self) -> Vec<Record> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(
                    directory = %self.directory.display(), %error,
                    "what the container runtime said cannot be read; check [workloads] directory"
                );
                return Vec::new();
            }
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.take(MAX_RECORDS).filter_map(|path| self.read_one(&path)).collect()
    }

    fn read_one(&self, path: &Path) -> Option<Record> {
        let name = path.file_name()?.to_string_lossy();
        // On its way to its name.
        if name.starts_with('.') {
            return None;
        }
        let record = read(path).map_err(RecordError::from);
        let record = record.and_then(|text| Record::parse(&text)).and_then(|record| {
            let is_its = record.file_name() == name;
            is_its.then_some(record).ok_or(RecordError::OtherNamespace)
        });
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(
                    path = %path.display(), reason = error.to_string(),
                    "a record of a sandbox is left out: its pod is looked for as if nothing were known of it"
                );
                return None;
            }
        };
        let now = NetworkNamespace::open(&record.network_namespace).and_then(|it| it.id()).ok();
        match record.counts(&self.boot, now.as_ref()) {
            Ok(()) => Some(record),
            Err(stale) => {
                tracing::debug!(path = %path.display(), %stale, "a record of a sandbox is removed");
                self.forget(path);
                None
            }
        }
    }
}

/// The bytes of a file that nobody else could have written.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let options = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(options).open(path);
    let file: File = opened?;
    let found = file.metadata()?;
    if !found.is_file() || found.uid() != geteuid().as_raw() {
        return Err(io::Error::other("it is not a file of the agent's user"));
    }
    if found.mode() & OF_OTHERS != 0 {
        return Err(io::Error::other("others may read or write it"));
    }
    if found.nlink() != 1 {
        return Err(io::Error::other("it has other names"));
    }
    let mut text = Vec::new();
    file.take(MAX_LENGTH).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This thread's own namespace, as if it were a pod's.
    fn sandbox(pod: &str) -> Sandbox {
        let path = "/proc/thread-self/ns/net";
        let namespace = NetworkNamespace::open(path).unwrap();
        let (device, inode) = namespace.place().unwrap();
        Sandbox {
            pod: pod.into(),
            container: "c".into(),
            network_namespace: path.into(),
            namespace: crate::sock::NamespaceId { device, inode, cookie: None },
            addresses: vec!["10.0.0.1".parse().unwrap()],
        }
    }

    fn pods(ledger: &Ledger) -> Vec<String> {
        ledger.read().into_iter().map(|it| it.pod).collect()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_was_said_is_there_for_the_next_agent_until_the_sandbox_ends() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("a/b");
        let ledger = Ledger::open(&own).unwrap();
        ledger.write("w", &sandbox("first")).unwrap();
        ledger.write("w", &sandbox("second")).unwrap();
        let next = Ledger::open(&own).unwrap();
        assert_eq!(pods(&next), ["second"], "one namespace, one record");
        assert_eq!(next.read()[0].sandbox(), sandbox("second"));
        assert_eq!(mode(&own), 0o700);
        let file = fs::read_dir(&own).unwrap().next().unwrap().unwrap().path();
        assert_eq!(mode(&file), 0o600);
        next.remove(&sandbox("second"));
        next.remove(&sandbox("second"));
        assert!(pods(&ledger).is_empty() && fs::read_dir(&own).unwrap().next().is_none());
    }

    #[test]
    fn a_record_that_is_not_the_truth_any_more_goes() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path()).unwrap();
        let gone = Sandbox { network_namespace: "/run/netns/isthmus-none".into(), ..sandbox("p") };
        ledger.write("w", &gone).unwrap();
        assert!(pods(&ledger).is_empty());
        let before =
            Ledger { boot: "an earlier one".to_owned(), ..Ledger::open(directory.path()).unwrap() };
        before.write("w", &sandbox("p")).unwrap();
        assert!(pods(&ledger).is_empty());
        assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
    }

    #[test]
    fn what_others_may_have_written_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path()).unwrap();
        ledger.write("w", &sandbox("p")).unwrap();
        let file = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(&file, 0o666);
        assert!(pods(&ledger).is_empty());
        set(&file, 0o600);
        assert_eq!(pods(&ledger), ["p"]);
        let link = directory.path().join("1-1.json");
        fs::hard_link(&file, &link).unwrap();
        assert!(pods(&ledger).is_empty(), "by another name");
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(pods(&ledger), ["p"]);
        fs::copy(&file, directory.path().join("1-2.json")).unwrap();
        fs::write(directory.path().join("1-3.json"), "{").unwrap();
        assert_eq!(pods(&ledger), ["p"], "a copy and a ruin");
        set(directory.path(), 0o777);
        assert!(Ledger::open(directory.path()).is_err());
        set(directory.path(), 0o755);
        Ledger::open(directory.path()).unwrap();
        assert_eq!(mode(directory.path()), 0o700);
        assert!(Ledger::open(&file).is_err());
    }
}
