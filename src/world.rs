//! The immutable snapshot that every decision reads, and its indexes.
//!
//! One [`World`] is one consistent state: a connection or request loads it once (`arc-swap`, no lock) and decides over
//! it. Writers build a new one from a [`Mesh`] and publish it as a whole; it shares with its predecessor what did not
//! change. A world never changes, holds no sockets and makes no decisions; `policy`, `route` and `balance` do that.

mod applied;
mod attached;
mod changes;
mod diff;
mod endpoints;
#[cfg(test)]
pub(crate) mod fixture;
mod index;
mod judged;
mod labels;
mod observed;
mod owners;
mod shards;
#[cfg(test)]
mod tests;
mod touched;
mod watched;

pub use crate::traffic::{InFlight, Load};
pub use attached::Attached;
pub use judged::{Classed, Judged, JudgementChanges};
pub use labels::{labels_of, service_labels};
pub use owners::Owner;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::base::{ObjectKey, Str, TrustDomains};
use crate::jwt::KeyRing;
use crate::model::Mesh;
use index::Indexes;
use watched::Watched;

/// Names of the mesh that decisions need besides its objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshNames {
    pub trust_domains: TrustDomains,
    /// Where mesh-wide policies live; Istio's `istio-system`.
    pub root_namespace: Str,
}

/// One state of the mesh.
pub struct World {
    /// Grows with every published world.
    pub generation: u64,
    pub mesh: Mesh,
    pub names: MeshNames,
    /// Fetched keys, which are the same for all worlds.
    pub keys: Arc<KeyRing>,
    indexes: Indexes,
}

/// Holds the current world.
pub struct WorldStore {
    names: MeshNames,
    current: ArcSwap<World>,
    changes: watch::Sender<u64>,
    watched: Watched,
    told: AtomicU64,
}

impl WorldStore {
    /// Starts with an empty world of generation 0: nothing is known yet.
    pub fn new(names: MeshNames) -> Arc<Self> {
        let empty = World::build(Mesh::default(), names.clone(), None);
        let (changes, _) = watch::channel(0);
        Arc::new(Self {
            names,
            current: ArcSwap::from_pointee(empty),
            changes,
            watched: Watched::default(),
            told: AtomicU64::new(0),
        })
    }

    /// The current world, cheaply; do not hold it across an await.
    pub fn load(&self) -> Guard<Arc<World>> {
        self.current.load()
    }

    /// The current world, to keep.
    pub fn snapshot(&self) -> Arc<World> {
        self.current.load_full()
    }

    /// Replaces the world. Only one writer may call this.
    pub fn publish(&self, mesh: Mesh) -> Arc<World> {
        let previous = self.snapshot();
        let world = Arc::new(World::build(mesh, self.names.clone(), Some(&previous)));
        self.watched.prepare(&world);
        self.current.store(world.clone());
        self.changes.send_replace(world.generation);
        self.watched.tell(&previous, &world);
        self.told.store(world.generation, Ordering::Release);
        world
    }

    /// The world that this mesh would make, with the keys that are known; it is not published, and shares no counters with the present one.
    pub fn suppose(&self, mesh: Mesh) -> World {
        let keys = self.snapshot().keys.clone();
        World { keys, ..World::build(mesh, self.names.clone(), None) }
    }

    /// The generation of the last world whose changes were announced to all watchers.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// Announces the generation of each published world.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Announces when open connections of one workload must be re-evaluated because of a change in its own namespace or
    /// in the mesh's policies, and of no other change.
    pub fn judgement_changes(&self, uid: &Str) -> JudgementChanges {
        self.watched.subscribe(uid, || self.load().generation)
    }

    /// Classes of open connections that share a decision: of one workload, woken by any change that may affect it;
    /// without a workload, by every change.
    pub fn judged<K, V>(self: &Arc<Self>, uid: Option<&Str>) -> Arc<Judged<K, V>>
    where
        K: Classed,
        V: PartialEq + Send + 'static,
    {
        self.watched.classes(self, uid)
    }
}

impl World {
    fn build(mesh: Mesh, names: MeshNames, previous: Option<&World>) -> Self {
        let before = previous.map(|world| (&world.mesh, &world.indexes));
        let indexes = Indexes::build(&mesh, &names, before);
        let generation = previous.map_or(0, |world| world.generation + 1);
        let keys = previous.map_or_else(KeyRing::new, |world| world.keys.clone());
        Self { generation, mesh, names, keys, indexes }
    }
}

/// `namespace` and `name` as a key, for look-ups by parts.
pub(crate) fn key(namespace: &Str, name: &Str) -> ObjectKey {
    ObjectKey { namespace: namespace.clone(), name: name.clone() }
}
