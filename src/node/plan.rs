//! What to start and what to stop: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::base::Str;
use crate::model::{CaptureWishes, Workload};
use crate::world::World;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Leave(Str),
    Join(Arc<Workload>, Site),
    /// Stays, and something else of it is captured from now on.
    Adjust(Arc<Workload>),
    /// Outside of the mesh: rules that an earlier agent may have left must go.
    Clean(Arc<Workload>, Site),
}

/// Where a workload of this node is. While two of these are equal in all but addresses, it is the same one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Site {
    /// A path, or a name below `/run/netns`.
    pub(super) network_namespace: Str,
    /// The pod's own UID; `None` where a manifest does not tell.
    pub(super) pod: Option<Str>,
    /// As the API tells them; before it does, as the container runtime did.
    pub(super) addresses: Vec<IpAddr>,
}

/// The sites of this node's workloads, by uid; host-network pods have none.
pub(super) type Sites = BTreeMap<Str, Site>;

/// What of a captured workload decides whether it must be captured anew.
pub(super) trait Known {
    fn site(&self) -> &Site;
    /// What its rules were made for.
    fn wishes(&self) -> CaptureWishes;
}

impl Site {
    pub(super) fn is_same(&self, other: &Site) -> bool {
        self.network_namespace == other.network_namespace && self.pod == other.pod
    }
}

/// Enrolled, on this node, and in a namespace of its own that we can enter.
pub(super) fn wanted<'a>(workload: &Workload, sites: &'a Sites) -> Option<&'a Site> {
    let site = sites.get(&workload.uid)?;
    (workload.enrolled && !site.addresses.is_empty()).then_some(site)
}

