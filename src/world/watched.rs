//! Watchers of a workload's decisions.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::changes::{Between, Whose};
use super::judged::{Classed, Follow, Judged, JudgementChanges};
use super::{World, WorldStore};
use crate::base::Str;

/// The watchers by workload. Locked when a workload joins and when a world is published, never for a connection.
#[derive(Default)]
pub(super) struct Watched(Mutex<Watches>);

#[derive(Default)]
struct Watches {
    /// By uid.
    workloads: HashMap<Str, OfWorkload>,
    /// Notified of every world.
    all: Vec<Weak<dyn Follow>>,
}

/// The notifications of one workload.
struct OfWorkload {
    /// The generation since which its own namespace's statements about it are the same, or a later one.
    own: watch::Sender<u64>,
    /// Notified of any change that may affect it, from any namespace.
    classes: Vec<Weak<dyn Follow>>,
}

impl Watched {
    /// Notifies of changes in the workload's own namespace, and of the mesh's policies.
    pub(super) fn subscribe(&self, uid: &Str, world: impl FnOnce() -> u64) -> JudgementChanges {
        let mut watches = self.0.lock();
        // Read under the lock, so that no world is published unseen in between.
        let since = world();
        watches.workload(uid, since).own.subscribe()
    }

    /// Classes of a workload's connections; without one, of connections that any change may affect.
    pub(super) fn classes<K, V>(
        &self,
        store: &Arc<WorldStore>,
        uid: Option<&Str>,
    ) -> Arc<Judged<K, V>>
    where
        K: Classed,
        V: PartialEq + Send + 'static,
    {
        let judged = Judged::new(store);
        let follows: Arc<dyn Follow> = judged.clone();
        let mut watches = self.0.lock();
        let list = match uid {
            Some(uid) => &mut watches.workload(uid, store.load().generation).classes,
            None => &mut watches.all,
        };
        list.push(Arc::downgrade(&follows));
        judged
    }

    /// Indexes the policies of the workloads that somebody watches, which are those of this node, before anybody asks. Those of
    /// services and waypoints are already.
    pub(super) fn prepare(&self, world: &World) {
        for uid in self.0.lock().workloads.keys() {
            world.workload_policies(uid).into_iter().for_each(|policies| policies.prepare());
        }
    }

    /// Wakes connections of workloads for which decisions differ between `before` and `after`, or that are gone.
    pub(super) fn tell(&self, before: &World, after: &World) {
        let mut watches = self.0.lock();
        watches.forget_who_left();
        tell(&watches.all, after);
        if watches.workloads.is_empty() {
            return;
        }
        let is_watched = |uid: &str| watches.workloads.contains_key(uid);
        let between = Between::new(before, after, &is_watched);
        for (uid, watch) in &watches.workloads {
            if !between.is_judged_alike(uid, Whose::Own) {
                watch.own.send_if_modified(|known| {
                    std::mem::replace(known, after.generation) != after.generation
                });
            }
            if !watch.classes.is_empty() && !between.is_judged_alike(uid, Whose::Anybodys) {
                tell(&watch.classes, after);
            }
        }
    }
}

fn tell(all: &[Weak<dyn Follow>], world: &World) {
    all.iter().filter_map(Weak::upgrade).for_each(|follows| follows.follow(world));
}

impl Watches {
    fn workload(&mut self, uid: &Str, since: u64) -> &mut OfWorkload {
        let make = || OfWorkload { own: watch::Sender::new(since), classes: Vec::new() };
        self.workloads.entry(uid.clone()).or_insert_with(make)
    }

    fn forget_who_left(&mut self) {
        let is_there = |follows: &Weak<dyn Follow>| follows.strong_count() > 0;
        self.all.retain(is_there);
        self.workloads.retain(|_, watch| {
            watch.classes.retain(is_there);
            !watch.classes.is_empty() || !watch.own.is_closed()
        });
    }
}
