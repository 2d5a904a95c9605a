//! A directory of manifests as a source.
//!
//! Read are files that end in `.yaml`, `.yml` or `.json`, in the directory itself and in its folders, one level deep;
//! not those whose names start with a dot (editors' temporary files, the hidden folders of a mounted ConfigMap) or end
//! with `~`. Files are taken in the order of their names.
//!
//! Changes are seen at once through inotify, gathered until the directory is quiet for a moment, and applied as one.
//! Atomic renames, symbolic links that are turned to another directory (as ConfigMaps are updated) and a directory
//! that is removed and restored are all followed: every wake reads what is there now, and watches what was read. What
//! inotify cannot see, such as a linked file changed in place, is found by reading all again from time to time.
//!
//! An emptied or deleted file is a deletion of its objects. A directory that is missing, cannot be read, or has lost all
//! of its manifests is taken for an accident: the last state stays in force, and an error is logged.

mod read;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::complaint;
use super::last_read::LastRead;
use super::{Asked, Objects, Source, SourceError, TranslateSettings, Translation, Translator};
use read::Reader;
use watch::Watch;

/// How long the directory must be quiet before it is read: longer than the steps of one save or `kubectl cp`, too
/// short to notice.
const QUIET: Duration = Duration::from_millis(50);
/// How long changes may be gathered when it never gets quiet.
const GATHER_AT_MOST: Duration = Duration::from_secs(1);
/// How often everything is read again while changes are watched: a safety net for what inotify cannot see.
const REREAD: Duration = Duration::from_secs(30);
/// How often everything is read where watching is not possible (no inotify instances left, some network file systems).
const REREAD_UNWATCHED: Duration = Duration::from_secs(2);

/// The source of the manifests in one directory.
#[derive(Clone, Debug)]
pub struct DirectorySource {
    path: PathBuf,
    settings: TranslateSettings,
    /// When all of it was last read.
    last_read: LastRead,
    asked: Asked,
}

/// Reads a directory once, to report on it.
///
/// # Errors
/// The directory cannot be read. Whatever is wrong with its files is in the complaints.
pub fn check(path: &Path, settings: &TranslateSettings) -> Result<Translation, SourceError> {
    let wakes = Arc::new(Notify::new());
    let mut state = State::new(path.to_owned(), settings.clone(), wakes);
    let translation = state.read().map_err(|cause| directory_error(path, cause))?;
    Ok(translation.unwrap_or_default())
}

/// Reads the objects of a directory once, with a pod for each template of pods.
///
/// # Errors
/// The directory cannot be read.
pub fn read(path: &Path) -> Result<Objects, SourceError> {
    let (files, _) =
        Reader::new(path.to_owned()).read().map_err(|cause| directory_error(path, cause))?;
    let mut objects = Objects::from_files(&files, &Objects::default());
    objects.add_templates(&files);
    Ok(objects)
}

/// What is known, and what it takes to know more. Its methods block, so it moves to a blocking thread and back.
struct State {
    translator: Translator,
    reader: Reader,
    watch: Watch,
    objects: Objects,
    last: Option<Translation>,
}

impl DirectorySource {
    pub fn new(path: impl Into<PathBuf>, settings: TranslateSettings) -> Self {
        Self {
            path: path.into(),
            settings,
            last_read: LastRead::default(),
            asked: Asked::default(),
        }
    }

    /// Tells when the directory was last read without an error, while [`Source::run`] runs.
    pub fn last_read(&self) -> LastRead {
        self.last_read.clone()
    }

    /// Gives the objects while [`Source::run`] runs.
    pub fn asked(&self) -> Asked {
        self.asked.clone()
    }
}

impl Source for DirectorySource {
    async fn run(
        self,
        mut publish: impl FnMut(Translation) + Send,
        cancel: CancellationToken,
    ) -> Result<(), SourceError> {
        let wakes = Arc::new(Notify::new());
        let mut state = State::new(self.path.clone(), self.settings, wakes.clone());
        let mut published = false;
        let mut missing = false;
        loop {
            let (back, outcome) = state.refresh().await?;
            state = back;
            match outcome {
                Ok(Some(translation)) => {
                    publish(translation);
                    published = true;
                }
                Ok(None) => {}
                Err(cause) if !published => return Err(directory_error(&self.path, cause)),
                Err(cause) if !missing => tracing::error!(
                    directory = %self.path.display(),
                    %cause,
                    "the manifest directory cannot be read any more; the last state stays in force"
                ),
                Err(_) => {}
            }
            missing = state.reader.failed;
            if !missing {
                self.last_read.now();
            }
            let reread = if state.watch.is_active() { REREAD } else { REREAD_UNWATCHED };
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = wakes.notified() => settle(&wakes).await,
                () = self.asked.wanted() => self.asked.answer(&state.objects),
                () = sleep(reread) => {}
            }
        }
    }
}

impl State {
    fn new(path: PathBuf, settings: TranslateSettings, wakes: Arc<Notify>) -> Self {
        // Events carry paths that start with the watched one.
        let path = std::path::absolute(&path).unwrap_or(path);
        Self {
            translator: Translator::new(settings),
            reader: Reader::new(path.clone()),
            watch: Watch::new(path, wakes),
            objects: Objects::default(),
            last: None,
        }
    }

    /// Watches what is there now, then reads it: what changes in between wakes the source again.
    async fn refresh(
        mut self,
    ) -> Result<(Self, std::io::Result<Option<Translation>>), SourceError> {
        let done = tokio::task::spawn_blocking(move || {
            self.watch.follow();
            let outcome = self.read();
            (self, outcome)
        });
        Ok(done.await?)
    }

    /// The new state, when there is one.
    fn read(&mut self) -> std::io::Result<Option<Translation>> {
        let (files, changed) = self.reader.read()?;
        if !changed && self.last.is_some() {
            return Ok(None);
        }
        let before = std::mem::take(&mut self.objects);
        self.objects = Objects::from_files(&files, &before);
        let changed = self.objects.differing(&before);
        let translation = self.translator.translate(&self.objects, Some(&changed));
        if self.last.as_ref().is_some_and(|last| translation.says_the_same_as(last)) {
            return Ok(None);
        }
        let known = self.last.as_ref().map_or(&[][..], |last| &last.complaints);
        complaint::log(
            translation.complaints.iter().filter(|complaint| !known.contains(complaint)),
        );
        self.last = Some(translation.clone());
        Ok(Some(translation))
    }
}

/// Waits until no change came for a moment.
async fn settle(wakes: &Notify) {
    let deadline = Instant::now() + GATHER_AT_MOST;
    while timeout(QUIET, wakes.notified()).await.is_ok() && Instant::now() < deadline {}
}

fn directory_error(path: &Path, cause: std::io::Error) -> SourceError {
    SourceError::Directory { path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests;
