//! Installs and removes the plugin's program and its entry in the node's network configuration. Blocks.
//!
//! The runtime reads the first configuration by name (`.conf`, `.conflist`, `.json`). A list gets our entry; a single
//! plugin gets a list beside it. Either way the original's bytes are kept until removal.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::conflist::{
    Entry, Malformed, PLUGIN, list_of, says_the_same, with_plugin, without_plugin,
};

/// The suffix of an original while ours is in its place: runtimes ignore files with it.
const ORIGINAL: &str = "isthmus-original";
const LIST: &str = "conflist";
/// Configurations of a single plugin.
const SINGLE: [&str; 2] = ["conf", "json"];
/// The mode of the program.
const EXECUTABLE: u32 = 0o755;
/// The chunk size of comparisons.
const CHUNK: usize = 64 * 1024;

/// Installs the plugin into a node's configuration.
#[derive(Clone, Debug)]
pub struct Installer {
    /// Where the runtime looks for configurations.
    pub conf_directory: PathBuf,
    /// Where it looks for programs.
    pub bin_directory: PathBuf,
    /// The program to install.
    pub program: PathBuf,
    pub entry: Entry,
}

/// Why the plugin is not installed, or not removed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(
        "no network is configured in {} yet; the plugin is installed as soon as there is one", .0.display()
    )]
    NoNetwork(PathBuf),
    #[error("{}: {cause}; check that the directory is mounted and writable ([cni] in the settings)", path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error("{}: {cause}; the plugin is installed once the file is valid", path.display())]
    Malformed { path: PathBuf, cause: Malformed },
    #[error("both {} and {} exist; remove one of them", .0.display(), .1.display())]
    Both(PathBuf, PathBuf),
}

impl Installer {
    /// Makes sure that the first configuration runs our plugin, and no other one does. Returns whether anything was
    /// changed.
    ///
    /// # Errors
    /// There is no configuration to install into yet, or it cannot be changed; the previous content is still in place.
    pub fn install(&self) -> Result<bool, InstallError> {
        let mut changed = self.install_program()?;
        let files = self.configurations()?;
        let Some((first, others)) = files.split_first() else {
            return Err(InstallError::NoNetwork(self.conf_directory.clone()));
        };
        changed |= match has_extension(first, LIST) {
            true => self.install_list(first)?,
            false => self.install_beside(first)?,
        };
        let ours = first.with_extension(LIST);
        for other in others.iter().filter(|other| has_extension(other, LIST) && **other != ours) {
            // Files that a runtime does not use are left alone, except the file that was first before.
            if is_original_kept(other) {
                changed |= restore(other)?;
            }
        }
        Ok(changed)
    }

    /// Removes what [`Installer::install`] left, whichever agent did it; nothing to remove is not an error.
    ///
    /// # Errors
    /// The first failure; everything else is tried all the same.
    pub fn uninstall(&self) -> Result<(), InstallError> {
        let mut outcome = Ok(());
        for file in self.configurations()?.iter().filter(|file| has_extension(file, LIST)) {
            outcome = outcome.and(restore(file).map(drop));
        }
        let program = self.bin_directory.join(PLUGIN);
        outcome.and(remove(&program).map_err(|cause| InstallError::Io { path: program, cause }))
    }

    fn install_program(&self) -> Result<bool, InstallError> {
        let target = self.bin_directory.join(PLUGIN);
        let installing = || -> io::Result<bool> {
            if same_bytes(&self.program, &target)? {
                return Ok(false);
            }
            let temporary = self.bin_directory.join(format!(".{PLUGIN}.new"));
            fs::copy(&self.program, &temporary)?;
            set_mode(&temporary, EXECUTABLE)?;
            fs::rename(&temporary, &target)?;
            Ok(true)
        };
        installing().map_err(|cause| InstallError::Io { path: target.clone(), cause })
    }

    fn install_list(&self, file: &Path) -> Result<bool, InstallError> {
        let text = read(file)?;
        let malformed = |cause| InstallError::Malformed { path: file.to_owned(), cause };
        let Some(edited) = with_plugin(&text, &self.entry).map_err(malformed)? else {
            return Ok(false);
        };
        // Kept from before, if only our entry differs.
        if without_plugin(&text).map_err(malformed)?.is_none() {
            write_like(file, &original_of(file), &text)?;
        }
        write_like(file, file, &edited)?;
        Ok(true)
    }

