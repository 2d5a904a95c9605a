//! Plans what to start and what to stop. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::base::Str;
use crate::model::{CaptureWishes, Workload};
use crate::sock::Place;
use crate::workloads::Refusal;
use crate::world::World;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Leave(Str),
    Join(Arc<Workload>, Site),
    /// It stays, and the captured parts of it change.
    Adjust(Arc<Workload>),
    /// It is outside of the mesh: remove rules that an earlier agent may have left.
    Clean(Arc<Workload>, Site),
    /// The owner of the namespace is unknown: nothing is served there, and nothing gets in or out.
    Close(Str, Site),
}

/// The place of a workload of this node. Two that differ only in addresses are the same place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Site {
    /// A path, or a name below `/run/netns`.
    pub(super) network_namespace: Str,
    /// The pod's UID; `None` if the manifest has none.
    pub(super) pod: Option<Str>,
    /// The namespace that is there, as far as it could be inspected.
    pub(super) place: Option<Place>,
    /// From the API; before the API knows them, from the container runtime.
    pub(super) addresses: Vec<IpAddr>,
}

/// The sites of this node's workloads, by uid; host-network pods have none.
pub(super) type Sites = BTreeMap<Str, Site>;

/// Sites that another workload claims, and why that claim does not count.
pub(super) type Refused = BTreeMap<Str, (Refusal, Site)>;

/// The previous steps.
#[derive(Default)]
pub(super) struct Done {
    /// Workloads outside of the mesh whose namespaces are free of rules.
    pub(super) cleaned: BTreeSet<Str>,
    /// Workloads whose site is refused and closed.
    pub(super) closed: BTreeSet<Str>,
}

/// The properties of a captured workload that decide whether it must be recaptured.
pub(super) trait Known {
    fn site(&self) -> &Site;
    /// The input of its rules.
    fn wishes(&self) -> CaptureWishes;
}

impl Site {
    pub(super) fn is_same(&self, other: &Site) -> bool {
        self.network_namespace == other.network_namespace && self.pod == other.pod
    }
}

/// Enrolled, on this node, and in its own namespace, which the agent can enter.
pub(super) fn wanted<'a>(workload: &Workload, sites: &'a Sites) -> Option<&'a Site> {
    let site = sites.get(&workload.uid)?;
    (workload.enrolled && !site.addresses.is_empty()).then_some(site)
}

/// Leaving comes first: a workload that was recreated in another namespace leaves the old one before it joins. `recreated`:
/// captured workloads whose namespace is another one now, under the same name.
pub(super) fn plan<K: Known>(
    world: &World,
    (sites, refused): (&Sites, &Refused),
    captured: &BTreeMap<Str, Arc<K>>,
    done: &Done,
    recreated: &BTreeSet<Str>,
) -> Vec<Step> {
    let mut steps = close(world, refused, captured, done);
    for (uid, known) in captured.iter().filter(|(uid, _)| !refused.contains_key(*uid)) {
        let wanted = world.workload(uid).and_then(|workload| wanted(workload, sites));
        let stays =
            wanted.is_some_and(|site| site.is_same(known.site()) && !recreated.contains(uid));
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
        } else if !workload.unsure && !captured.contains_key(uid) && !done.cleaned.contains(uid) {
            steps.push(Step::Clean(workload.clone(), site.clone()));
        }
    }
    steps
}

