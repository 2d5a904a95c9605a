//! Reads the files of a directory, and parses those that changed.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::Str;
use crate::source::manifest::{Document, decode, parse};
use crate::source::store::File;

/// The largest file that is read, in bytes. A file of that size holds thousands of objects; etcd takes 1.5 MiB for one.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// The most files that are read; more are a sign that the setting names the wrong directory.
const MAX_FILES: usize = 10_000;

/// What file systems keep at their root, and let only root look into.
const LOST_AND_FOUND: &str = "lost+found";

/// What a file's name must end in.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

pub(super) struct Reader {
    path: PathBuf,
    cache: BTreeMap<Str, Cached>,
    /// Whether the last reading failed.
    pub(super) failed: bool,
}

/// What a file said when it was last read.
#[derive(Clone, PartialEq)]
enum Text {
    Read(String),
    Unreadable(String),
    /// It is not read, and may have been meant to be.
    PassedOver(&'static str),
}

/// What stands in the directory under a name.
enum Place {
    File(PathBuf),
    /// A folder that cannot be read, and why.
    Unreadable(String),
    /// What is not read, and why.
    PassedOver(&'static str),
}

const OTHER_CASE: &str =
    "is not read: the names of manifests end in .yaml, .yml or .json, in lower case";
const TOO_DEEP: &str =
    "is not read: manifests stand in the directory and in its folders, one level deep";

struct Cached {
    text: Text,
    documents: Arc<[Document]>,
}

impl Reader {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, cache: BTreeMap::new(), failed: false }
    }

    /// All files in the order of their names, and whether any of them says something else than at the last reading.
    /// Fails when the directory itself cannot be read.
    pub(super) fn read(&mut self) -> io::Result<(Vec<File>, bool)> {
        let cache = &self.cache;
        let was_folder = |name: &str| {
            let inside = |file: &Str| file.strip_prefix(name).is_some_and(|it| it.starts_with('/'));
            cache.keys().any(inside)
        };
        let listed = list(&self.path, was_folder).and_then(|listed| match holds_nothing(&listed) {
            // Whoever means it ends the agent; a mount that is missing, or a copy that has begun, looks like this.
            true if !self.cache.is_empty() => Err(io::Error::new(
                ErrorKind::NotFound,
                "it holds no manifests any more, which is taken for an accident",
            )),
            _ => Ok(listed),
        });
        self.failed = listed.is_err();
        let mut before = std::mem::take(&mut self.cache);
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => {
                self.cache = before;
                return Err(error);
            }
        };
        let mut changed = false;
        let mut files = Vec::new();
        for (name, place) in listed {
            let Some(text) = text_of(place) else { continue };
            let cached = match before.remove(&name).filter(|cached| cached.text == text) {
                Some(cached) => cached,
                None => {
                    changed = true;
                    Cached { documents: parsed(&text), text }
                }
            };
            let documents = match &cached.text {
                Text::Read(_) | Text::PassedOver(_) => Ok(cached.documents.clone()),
                Text::Unreadable(why) => Err(why.clone()),
            };
            files.push(File { name: name.clone(), documents });
            self.cache.insert(name, cached);
        }
        // What is left has been deleted.
        Ok((files, changed || !before.is_empty()))
    }
}

fn parsed(text: &Text) -> Arc<[Document]> {
    match text {
        Text::Read(text) => parse(text).into(),
        Text::Unreadable(_) => Arc::from([]),
        Text::PassedOver(why) => Arc::from([Document::passed_over(why)]),
    }
}

/// Names below the directory.
type Listing = BTreeMap<Str, Place>;

fn holds_nothing(listed: &Listing) -> bool {
    listed.values().all(|place| matches!(place, Place::PassedOver(_)))
}

/// `was_folder`: something of this name was a folder with manifests when all was last read.
fn list(directory: &Path, was_folder: impl Fn(&str) -> bool) -> io::Result<Listing> {
    let mut files = Listing::new();
    for (name, path) in entries(directory)? {
        // Follows links.
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => list_folder(&name, &path, &mut files),
            // What is wrong with it is found when it is read.
            _ if is_manifest(&path) => {
                files.insert(name.into(), Place::File(path));
            }
            Ok(_) => files.extend(passed_over(&path).map(|place| (name.into(), place))),
            // Gone again, or a link to nowhere that was never anything else.
            Err(error) if error.kind() == ErrorKind::NotFound && !was_folder(&name) => {}
            Err(error) => {
                files.insert(name.into(), Place::Unreadable(error.to_string()));
            }
        }
        if files.len() > MAX_FILES {
            let why = format!("it holds more than {MAX_FILES} manifests");
            return Err(io::Error::new(ErrorKind::InvalidInput, why));
        }
    }
    Ok(files)
}

fn list_folder(name: &str, path: &Path, files: &mut Listing) {
    match entries(path) {
        Ok(inner) => {
            for (inner, path) in inner {
                let place = match is_manifest(&path) {
                    true => Some(Place::File(path)),
                    false => passed_over(&path),
                };
                files.extend(place.map(|place| (Str::from(format!("{name}/{inner}")), place)));
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            files.insert(name.into(), Place::Unreadable(error.to_string()));
        }
    }
}

/// What is worth a word of that which is not read.
fn passed_over(path: &Path) -> Option<Place> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()) {
        return Some(Place::PassedOver(OTHER_CASE));
    }
    let inner = path.is_dir().then(|| entries(path).unwrap_or_default());
    let manifests = inner?.iter().any(|(_, path)| is_manifest(path));
    manifests.then_some(Place::PassedOver(TOO_DEEP))
}

/// The entries that are not hidden, no backup, and not the file system's own.
pub(super) fn entries(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !name.ends_with('~') && name != LOST_AND_FOUND {
            entries.push((name, entry.path()));
        }
    }
    Ok(entries)
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

/// `None` when the file is gone again.
fn text_of(place: Place) -> Option<Text> {
    let path = match place {
        Place::File(path) => path,
        Place::Unreadable(why) => return Some(Text::Unreadable(why)),
        Place::PassedOver(why) => return Some(Text::PassedOver(why)),
    };
    match read_file(&path) {
        Ok(text) => Some(Text::Read(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let is_link = std::fs::symlink_metadata(&path).is_ok();
            is_link.then(|| Text::Unreadable("it is a link to what is not there".to_owned()))
        }
        Err(error) => Some(Text::Unreadable(error.to_string())),
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    // A pipe or device would block or never end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read > MAX_FILE_BYTES) {
        let why = format!("it is larger than {MAX_FILE_BYTES} bytes");
        return Err(io::Error::new(ErrorKind::InvalidData, why));
    }
    Ok(decode(bytes))
}
