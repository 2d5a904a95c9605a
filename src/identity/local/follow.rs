//! Watches the authority's files while agents run.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::files::{self, LocalError};
use super::{Current, LocalIssuer};
use crate::identity::watch::Watch;

impl LocalIssuer {
    /// Takes over what changes in the directory, until cancelled. Spawn it once.
    pub async fn follow(&self, cancel: CancellationToken) {
        let mut watch = Watch::new(self.directory.clone());
        // The last error reported, because the files are read repeatedly.
        let mut refused = None;
        loop {
            match self.reload().await {
                Ok(false) => refused = None,
                Ok(true) => {
                    refused = None;
                    let (serial, roots) = self.current.load().authority.description();
                    let directory = self.directory.display();
                    tracing::info!(%directory, serial, roots, "the local CA has changed");
                    self.revisions.send_modify(|revision| *revision += 1);
                }
                Err(reason) if refused.as_ref() == Some(&reason) => {}
                Err(reason) => {
                    tracing::error!(
                        directory = %self.directory.display(), %reason,
                        "the local CA has changed and cannot be used; the one before goes on signing"
                    );
                    refused = Some(reason);
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = watch.changed() => {}
            }
        }
    }

    /// Reads the files; whether something else is issued from now on.
    pub(in crate::identity) async fn reload(&self) -> Result<bool, LocalError> {
        let directory = self.directory.clone();
        let read = tokio::task::spawn_blocking(move || files::load(&directory));
        let pair = read.await.map_err(|error| LocalError::Broken(error.to_string()))??;
        let current = self.current.load();
        if pair == current.pair {
            return Ok(false);
        }
        let new = Current::new(pair, self.clock.now())?;
        let changed = !new.authority.issues_the_same(&current.authority);
        self.current.store(Arc::new(new));
        Ok(changed)
    }
}
