//! Which set of policies applies to which workload, service and waypoint. Workloads that are alike share a set: a thousand pods
//! of one Deployment need one index, not a thousand.

use std::collections::HashMap;
use std::sync::Arc;

use super::Attached;
use crate::base::{ObjectKey, Str};
use crate::model::{
    Action, AuthorizationPolicy, Mesh, PolicyTarget, Scope, Service, Waypoint, Workload,
};
use crate::policy::PolicySet;

/// All policies of a mesh.
type Policies<'a> = Attached<&'a Arc<AuthorizationPolicy>>;

/// By what policies name, not by workload and service: these change often, policies rarely.
#[derive(Clone, Default)]
pub(super) struct Applied {
    /// By a workload's namespace and the policies that select it.
    workloads: HashMap<Str, HashMap<Box<[ObjectKey]>, Arc<PolicySet>>>,
    /// By uid, of workloads that list a policy that does not exist; each such set names its workload.
    broken: HashMap<Str, Arc<PolicySet>>,
    targets: OfTargets,
    waypoints: HashMap<ObjectKey, Arc<PolicySet>>,
    none: Arc<PolicySet>,
}

impl Applied {
    /// `workloads`: all of them.
    pub(super) fn new(mesh: &Mesh, root_namespace: &Str) -> Self {
        let policies = attached(&mesh.policies);
        let targets = of_targets(&policies, &HashMap::new());
        let mut applied = Self { targets, ..Self::default() };
        applied.follow_waypoints(&policies, &mesh.waypoints, root_namespace);
        applied.follow(&policies, [].into_iter(), mesh.workloads.iter());
        applied
    }

    /// With other policies; `None` if that requires a look at every workload, because some list a policy that does not
    /// exist.
    pub(super) fn renewed<'a>(
        &self,
        mesh: &Mesh,
        root_namespace: &Str,
        gone: &[&'a Arc<Workload>],
        come: &[&'a Arc<Workload>],
    ) -> Option<Self> {
        let policies = attached(&mesh.policies);
        let kinds = self.workloads.iter();
        let kinds = kinds.flat_map(|(namespace, of)| of.keys().map(move |it| (namespace, it)));
        if !self.broken.is_empty() || kinds.clone().any(|(_, listed)| !knows(&policies, listed)) {
            return None;
        }
        let mut next = Self { targets: of_targets(&policies, &self.targets), ..Self::default() };
        for (namespace, listed) in kinds {
            let before = self.workloads.get(namespace).and_then(|of| of.get(listed));
            let set = merged(policies.to_workload(namespace, listed), before);
            next.workloads.entry(namespace.clone()).or_default().insert(listed.clone(), set);
        }
        next.waypoints.clone_from(&self.waypoints);
        next.follow_waypoints(&policies, &mesh.waypoints, root_namespace);
        next.follow(&policies, gone.iter().copied(), come.iter().copied());
        Some(next)
    }

    /// The same policies with other workloads or waypoints; `None` if nothing has to change.
    pub(super) fn with<'a>(
        &self,
        policies: &[Arc<AuthorizationPolicy>],
        gone: &[&'a Arc<Workload>],
        come: &[&'a Arc<Workload>],
        waypoints: Option<(&[Arc<Waypoint>], &Str)>,
    ) -> Option<Self> {
        let known = come.iter().all(|workload| self.alike(workload).is_some());
        let broken = gone.iter().any(|workload| self.broken.contains_key(&workload.uid));
        if known && !broken && waypoints.is_none() {
            return None;
        }
        let policies = attached(policies);
        let mut next = self.clone();
        if let Some((waypoints, root_namespace)) = waypoints {
            next.follow_waypoints(&policies, waypoints, root_namespace);
        }
        next.follow(&policies, gone.iter().copied(), come.iter().copied());
        Some(next)
    }

    fn follow<'a>(
        &mut self,
        policies: &Policies<'_>,
        gone: impl Iterator<Item = &'a Arc<Workload>>,
        come: impl Iterator<Item = &'a Arc<Workload>>,
    ) {
        for workload in gone {
            self.broken.remove(&workload.uid);
        }
        for workload in come {
            if self.alike(workload).is_some() {
                continue;
            }
            let (namespace, listed) = (&workload.key.namespace, &workload.policies[..]);
            let there = policies.to_workload(namespace, listed).map(|policy| Arc::clone(policy));
            if knows(policies, listed) {
                let of_namespace = self.workloads.entry(namespace.clone()).or_default();
                of_namespace.insert(listed.into(), Arc::new(there.collect()));
            } else {
                let missing = listed.iter().filter(|policy| policies.selecting(policy).is_none());
                let missing = missing.map(|policy| missing_policy(policy, workload));
                let set = there.chain(missing).collect();
                self.broken.insert(workload.uid.clone(), Arc::new(set));
            }
        }
    }

    fn follow_waypoints(
        &mut self,
        policies: &Policies<'_>,
        waypoints: &[Arc<Waypoint>],
        root_namespace: &Str,
    ) {
        let set = |waypoint: &Waypoint| {
            let class = policies.to_class(waypoint, root_namespace);
            let before = self.waypoints.get(&waypoint.key);
            let set = merged(class.iter().chain(policies.to_gateway(&waypoint.key)), before);
            set.prepare();
            set
        };
        let sets = waypoints.iter().map(|it| (it.key.clone(), set(it)));
        self.waypoints = sets.collect();
    }

    fn alike(&self, workload: &Workload) -> Option<&Arc<PolicySet>> {
        self.workloads.get(&workload.key.namespace)?.get(workload.policies.as_slice())
    }

    pub(super) fn to_workload(&self, workload: &Workload) -> Option<&Arc<PolicySet>> {
        self.broken.get(&workload.uid).or_else(|| self.alike(workload))
    }

    pub(super) fn to_service(&self, service: &Service) -> &Arc<PolicySet> {
        let id = (service.key.namespace.clone(), service.as_target());
        self.targets.get(&id).unwrap_or(&self.none)
    }

    pub(super) fn to_waypoint(&self, waypoint: &ObjectKey) -> Option<&Arc<PolicySet>> {
        self.waypoints.get(waypoint)
    }
}

fn attached(policies: &[Arc<AuthorizationPolicy>]) -> Policies<'_> {
    let mut attached = Attached::default();
    policies.iter().for_each(|policy| attached.attach(&policy.key, &policy.scope, policy));
    attached
}