    /// The runtime would prefer the single one, so it is moved away once the list is in place.
    fn install_beside(&self, file: &Path) -> Result<bool, InstallError> {
        let text = read(file)?;
        let list = list_of(&text, &self.entry)
            .map_err(|cause| InstallError::Malformed { path: file.to_owned(), cause })?;
        let beside = file.with_extension(LIST);
        let ours = || read(&beside).is_ok_and(|it| matches!(without_plugin(&it), Ok(Some(_))));
        if beside.exists() && !ours() {
            return Err(InstallError::Both(file.to_owned(), beside));
        }
        write_like(file, &beside, &list)?;
        rename(file, &original_of(file))?;
        Ok(true)
    }

    /// In the runtime's order.
    fn configurations(&self) -> Result<Vec<PathBuf>, InstallError> {
        configurations(&self.conf_directory)
    }
}

/// The configuration that the runtime reads, which is the first one; `None` where there is none yet.
///
/// # Errors
/// The directory cannot be read.
pub fn first_configuration(directory: &Path) -> Result<Option<PathBuf>, InstallError> {
    Ok(configurations(directory)?.into_iter().next())
}

/// In the order in which the runtime looks at them.
fn configurations(directory: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let failed = |cause| InstallError::Io { path: directory.to_owned(), cause };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_read = [LIST].iter().chain(&SINGLE).any(|it| has_extension(&path, it));
        if is_read && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Restores the original; if another writer has changed the list since, removes only our entry. Returns whether
/// anything of ours was there.
fn restore(list: &Path) -> Result<bool, InstallError> {
    let text = read(list)?;
    let without = without_plugin(&text)
        .map_err(|cause| InstallError::Malformed { path: list.to_owned(), cause })?;
    let kept = original_of(list);
    let Some(without) = without else {
        // Another writer has rewritten the file.
        let stale = kept.exists();
        remove(&kept).map_err(|cause| InstallError::Io { path: kept, cause })?;
        return Ok(stale);
    };
    let singles = SINGLE.map(|extension| list.with_extension(extension));
    if let Some(single) = singles.iter().find(|single| original_of(single).exists()) {
        // A rewritten file is what the administrator wants.
        if single.exists() {
            let kept = original_of(single);
            remove(&kept).map_err(|cause| InstallError::Io { path: kept, cause })?;
        } else {
            rename(&original_of(single), single)?;
        }
        remove(list).map_err(|cause| InstallError::Io { path: list.to_owned(), cause })?;
        return Ok(true);
    }
    if read(&kept).is_ok_and(|original| says_the_same(&original, &without)) {
        rename(&kept, list)?;
    } else {
        write_like(list, list, &without)?;
        remove(&kept).map_err(|cause| InstallError::Io { path: kept, cause })?;
    }
    Ok(true)
}

fn is_original_kept(list: &Path) -> bool {
    let singles = SINGLE.map(|extension| list.with_extension(extension));
    original_of(list).exists() || singles.iter().any(|single| original_of(single).exists())
}

fn original_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(ORIGINAL);
    name.into()
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|it| it == extension)
}

fn read(path: &Path) -> Result<String, InstallError> {
    fs::read_to_string(path).map_err(|cause| InstallError::Io { path: path.to_owned(), cause })
}

fn rename(from: &Path, to: &Path) -> Result<(), InstallError> {
    fs::rename(from, to).map_err(|cause| InstallError::Io { path: from.to_owned(), cause })
}

/// The runtime sees the old bytes or the new ones, with the permissions of `like`.
fn write_like(like: &Path, to: &Path, text: &str) -> Result<(), InstallError> {
    let mut temporary = to.as_os_str().to_owned();
    temporary.push(".isthmus-new");
    let temporary = PathBuf::from(temporary);
    let writing = || -> io::Result<()> {
        let permissions = fs::metadata(like)?.permissions();
        let mut file = File::create(&temporary)?;
        file.set_permissions(permissions)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, to)
    };
    writing().map_err(|cause| InstallError::Io { path: to.to_owned(), cause })
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// The program is large: it is written only if it differs.
fn same_bytes(one: &Path, other: &Path) -> io::Result<bool> {
    let mut other = match File::open(other) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut one = File::open(one)?;
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let length = one.read(&mut left)?;
        if length == 0 {
            return Ok(true);
        }
        let Some(right) = right.get_mut(..length) else { return Ok(false) };
        other.read_exact(right)?;
        if left.get(..length) != Some(&*right) {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests;
