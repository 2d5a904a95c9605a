//! The two files of an authority, shared by the agents of a machine.
//!
//! The certificate's rename is the commit: if both files are present, the pair is complete and needs no lock.
//! Everything else happens under an exclusive lock on the directory, which the kernel releases when an agent dies. Both
//! files are on disk under other names before the first rename. So a crash leaves either nothing, or a key whose
//! certificate still waits beside it and is renamed at the next start. A pair that a user brought is never overwritten.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::identity::authority::{
    AuthorityError, CA_CERTIFICATE as CERTIFICATE, CA_KEY as KEY, Pair,
};

/// Names of files that are not complete yet.
const NEW_CERTIFICATE: &str = ".ca-cert.pem.new";
const NEW_KEY: &str = ".ca-key.pem.new";

const DIRECTORY_MODE: u32 = 0o700;
const CERTIFICATE_MODE: u32 = 0o644;
const KEY_MODE: u32 = 0o600;

/// A user who can write to the directory could replace the authority.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Any right on the key for the group or others.
const OPEN_TO_OTHERS: u32 = 0o077;

/// More than any bundle needs; keeps a wrong path from filling the memory.
const MAX_FILE: u64 = 1024 * 1024;

/// Why the directory has no pair that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::identity) enum LocalError {
    #[error("the directory cannot be created: {0}")]
    NotCreated(String),
    #[error("it cannot be {done}: {cause}")]
    Directory { done: &'static str, cause: String },
    #[error("{file} cannot be {done}: {cause}")]
    File { file: &'static str, done: &'static str, cause: String },
    #[error(
        "{missing} is missing beside {present}; put it there, or remove {present} for a new authority"
    )]
    Half { missing: &'static str, present: &'static str },
    #[error("others may write to the directory (mode {mode:o}); run: chmod 700 {directory}")]
    Writable { mode: u32, directory: String },
    #[error(
        "others have rights on {file} (mode {mode:o}); run: chmod 600 {path}, and consider the key known"
    )]
    Open { file: &'static str, mode: u32, path: String },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The task that read the files.
    #[error("{0}")]
    Broken(String),
}

impl LocalError {
    fn directory(done: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Directory { done, cause: error.to_string() }
    }

    fn file(file: &'static str, done: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::File { file, done, cause: error.to_string() }
    }
}

/// Reads the pair, or writes the one that `create` makes when there is none. Of several agents that start
/// together one writes and all read the same.
pub(super) fn load_or_create(
    directory: &Path,
    create: &dyn Fn() -> Result<Pair, AuthorityError>,
) -> Result<Pair, LocalError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)
        .map_err(|error| LocalError::NotCreated(error.to_string()))?;
    check_directory(directory)?;
    if !is_complete(directory)? {
        let _lock = lock(directory)?;
        match (exists(directory, KEY)?, exists(directory, CERTIFICATE)?) {
            (true, true) => {}
            (false, false) => write_pair(directory, &create()?)?,
            (true, false) if exists(directory, NEW_CERTIFICATE)? => commit(directory)?,
            (true, false) => {
                return Err(LocalError::Half { missing: CERTIFICATE, present: KEY });
            }
            (false, true) => {
                return Err(LocalError::Half { missing: KEY, present: CERTIFICATE });
            }
        }
    }
    read_pair(directory)
}

/// Reads the pair again; makes none, since an authority that others trust already must not be replaced by accident.
pub(super) fn load(directory: &Path) -> Result<Pair, LocalError> {
    check_directory(directory)?;
    read_pair(directory)
}

fn read_pair(directory: &Path) -> Result<Pair, LocalError> {
    let key = read(directory, KEY, OPEN_TO_OTHERS)?;
    let certificate = read(directory, CERTIFICATE, 0)?;
    Ok(Pair { certificate, key })
}

fn check_directory(directory: &Path) -> Result<(), LocalError> {
    let metadata = fs::metadata(directory).map_err(LocalError::directory("read"))?;
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(LocalError::Writable { mode, directory: directory.display().to_string() });
    }
    Ok(())
}

fn exists(directory: &Path, name: &'static str) -> Result<bool, LocalError> {
    directory.join(name).try_exists().map_err(LocalError::file(name, "looked at"))
}

fn is_complete(directory: &Path) -> Result<bool, LocalError> {
    Ok(exists(directory, KEY)? && exists(directory, CERTIFICATE)?)
}

/// Waits for another agent that is creating the authority at this moment.
fn lock(directory: &Path) -> Result<Flock<File>, LocalError> {
    let file = File::open(directory).map_err(LocalError::directory("opened"))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| LocalError::Directory { done: "locked", cause: error.to_string() })
}

fn write_pair(directory: &Path, pair: &Pair) -> Result<(), LocalError> {
    let failed = |name| LocalError::file(name, "written");
    write(&directory.join(NEW_CERTIFICATE), &pair.certificate, CERTIFICATE_MODE)
        .map_err(failed(CERTIFICATE))?;
    write(&directory.join(NEW_KEY), &pair.key, KEY_MODE).map_err(failed(KEY))?;
    sync(directory)?;
    fs::rename(directory.join(NEW_KEY), directory.join(KEY)).map_err(failed(KEY))?;
    sync(directory)?;
    commit(directory)
}

fn commit(directory: &Path) -> Result<(), LocalError> {
    fs::rename(directory.join(NEW_CERTIFICATE), directory.join(CERTIFICATE))
        .map_err(LocalError::file(CERTIFICATE, "written"))?;
    sync(directory)
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    // What an agent left behind that died here may have other rights.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The creation mask may have taken rights away, which is right for the key but hides the certificate.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync(directory: &Path) -> Result<(), LocalError> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(LocalError::directory("written to the disk"))
}

/// Reads a file whose mode has none of the `forbidden` bits, judged on the open file.
fn read(directory: &Path, name: &'static str, forbidden: u32) -> Result<String, LocalError> {
    let path = directory.join(name);
    let failed = LocalError::file(name, "read");
    let file = File::open(&path).map_err(&failed)?;
    let mode = file.metadata().map_err(&failed)?.mode();
    if mode & forbidden != 0 {
        let (mode, path) = (mode & 0o7777, path.display().to_string());
        return Err(LocalError::Open { file: name, mode, path });
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}
