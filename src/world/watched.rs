//! Who wants to know when the judgement of a workload may have changed.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::World;
use super::changes::Between;
use crate::base::{ObjectKey, Str};

/// Tells of one workload: the generation since which what its connections are judged by is the same, or a later one.
pub type JudgementChanges = watch::Receiver<u64>;

/// A workload by its uid, and the service that the connections in question addressed, where that is another namespace's or
/// leads to the workload by a route.
type Subject = (Str, Option<ObjectKey>);

/// What somebody watches. Locked when a workload joins, when a world is published, and for a connection of which a service is
/// watched too; never for others.
#[derive(Default)]
pub(super) struct Watched(Mutex<HashMap<Subject, watch::Sender<u64>>>);

impl Watched {
    pub(super) fn subscribe(
        &self,
        subject: Subject,
        world: impl FnOnce() -> u64,
    ) -> JudgementChanges {
        let mut watched = self.0.lock();
        // Asked under the lock, so that no world is published in between unseen.
        let since = world();
        watched.entry(subject).or_insert_with(|| watch::Sender::new(since)).subscribe()
    }

    /// Wakes those whose workload is judged otherwise in `after` than in `before`, or is gone.
    pub(super) fn tell(&self, before: &World, after: &World) {
        let mut watched = self.0.lock();
        watched.retain(|_, sender| !sender.is_closed());
        if watched.is_empty() {
            return;
        }
        let between = Between::new(before, after);
        for ((uid, service), sender) in watched.iter() {
            if !between.is_judged_alike(uid, service.as_ref()) {
                sender.send_if_modified(|known| {
                    std::mem::replace(known, after.generation) != after.generation
                });
            }
        }
    }
}
