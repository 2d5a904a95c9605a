//! Waiting for something to become true: soon after it does, and never for ever.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// How long the lab waits before it gives up: a slow machine with two cores needs a second or two.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// How long to pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `probe` returns something; an error of `probe` ends the wait.
pub fn until<T>(what: &str, probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    within(PATIENCE, what, probe)
}

/// Like [`until`], for what takes longer by itself.
pub fn within<T>(
    patience: Duration,
    what: &str,
    probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    looking_every(PAUSE, patience, what, probe)
}

/// Like [`within`], for looks that cost more.
pub fn looking_every<T>(
    pause: Duration,
    patience: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if start.elapsed() > patience {
            bail!("waited {patience:?} for {what}, in vain");
        }
        std::thread::sleep(pause);
    }
}