/// Leaving comes first: a workload that was recreated in another namespace leaves the old one before it joins. `anew`:
/// captured workloads whose namespace is another one now, under the same name.
pub(super) fn plan<K: Known>(
    world: &World,
    sites: &Sites,
    captured: &BTreeMap<Str, Arc<K>>,
    cleaned: &BTreeSet<Str>,
    anew: &BTreeSet<Str>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (uid, known) in captured {
        let wanted = world.workload(uid).and_then(|workload| wanted(workload, sites));
        let stays = wanted.is_some_and(|site| site.is_same(known.site()) && !anew.contains(uid));
        if !stays {
            steps.push(Step::Leave(uid.clone()));
        }
    }
    for (uid, site) in sites {
        let Some(workload) = world.workload(uid) else { continue };
        if wanted(workload, sites).is_some() {
            let moved = steps.contains(&Step::Leave(uid.clone()));
            match captured.get(uid).filter(|_| !moved) {
                None => steps.push(Step::Join(workload.clone(), site.clone())),
                Some(known) if known.wishes() != workload.capture => {
                    steps.push(Step::Adjust(workload.clone()));
                }
                Some(_) => {}
            }
        } else if !captured.contains_key(uid) && !cleaned.contains(uid) {
            steps.push(Step::Clean(workload.clone(), site.clone()));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mesh;
    use crate::world::fixture;
    use crate::world::{MeshNames, WorldStore};

    impl Known for Site {
        fn site(&self) -> &Site {
            self
        }

        fn wishes(&self) -> CaptureWishes {
            CaptureWishes::default()
        }
    }

    fn workload(name: &str, enrolled: bool) -> Arc<Workload> {
        Arc::new(Workload { uid: name.into(), enrolled, ..fixture::workload(name, "10.0.0.1") })
    }

    fn world_of(workloads: Vec<Arc<Workload>>) -> Arc<World> {
        let names = MeshNames {
            trust_domains: crate::base::TrustDomains::new("cluster.local".into(), &[]),
            root_namespace: "istio-system".into(),
        };
        WorldStore::new(names).publish(Mesh { workloads, ..Mesh::default() })
    }

    fn site(namespace: &str) -> Site {
        Site {
            network_namespace: namespace.into(),
            pod: None,
            addresses: vec!["10.0.0.1".parse().unwrap()],
        }
    }

    fn sites(names: &[&str]) -> Sites {
        names.iter().map(|name| (Str::from(*name), site(name))).collect()
    }

    fn captured(entries: &[(&str, &str)]) -> BTreeMap<Str, Arc<Site>> {
        entries.iter().map(|(uid, ns)| (Str::from(*uid), Arc::new(site(ns)))).collect()
    }

    fn join(workload: &Arc<Workload>) -> Step {
        Step::Join(workload.clone(), site(&workload.uid))
    }

    fn leave(uid: &str) -> Step {
        Step::Leave(uid.into())
    }

    #[test]
    fn joins_what_is_enrolled_here_and_cleans_the_rest() {
        let (a, b, c) = (workload("a", true), workload("b", false), workload("c", true));
        let world = world_of(vec![a.clone(), b.clone(), c]);
        let here = sites(&["a", "b"]);
        let steps = plan(&world, &here, &captured(&[]), &BTreeSet::new(), &BTreeSet::new());
        assert_eq!(steps, [join(&a), Step::Clean(b.clone(), site("b"))]);
        let cleaned = BTreeSet::from([b.uid.clone()]);
        let steps = plan(&world, &here, &captured(&[("a", "a")]), &cleaned, &BTreeSet::new());
        assert_eq!(steps, []);
    }

    #[test]
    fn adjusts_what_stays_and_joins_anew_what_moved() {
        let other = CaptureWishes { dns: Some(false), bypass_inbound: false };
        let changed =
            |name| Arc::new(Workload { capture: other, ..(*workload(name, true)).clone() });
        let (a, b) = (changed("a"), changed("b"));
        let world = world_of(vec![a.clone(), b.clone(), workload("c", true)]);
        let here = captured(&[("a", "a"), ("b", "elsewhere"), ("c", "c")]);
        let steps =
            plan(&world, &sites(&["a", "b", "c"]), &here, &BTreeSet::new(), &BTreeSet::new());
        assert_eq!(steps, [leave("b"), Step::Adjust(a), join(&b)]);
    }

    #[test]
    fn leaves_what_left_and_moves_what_moved() {
        let (a, b) = (workload("a", true), workload("b", false));
        let world = world_of(vec![a.clone(), b]);
        let here = captured(&[("a", "elsewhere"), ("b", "b"), ("gone", "gone")]);
        let steps = plan(&world, &sites(&["a", "b"]), &here, &BTreeSet::new(), &BTreeSet::new());
        assert_eq!(steps, [leave("a"), leave("b"), leave("gone"), join(&a)]);
    }

    #[test]
    fn what_was_made_anew_under_its_name_leaves_and_joins() {
        let a = workload("a", true);
        let (world, here) = (world_of(vec![a.clone()]), captured(&[("a", "a")]));
        let steps =
            |anew: &BTreeSet<Str>| plan(&world, &sites(&["a"]), &here, &BTreeSet::new(), anew);
        assert_eq!(steps(&BTreeSet::new()), []);
        assert_eq!(steps(&BTreeSet::from(["a".into()])), [leave("a"), join(&a)]);
    }

    #[test]
    fn another_generation_of_a_pod_is_another_workload() {
        let a = workload("a", true);
        let world = world_of(vec![a.clone()]);
        let of = |pod: &str| Site { pod: Some(pod.into()), ..site("a") };
        let here = BTreeMap::from([(Str::from("a"), Arc::new(of("first")))]);
        let steps = |pod: &str| {
            let now = Sites::from([(Str::from("a"), of(pod))]);
            plan(&world, &now, &here, &BTreeSet::new(), &BTreeSet::new())
        };
        assert_eq!(steps("first"), []);
        assert_eq!(steps("second"), [leave("a"), Step::Join(a.clone(), of("second"))]);
    }

    #[test]
    fn without_an_address_nothing_can_be_captured() {
        let world = world_of(vec![workload("a", true)]);
        let nowhere = Sites::from([(Str::from("a"), Site { addresses: Vec::new(), ..site("a") })]);
        let cleaned = BTreeSet::from([Str::from("a")]);
        assert_eq!(plan(&world, &nowhere, &captured(&[]), &cleaned, &BTreeSet::new()), []);
        // What is captured keeps its site's addresses, so this is one that lost its sandbox.
        let steps =
            plan(&world, &Sites::new(), &captured(&[("a", "a")]), &cleaned, &BTreeSet::new());
        assert_eq!(steps, [leave("a")]);
    }
}
