//! What to start and what to stop: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::Str;
use crate::model::{CaptureWishes, Workload};
use crate::world::World;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Leave(Str),
    Join(Arc<Workload>),
    /// Stays, and something else of it is captured from now on.
    Adjust(Arc<Workload>),
    /// Outside of the mesh: rules that an earlier agent may have left must go.
    Clean(Arc<Workload>),
}

/// What of a captured workload decides whether it must be captured anew.
pub(super) trait Known {
    fn network_namespace(&self) -> Option<&Str>;
    /// What its rules were made for.
    fn wishes(&self) -> CaptureWishes;
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
            match captured.get(&workload.uid).filter(|_| !moved) {
                None => steps.push(Step::Join(workload.clone())),
                Some(known) if known.wishes() != workload.capture => {
                    steps.push(Step::Adjust(workload.clone()));
                }
                Some(_) => {}
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

        fn wishes(&self) -> CaptureWishes {
            CaptureWishes::default()
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
            capture: Default::default(),
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
            trust_domains: crate::base::TrustDomains::new("cluster.local".into(), &[]),
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
    fn adjusts_what_stays_and_joins_anew_what_moved() {
        let other = CaptureWishes { dns: Some(false), bypass_inbound: false };
        let changed = |name| {
            let workload = workload(name, "n1", true);
            Arc::new(Workload { capture: other, ..(*workload).clone() })
        };
        let (a, b) = (changed("a"), changed("b"));
        let world = world_of(vec![a.clone(), b.clone(), workload("c", "n1", true)]);
        let here = captured(&[("a", "a"), ("b", "elsewhere"), ("c", "c")]);
        let steps = plan(&world, &"n1".into(), &here, &BTreeSet::new(), &BTreeSet::new());
        assert_eq!(steps, [Step::Leave("b".into()), Step::Adjust(a), Step::Join(b)]);
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
