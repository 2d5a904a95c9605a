//! Destinations as telemetry's labels, kept by workload.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::base::Str;
use crate::model::Workload;
use crate::telemetry::Peer;
use crate::world::{World, labels_of};

/// Destinations as labels, by workload: a request finds them without making texts.
pub(in crate::l7) struct Labels {
    cluster: Str,
    known: ArcSwap<HashMap<Str, Known>>,
    outside: Arc<Peer>,
}

/// Labels, and the workload they were made of: another value of it needs other labels.
#[derive(Clone)]
struct Known {
    workload: Arc<Workload>,
    peer: Arc<Peer>,
}

impl Labels {
    pub(in crate::l7) fn new(cluster: Str) -> Self {
        Self { cluster, known: ArcSwap::default(), outside: Arc::default() }
    }

    /// The labels of an endpoint.
    pub(in crate::l7) fn destination(
        &self,
        world: &World,
        workload: Option<&Arc<Workload>>,
    ) -> Arc<Peer> {
        let Some(workload) = workload else { return self.outside.clone() };
        if let Some(known) = self.known.load().get(&workload.uid)
            && Arc::ptr_eq(&known.workload, workload)
        {
            return known.peer.clone();
        }
        let proven = workload.is_captured().then_some(&workload.identity);
        let peer = Arc::new(labels_of(Some(workload), proven, &self.cluster));
        let known = Known { workload: workload.clone(), peer: peer.clone() };
        self.known.rcu(|map| {
            // Forgetting what is gone here keeps the map as small as the mesh, without a task of its own.
            let mut map: HashMap<Str, Known> = (map.iter())
                .filter(|(uid, _)| world.workload(uid).is_some())
                .map(|(uid, known)| (uid.clone(), known.clone()))
                .collect();
            map.insert(workload.uid.clone(), known.clone());
            map
        });
        peer
    }
}
