//! Records of what the container runtime reported, on disk, for an agent that restarts: one file per sandbox in a
//! directory that only root may read. A record is written before the runtime has its answer, and removed when the
//! sandbox ends.
//!
//! If anybody else may have written a record, it is ignored and logged: a file or directory of another user or writable
//! by others, or a malformed file. Records that a reboot or the end of a namespace made stale are removed. Every call
//! blocks for as long as a small file takes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::record::RecordError;
use super::{Record, Sandbox};
use crate::base::Seldom;
use crate::sock::NetworkNamespace;

/// The kernel's ID of this boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// Only its owner may read it.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Permissions of others that make a file untrusted.
const WRITABLE_BY_OTHERS: u32 = 0o022;
const OF_OTHERS: u32 = 0o077;
/// The longest record, in bytes: paths, names and a few addresses.
const MAX_LENGTH: u64 = 64 * 1024;
/// The most records of a node, which has some hundred pods; further files are ignored.
const MAX_RECORDS: usize = 10_000;

/// The records of one node.
pub struct Ledger {
    directory: PathBuf,
    boot: String,
    trouble: Seldom,
}

impl Ledger {
    /// Creates the directory if it is missing.
    ///
    /// # Errors
    /// It cannot be created, or others may write to it.
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

    /// Replaces the earlier record of its namespace.
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

    /// A missing record is not an error.
    pub fn remove(&self, sandbox: &Sandbox) {
        let record = Record::new("", sandbox, &self.boot);
        self.forget(&self.directory.join(record.file_name()));
    }

    fn forget(&self, path: &Path) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound && self.trouble.is_due() => {
                tracing::warn!(path = %path.display(), %error, "cannot remove the record of a sandbox");
            }
            _ => {}
        }
    }

    /// The records that are valid now.
    pub fn read(&self) -> Vec<Record> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(
                    directory = %self.directory.display(), %error,
                    "cannot read the records of sandboxes; check [workloads] directory"
                );
                return Vec::new();
            }
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.take(MAX_RECORDS).filter_map(|path| self.read_one(&path)).collect()
    }

    fn read_one(&self, path: &Path) -> Option<Record> {
        let name = path.file_name()?.to_string_lossy();
        // A temporary file, before its rename.
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
                    "ignoring an untrusted record of a sandbox; searching for its pod without it"
                );
                return None;
            }
        };
        let now = NetworkNamespace::open(&record.network_namespace).and_then(|it| it.id()).ok();
        match record.counts(&self.boot, now.as_ref()) {
            Ok(()) => Some(record),
            Err(stale) => {
                tracing::debug!(path = %path.display(), %stale, "removing a stale record of a sandbox");
                self.forget(path);
                None
            }
        }
    }
}

/// The content of a file that no other user could have written.
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
        return Err(io::Error::other("it has other hard links"));
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
