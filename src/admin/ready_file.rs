//! Readiness as a file, for a probe that must check this very agent: on the host network, another agent that runs
//! beside it may answer on the port.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Readiness;

/// How late the file may be.
const LOOK: Duration = Duration::from_millis(200);

/// `file` exists while everything is ready, and is removed at the end. The file of an earlier agent is removed first.
pub async fn keep_ready_file(file: PathBuf, readiness: Readiness, cancel: CancellationToken) {
    let mut stands = true;
    loop {
        let ready = readiness.missing().is_empty() && !cancel.is_cancelled();
        if ready != stands {
            match set(&file, ready) {
                Ok(()) => stands = ready,
                Err(error) => {
                    tracing::error!(file = %file.display(), %error, "cannot show whether this agent is ready");
                }
            }
        }
        if cancel.is_cancelled() {
            return;
        }
        cancel.run_until_cancelled(tokio::time::sleep(LOOK)).await;
    }
}

fn set(file: &Path, ready: bool) -> io::Result<()> {
    if ready {
        return std::fs::write(file, "ready\n");
    }
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_file_stands_while_everything_is_ready() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ready");
        std::fs::write(&file, "from before").unwrap();
        let (readiness, cancel) = (Readiness::default(), CancellationToken::new());
        let node = readiness.register("node");
        let keeping = tokio::spawn(keep_ready_file(file.clone(), readiness, cancel.clone()));
        for (done, stands) in [(false, false), (true, true), (false, false), (true, true)] {
            node.set(done);
            tokio::time::sleep(2 * LOOK).await;
            assert_eq!(file.exists(), stands);
        }
        cancel.cancel();
        keeping.await.unwrap();
        assert!(!file.exists());
    }
}