/// None of the names stands for a missing policy.
fn knows(policies: &Policies<'_>, names: &[ObjectKey]) -> bool {
    names.iter().all(|name| policies.selecting(name).is_some())
}

/// What is known of the same policies from `before` is not worked out again.
fn merged<'a>(
    policies: impl Iterator<Item = &'a &'a Arc<AuthorizationPolicy>>,
    before: Option<&Arc<PolicySet>>,
) -> Arc<PolicySet> {
    let mut set: PolicySet = policies.map(|policy| Arc::clone(policy)).collect();
    if let Some(before) = before {
        set.inherit(before);
    }
    Arc::new(set)
}

type OfTargets = HashMap<(Str, PolicyTarget), Arc<PolicySet>>;

fn of_targets(policies: &Policies<'_>, before: &OfTargets) -> OfTargets {
    let targets = policies.targets().map(|(namespace, target, found)| {
        let id = (namespace.clone(), target.clone());
        let set = merged(found.iter(), before.get(&id));
        set.prepare();
        (id, set)
    });
    targets.collect()
}

/// A policy that a workload lists and that does not exist could be a DENY: it counts as a denial until it is known
/// (ztunnel skips it, which lets traffic past).
fn missing_policy(name: &ObjectKey, workload: &Workload) -> Arc<AuthorizationPolicy> {
    let why = arcstr::format!("it selects workload {} but is not known", workload.key);
    Arc::new(AuthorizationPolicy {
        key: name.clone(),
        action: Action::Deny,
        scope: Scope::Workloads,
        rules: Vec::new(),
        dry_run: false,
        broken: Some(why),
        provider: None,
    })
}