/// Closes the rejected sites of captured workloads, which keep their rules, and of workloads of the mesh that are not captured,
/// which get rules. The host's own namespaces are not changed.
fn close<K>(
    world: &World,
    refused: &Refused,
    captured: &BTreeMap<Str, Arc<K>>,
    done: &Done,
) -> Vec<Step> {
    let is_due = |uid: &Str| {
        let enrolled = world.workload(uid).is_some_and(|workload| workload.enrolled);
        captured.contains_key(uid) || (enrolled && !done.closed.contains(uid))
    };
    let others = refused.iter().filter(|(_, (why, _))| *why != Refusal::Host);
    let due = others.filter(|(uid, _)| is_due(uid));
    due.map(|(uid, (_, site))| Step::Close(uid.clone(), site.clone())).collect()
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
            place: None,
            addresses: vec!["10.0.0.1".parse().unwrap()],
        }
    }

    fn sites(names: &[&str]) -> Sites {
        names.iter().map(|name| (Str::from(*name), site(name))).collect()
    }

    fn alone() -> Refused {
        Refused::new()
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
        let steps =
            plan(&world, (&here, &alone()), &captured(&[]), &Done::default(), &BTreeSet::new());
        assert_eq!(steps, [join(&a), Step::Clean(b.clone(), site("b"))]);
        let done = Done { cleaned: BTreeSet::from([b.uid.clone()]), ..Done::default() };
        let here = (&here, &alone());
        let steps = plan(&world, here, &captured(&[("a", "a")]), &done, &BTreeSet::new());
        assert_eq!(steps, []);
    }

    #[test]
    fn what_may_belong_to_the_mesh_is_not_opened() {
        let a = Arc::new(Workload { unsure: true, ..(*workload("a", false)).clone() });
        let (world, here) = (world_of(vec![a]), sites(&["a"]));
        let none = captured(&[]);
        let steps = plan(&world, (&here, &alone()), &none, &Done::default(), &BTreeSet::new());
        assert_eq!(steps, []);
    }

    #[test]
    fn adjusts_workloads_that_stay_and_rejoins_those_that_moved() {
        let other = CaptureWishes { dns: Some(false), bypass_inbound: false };
        let changed =
            |name| Arc::new(Workload { capture: other, ..(*workload(name, true)).clone() });
        let (a, b) = (changed("a"), changed("b"));
        let world = world_of(vec![a.clone(), b.clone(), workload("c", true)]);
        let here = captured(&[("a", "a"), ("b", "elsewhere"), ("c", "c")]);
        let steps = plan(
            &world,
            (&sites(&["a", "b", "c"]), &alone()),
            &here,
            &Done::default(),
            &BTreeSet::new(),
        );
        assert_eq!(steps, [leave("b"), Step::Adjust(a), join(&b)]);
    }

    #[test]
    fn leaves_what_left_and_moves_what_moved() {
        let (a, b) = (workload("a", true), workload("b", false));
        let world = world_of(vec![a.clone(), b]);
        let here = captured(&[("a", "elsewhere"), ("b", "b"), ("gone", "gone")]);
        let sites = sites(&["a", "b"]);
        let steps = plan(&world, (&sites, &alone()), &here, &Done::default(), &BTreeSet::new());
        assert_eq!(steps, [leave("a"), leave("b"), leave("gone"), join(&a)]);
    }

    #[test]
    fn a_workload_recreated_under_its_name_leaves_and_joins() {
        let a = workload("a", true);
        let (world, here) = (world_of(vec![a.clone()]), captured(&[("a", "a")]));
        let steps = |recreated: &BTreeSet<Str>| {
            plan(&world, (&sites(&["a"]), &alone()), &here, &Done::default(), recreated)
        };
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
            plan(&world, (&now, &alone()), &here, &Done::default(), &BTreeSet::new())
        };
        assert_eq!(steps("first"), []);
        assert_eq!(steps("second"), [leave("a"), Step::Join(a.clone(), of("second"))]);
    }

    #[test]
    fn without_an_address_nothing_can_be_captured() {
        let world = world_of(vec![workload("a", true)]);
        let nowhere = Sites::from([(Str::from("a"), Site { addresses: Vec::new(), ..site("a") })]);
        let done = Done { cleaned: BTreeSet::from([Str::from("a")]), ..Done::default() };
        let planned = |sites: &Sites, captured: &BTreeMap<Str, Arc<Site>>| {
            plan(&world, (sites, &alone()), captured, &done, &BTreeSet::new())
        };
        assert_eq!(planned(&nowhere, &captured(&[])), []);
        // A captured workload keeps its site's addresses, so this one lost its sandbox.
        assert_eq!(planned(&Sites::new(), &captured(&[("a", "a")])), [leave("a")]);
    }

    #[test]
    fn what_two_claim_is_closed_once_and_never_left() {
        let world = world_of(vec![workload("a", true), workload("b", false), workload("c", true)]);
        let refusal = |uid: &str, why: Refusal| (Str::from(uid), (why, site("shared")));
        let shared = |with: &str| Refusal::Shared(with.into());
        let refused = Refused::from([refusal("a", shared("b")), refusal("b", shared("a"))]);
        let steps = |captured: &BTreeMap<Str, Arc<Site>>, done: &Done| {
            plan(&world, (&Sites::new(), &refused), captured, done, &BTreeSet::new())
        };
        let close = |uid: &str| Step::Close(uid.into(), site("shared"));
        assert_eq!(steps(&captured(&[]), &Done::default()), [close("a")]);
        let done = Done { closed: BTreeSet::from(["a".into()]), ..Done::default() };
        assert_eq!(steps(&captured(&[]), &done), []);
        // It was the only one until now.
        assert_eq!(steps(&captured(&[("b", "shared")]), &done), [close("b")]);
        let host = Refused::from([refusal("c", Refusal::Host)]);
        let here = (&Sites::new(), &host);
        let nothing = plan(&world, here, &captured(&[]), &Done::default(), &BTreeSet::new());
        assert_eq!(nothing, [], "the host's own");
    }
}
