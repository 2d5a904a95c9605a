//! Keeps the plugin installed while the agent runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::install::{InstallError, Installer};
use crate::base::Backoff;

/// Events may be lost, and directories may be mounted over.
const LOOK: Duration = Duration::from_secs(10);
/// The time for another writer of the configuration to finish.
const QUIET: Duration = Duration::from_millis(200);
const SLOWEST: Duration = Duration::from_secs(30);
/// Two programs that each rewrite the file do so ever more slowly.
const SLOWER: Backoff = Backoff::new(QUIET, SLOWEST);
/// After this time without a change the conflict is over.
const PEACE: Duration = Duration::from_secs(60);

/// Installs the plugin, and reinstalls it whenever another writer changes the configuration. `installed` gets the
/// result of each check.
pub async fn follow(
    installer: Installer,
    mut installed: impl FnMut(bool) + Send,
    cancel: CancellationToken,
) {
    let wakes = Arc::new(Notify::new());
    let _watcher = watch(&installer.conf_directory, wakes.clone());
    let mut quarrel = Quarrel::default();
    let mut known = None;
    loop {
        let look = installer.clone();
        let outcome = match tokio::task::spawn_blocking(move || look.install()).await {
            Ok(outcome) => outcome,
            Err(error) => {
                let path = installer.conf_directory.clone();
                Err(InstallError::Io { path, cause: std::io::Error::other(error) })
            }
        };
        installed(outcome.is_ok());
        let text = outcome.as_ref().err().map(InstallError::to_string);
        match &outcome {
            Ok(true) => {
                tracing::info!(directory = %installer.conf_directory.display(), "the CNI plugin is installed")
            }
            Err(error) if known != text => {
                tracing::warn!("the CNI plugin is not installed: {error}")
            }
            _ => {}
        }
        known = text;
        let pause = quarrel.pause(matches!(outcome, Ok(true)));
        let waiting = async {
            tokio::select! {
                () = wakes.notified() => {}
                () = sleep(LOOK) => {}
            }
            sleep(pause).await;
        };
        if cancel.run_until_cancelled(waiting).await.is_none() {
            return;
        }
    }
}

/// How often others changed the file.
#[derive(Default)]
struct Quarrel {
    rounds: u32,
    last: Option<Instant>,
}

impl Quarrel {
    /// How long to leave the file alone after a check, depending on whether it had to be changed.
    fn pause(&mut self, changed: bool) -> Duration {
        if self.last.is_some_and(|last| last.elapsed() > PEACE) {
            self.rounds = 0;
        }
        if changed {
            self.rounds = self.rounds.saturating_add(1);
            self.last = Some(Instant::now());
        }
        SLOWER.after(self.rounds)
    }
}

/// Without it there is still [`LOOK`].
fn watch(directory: &Path, wakes: Arc<Notify>) -> Option<RecommendedWatcher> {
    let watching = || -> notify::Result<RecommendedWatcher> {
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Reading the files is an event too.
                if !matches!(event, Ok(event) if event.kind.is_access()) {
                    wakes.notify_one();
                }
            })?;
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    };
    match watching() {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(directory = %directory.display(), %error, "cannot watch the directory; changes are noticed late");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_quarrel_slows_down_and_is_forgotten() {
        let mut quarrel = Quarrel::default();
        assert_eq!(quarrel.pause(true), QUIET);
        assert_eq!(quarrel.pause(true), 2 * QUIET);
        assert_eq!(quarrel.pause(false), 2 * QUIET);
        for _ in 0..100 {
            quarrel.pause(true);
        }
        assert_eq!(quarrel.pause(true), SLOWEST);
        tokio::time::advance(PEACE + QUIET).await;
        assert_eq!(quarrel.pause(false), QUIET);
    }
}
