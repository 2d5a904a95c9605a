//! Watches what a directory source reads.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::read::entries;

/// Wakes the source when something changes in the directory, in one of its folders, or when the directory itself is
/// replaced; for the latter its parent is watched.
pub(super) struct Watch {
    root: PathBuf,
    wakes: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    places: Vec<Place>,
}

/// A watched directory. inotify watches inodes, so a path that leads to another inode has to be watched anew.
#[derive(PartialEq)]
struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Watch {
    pub(super) fn new(root: PathBuf, wakes: Arc<Notify>) -> Self {
        Self { root, wakes, watcher: None, places: Vec::new() }
    }

    /// Whether changes are seen.
    pub(super) fn is_active(&self) -> bool {
        self.watcher.is_some()
    }

    /// Makes the watches fit what is there now.
    pub(super) fn follow(&mut self) {
        let places = places(&self.root);
        if self.watcher.is_some() && places == self.places {
            return;
        }
        match self.watch(&places) {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.places = places;
            }
            Err(cause) => {
                if self.watcher.take().is_some() || self.places.is_empty() {
                    tracing::warn!(
                        directory = %self.root.display(),
                        %cause,
                        "changes of the manifests cannot be watched, they are looked for every few seconds instead; \
                         check the limits fs.inotify.max_user_instances and fs.inotify.max_user_watches"
                    );
                }
                self.places = places;
            }
        }
    }

    fn watch(&self, places: &[Place]) -> notify::Result<RecommendedWatcher> {
        let wakes = self.wakes.clone();
        let root = self.root.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.map_or(true, |event| is_change(&event, &root)) {
                wakes.notify_one();
            }
        })?;
        for place in places {
            match watcher.watch(&place.path, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                // The next reading notices that it is gone, or lacks the right to it.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(watcher)
    }
}

fn places(root: &Path) -> Vec<Place> {
    let mut paths: Vec<PathBuf> = root.parent().map(Path::to_owned).into_iter().collect();
    paths.push(root.to_owned());
    let mut folders: Vec<PathBuf> =
        entries(root).unwrap_or_default().into_iter().map(|(_, path)| path).collect();
    folders.sort();
    paths.extend(folders);
    let directories = paths.into_iter().filter_map(|path| {
        let metadata = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_dir)?;
        Some(Place { path, device: metadata.dev(), inode: metadata.ino() })
    });
    directories.collect()
}

/// Reading a file is an event too, and would wake the source by itself for ever.
fn is_change(event: &Event, root: &Path) -> bool {
    let about_us = event.paths.is_empty() || event.paths.iter().any(|path| path.starts_with(root));
    let changes = match event.kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    };
    about_us && changes
}

fn is_gone(error: &notify::Error) -> bool {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => matches!(error.kind(), NotFound | PermissionDenied),
        _ => false,
    }
}
