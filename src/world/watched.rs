//! Who wants to know when the judgement of a workload may have changed.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::World;
use crate::base::Str;

/// Tells of one workload: the generation since which what its connections are judged by is the same.
pub type JudgementChanges = watch::Receiver<u64>;

/// The workloads that somebody watches, by uid. Locked when a workload joins and when a world is published, never for a
/// connection.
#[derive(Default)]
pub(super) struct Watched(Mutex<HashMap<Str, watch::Sender<u64>>>);

impl Watched {
    pub(super) fn subscribe(&self, uid: &Str, world: impl FnOnce() -> u64) -> JudgementChanges {
        let mut watched = self.0.lock();
        // Asked under the lock, so that no world is published in between unseen.
        let since = world();
        watched.entry(uid.clone()).or_insert_with(|| watch::Sender::new(since)).subscribe()
    }

    /// Wakes those whose workload is judged otherwise since `world`, or is gone.
    pub(super) fn tell(&self, world: &World) {
        self.0.lock().retain(|uid, sender| {
            let since = world.judged_since(uid).unwrap_or(world.generation);
            sender.send_if_modified(|known| std::mem::replace(known, since) != since);
            !sender.is_closed()
        });
    }
}
