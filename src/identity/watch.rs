//! Tells when the files of a directory may have changed, so that their user reads them again.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// How long the directory must be quiet: longer than it takes to put a certificate and its key there, too short to
/// matter for a revocation (ztunnel waits 2 s).
const QUIET: Duration = Duration::from_millis(250);
/// How long changes may be gathered when it never gets quiet.
const GATHER_AT_MOST: Duration = Duration::from_secs(2);
/// How often the files are read anyway: for what inotify cannot see (a linked file that is changed in place, some
/// network file systems, a machine without inotify instances left).
const LOOK: Duration = Duration::from_secs(5);

/// Watches one directory. A wake without a change is possible and cheap: the user compares what it reads.
pub(super) struct Watch {
    directory: PathBuf,
    wakes: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    /// Device and inode of the watched directory: a path that leads to another inode needs a new watch.
    watched: Option<(u64, u64)>,
}

impl Watch {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, wakes: Arc::new(Notify::new()), watcher: None, watched: None }
    }

    /// Waits until the files should be read again.
    pub(super) async fn changed(&mut self) {
        self.follow();
        tokio::select! {
            () = self.wakes.notified() => self.gather().await,
            () = sleep(LOOK) => {}
        }
    }

    async fn gather(&self) {
        let end = Instant::now() + GATHER_AT_MOST;
        while Instant::now() < end && timeout(QUIET, self.wakes.notified()).await.is_ok() {}
    }

    fn follow(&mut self) {
        let metadata = std::fs::metadata(&self.directory).ok();
        let now = metadata.map(|it| (it.dev(), it.ino()));
        if now == self.watched {
            return;
        }
        self.watched = now;
        self.watcher = match now.map(|_| self.watch()) {
            Some(Ok(watcher)) => {
                // Changes from before the watch.
                self.wakes.notify_one();
                Some(watcher)
            }
            Some(Err(cause)) => {
                tracing::warn!(
                    directory = %self.directory.display(), %cause,
                    "changes cannot be watched, they are looked for every few seconds instead; \
                     check the limit fs.inotify.max_user_instances"
                );
                None
            }
            None => None,
        };
    }

    fn watch(&self) -> notify::Result<RecommendedWatcher> {
        let wakes = self.wakes.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.map_or(true, |event| is_change(&event)) {
                wakes.notify_one();
            }
        })?;
        watcher.watch(&self.directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }
}

/// Reading a file is an event too, and would wake its reader for ever.
fn is_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wakes_for_changes_and_not_for_reading() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "one").unwrap();
        let mut watch = Watch::new(home.path().to_owned());
        // The first wake is for what changed before.
        watch.changed().await;
        let woken = timeout(Duration::from_secs(1), async {
            tokio::join!(watch.changed(), async { std::fs::read(&file).unwrap() })
        });
        assert!(woken.await.is_err(), "reading woke it");
        let started = Instant::now();
        tokio::join!(watch.changed(), async { std::fs::write(&file, "two").unwrap() });
        assert!(started.elapsed() < LOOK, "only the regular look noticed");
    }

    #[tokio::test]
    async fn follows_a_directory_that_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let (directory, away) = (home.path().join("ca"), home.path().join("away"));
        std::fs::create_dir(&directory).unwrap();
        let mut watch = Watch::new(directory.clone());
        watch.changed().await;
        std::fs::rename(&directory, &away).unwrap();
        std::fs::create_dir(&directory).unwrap();
        // At the latest the regular look notices, and watches what is there now.
        watch.changed().await;
        watch.changed().await;
        let started = Instant::now();
        tokio::join!(watch.changed(), async { std::fs::write(directory.join("a"), "b").unwrap() });
        assert!(started.elapsed() < LOOK, "the new directory is not watched");
    }
}
