//! What to start and what to stop: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::Str;
use crate::model::Workload;
use crate::world::World;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Leave(Str),
    Join(Arc<Workload>),
    /// Outside of the mesh: rules that an earlier agent may have left must go.
    Clean(Arc<Workload>),
}

/// What of a captured workload decides whether it must be captured anew.
pub(super) trait Known {
    fn network_namespace(&self) -> Option<&Str>;
}

/// Enrolled, on this node, and in a namespace of its own that we can enter.
pub(super) fn wanted(workload: &Workload, node: &Str) -> bool {
    workload.enrolled && reachable(workload, node) && !workload.addresses.is_empty()
}

fn reachable(workload: &Workload, node: &Str) -> bool {
    workload.node == *node && !workload.host_network && workload.network_namespace.is_some()
}

/// Leaving comes first: a workload that was recreated in another namespace leaves the old one before it joins. `anew`:
/// captured workloads whose namespace is another one now, under the same name.
pub(super) fn plan<K: Known>(
    world: &World,
    node: &Str,
    captured: &BTreeMap<Str, Arc<K>>,
    cleaned: &BTreeSet<Str>,
    anew: &BTreeSet<Str>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (uid, known) in captured {
        let stays = world.workload(uid).is_some_and(|workload| {
            wanted(workload, node)
                && workload.network_namespace.as_ref() == known.network_namespace()
                && !anew.contains(uid)
        });
        if !stays {
            steps.push(Step::Leave(uid.clone()));
        }
    }
    for workload in &world.mesh.workloads {
        if wanted(workload, node) {
            let moved = steps.contains(&Step::Leave(workload.uid.clone()));
            if moved || !captured.contains_key(&workload.uid) {
                steps.push(Step::Join(workload.clone()));
            }
        } else if reachable(workload, node)
            && !captured.contains_key(&workload.uid)
            && !cleaned.contains(&workload.uid)
        {
            steps.push(Step::Clean(workload.clone()));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Identity, ObjectKey};
    use crate::model::{Canonical, Locality, Mesh};
    use crate::world::{MeshNames, WorldStore};

    impl Known for Str {
        fn network_namespace(&self) -> Option<&Str> {
            Some(self)
        }
    }

    fn workload(name: &str, node: &str, enrolled: bool) -> Arc<Workload> {
        Arc::new(Workload {
            uid: name.into(),
            key: ObjectKey::new("default", name),
            identity: Identity::new("cluster.local", "default", name),
            node: node.into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            network_namespace: Some(name.into()),
            enrolled,
            host_network: false,
            ready: true,
            canonical: Canonical::default(),
            locality: Locality::default(),
            waypoint: Default::default(),
            peer_authentication: Default::default(),
            policies: Vec::new(),
        })
    }

    fn world_of(workloads: Vec<Arc<Workload>>) -> Arc<World> {
        let names = MeshNames {
            trust_domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
        };
        WorldStore::new(names).publish(Mesh { workloads, ..Mesh::default() })
    }

    fn captured(entries: &[(&str, &str)]) -> BTreeMap<Str, Arc<Str>> {
        entries.iter().map(|(uid, ns)| (Str::from(*uid), Arc::new(Str::from(*ns)))).collect()
    }

    #[test]
    fn joins_what_is_enrolled_here_and_cleans_the_rest() {
        let (a, b, c) =
            (workload("a", "n1", true), workload("b", "n1", false), workload("c", "n2", true));
        let world = world_of(vec![a.clone(), b.clone(), c]);
        let steps = plan(&world, &"n1".into(), &captured(&[]), &BTreeSet::new(), &BTreeSet::new());
        assert_eq!(steps, [Step::Join(a), Step::Clean(b.clone())]);
        let cleaned = BTreeSet::from([b.uid.clone()]);
        let steps =
            plan(&world, &"n1".into(), &captured(&[("a", "a")]), &cleaned, &BTreeSet::new());
        assert_eq!(steps, []);
    }

    #[test]
    fn leaves_what_left_and_moves_what_moved() {
        let (a, b) = (workload("a", "n1", true), workload("b", "n1", false));
        let world = world_of(vec![a.clone(), b]);
        let here = captured(&[("a", "elsewhere"), ("b", "b"), ("gone", "gone")]);
        let steps = plan(&world, &"n1".into(), &here, &BTreeSet::new(), &BTreeSet::new());
        let leave = |uid: &str| Step::Leave(uid.into());
        assert_eq!(steps, [leave("a"), leave("b"), leave("gone"), Step::Join(a)]);
    }

    #[test]
    fn what_was_made_anew_under_its_name_leaves_and_joins() {
        let a = workload("a", "n1", true);
        let (world, here) = (world_of(vec![a.clone()]), captured(&[("a", "a")]));
        let steps =
            |anew: &BTreeSet<Str>| plan(&world, &"n1".into(), &here, &BTreeSet::new(), anew);
        assert_eq!(steps(&BTreeSet::new()), []);
        assert_eq!(steps(&BTreeSet::from(["a".into()])), [Step::Leave("a".into()), Step::Join(a)]);
    }
}
