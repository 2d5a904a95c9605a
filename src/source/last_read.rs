//! When a source was last heard without an error: an age that grows means that the mesh's state may be stale.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Shared by the source and whoever shows it.
#[derive(Clone, Debug, Default)]
pub struct LastRead(Arc<AtomicU64>);

impl LastRead {
    pub(super) fn now(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Since 1970, by the wall clock; zero before the first time.
    pub fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}
