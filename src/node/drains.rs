//! Captures that have ended and still have connections. Their rules are removed when the last connection has drained.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio_util::task::TaskTracker;

/// The draining captures.
#[derive(Default)]
pub(super) struct Drains {
    tasks: TaskTracker,
    /// The number of draining captures, by the inode of their namespace.
    open: Mutex<BTreeMap<u64, usize>>,
    /// Shared by tasks that remove rules, exclusive for tasks that apply them: a workload that left and came back at once must
    /// not lose the rules of its new capture.
    removal: RwLock<()>,
}

impl Drains {
    /// Begins a drain of this namespace in `task`, which calls [`Drains::end`].
    pub(super) fn begin(&self, inode: u64, task: impl Future<Output = ()> + Send + 'static) {
        *self.open.lock().entry(inode).or_default() += 1;
        self.tasks.spawn(task);
    }

    /// A capture of a namespace has drained. Returns whether it was the last: a pod may leave, come back and leave again within
    /// the drain time, and then the kernel still translates for connections of the later capture.
    pub(super) fn end(&self, inode: u64) -> bool {
        let mut open = self.open.lock();
        match open.get_mut(&inode) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => {
                open.remove(&inode);
                true
            }
        }
    }

    /// Runs `task` to its end; the rules stay.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits for all drains; no further one begins.
    pub(super) async fn wait(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Blocks the application of rules while rules are removed.
    pub(super) async fn to_remove(&self) -> RwLockReadGuard<'_, ()> {
        self.removal.read().await
    }

    /// Blocks the removal of rules while rules are applied.
    pub(super) async fn to_apply(&self) -> RwLockWriteGuard<'_, ()> {
        self.removal.write().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_capture_of_a_namespace_frees_it() {
        let drains = Drains::default();
        for inode in [1, 1, 2] {
            drains.begin(inode, async {});
        }
        assert_eq!([1, 2, 1].map(|inode| drains.end(inode)), [false, true, true]);
        drains.wait().await;
    }
}
