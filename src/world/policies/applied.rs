//! Which set of policies applies to which workload. Workloads that are alike share a set: a thousand pods of one
//! Deployment need one index, not a thousand.

use std::collections::HashMap;
use std::sync::Arc;

use super::{PolicySet, SortedPolicies, Target};
use crate::base::{ObjectKey, Str};
use crate::model::{AuthorizationPolicy, Mesh, Service, Waypoint, Workload};

/// By what policies name, not by workload and service: these change often, policies rarely.
#[derive(Clone, Default)]
pub(in crate::world) struct Applied {
    /// By a workload's namespace and the policies that select it.
    workloads: HashMap<Str, HashMap<Box<[ObjectKey]>, Arc<PolicySet>>>,
    /// By uid, of workloads that list a policy that does not exist; each such set names its workload.
    broken: HashMap<Str, Arc<PolicySet>>,
    targets: HashMap<(Str, Target, Str), Arc<PolicySet>>,
    waypoints: HashMap<ObjectKey, Arc<PolicySet>>,
    none: Arc<PolicySet>,
}

impl Applied {
    /// `workloads`: all of them.
    pub(in crate::world) fn new(mesh: &Mesh, root_namespace: &Str) -> Self {
        let sorted = SortedPolicies::of(&mesh.policies);
        let targets = sorted.by_target.iter();
        let mut applied = Self {
            targets: targets.map(|(id, set)| (id.clone(), set.clone().finish())).collect(),
            ..Self::default()
        };
        applied.follow_waypoints(&sorted, &mesh.waypoints, root_namespace);
        applied.follow(&sorted, [].into_iter(), mesh.workloads.iter());
        applied
    }

    /// With other policies; `None` if that requires a look at every workload, because some list a policy that does not
    /// exist.
    pub(in crate::world) fn renewed<'a>(
        &self,
        mesh: &Mesh,
        root_namespace: &Str,
        gone: &[&'a Arc<Workload>],
        come: &[&'a Arc<Workload>],
    ) -> Option<Self> {
        let sorted = SortedPolicies::of(&mesh.policies);
        let kinds = self.workloads.iter();
        let kinds = kinds.flat_map(|(namespace, of)| of.keys().map(move |it| (namespace, it)));
        if !self.broken.is_empty() || kinds.clone().any(|(_, listed)| !sorted.knows(listed)) {
            return None;
        }
        let targets = sorted.by_target.iter();
        let mut next = Self {
            targets: targets.map(|(id, set)| (id.clone(), set.clone().finish())).collect(),
            ..Self::default()
        };
        for (namespace, listed) in kinds {
            let set = sorted.of_alike(namespace, listed).finish();
            next.workloads.entry(namespace.clone()).or_default().insert(listed.clone(), set);
        }
        next.follow_waypoints(&sorted, &mesh.waypoints, root_namespace);
        next.follow(&sorted, gone.iter().copied(), come.iter().copied());
        Some(next)
    }

    /// The same policies with other workloads or waypoints; `None` if nothing has to change.
    pub(in crate::world) fn with<'a>(
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
        let sorted = SortedPolicies::of(policies);
        let mut next = self.clone();
        if let Some((waypoints, root_namespace)) = waypoints {
            next.follow_waypoints(&sorted, waypoints, root_namespace);
        }
        next.follow(&sorted, gone.iter().copied(), come.iter().copied());
        Some(next)
    }

    fn follow<'a>(
        &mut self,
        sorted: &SortedPolicies<'_>,
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
            let set = sorted.of_workload(workload).finish();
            if sorted.knows(&workload.policies) {
                let of_namespace =
                    self.workloads.entry(workload.key.namespace.clone()).or_default();
                of_namespace.insert(workload.policies.as_slice().into(), set);
            } else {
                self.broken.insert(workload.uid.clone(), set);
            }
        }
    }

    fn follow_waypoints(
        &mut self,
        sorted: &SortedPolicies<'_>,
        waypoints: &[Arc<Waypoint>],
        root_namespace: &Str,
    ) {
        let set = |waypoint: &Waypoint| sorted.of_waypoint(waypoint, root_namespace).finish();
        self.waypoints = waypoints.iter().map(|it| (it.key.clone(), set(it))).collect();
    }

    fn alike(&self, workload: &Workload) -> Option<&Arc<PolicySet>> {
        self.workloads.get(&workload.key.namespace)?.get(workload.policies.as_slice())
    }

    pub(in crate::world) fn to_workload(&self, workload: &Workload) -> Option<&Arc<PolicySet>> {
        self.broken.get(&workload.uid).or_else(|| self.alike(workload))
    }

    pub(in crate::world) fn to_service(&self, service: &Service) -> &Arc<PolicySet> {
        let kind = match service.entry {
            Some(_) => Target::ServiceEntry,
            None => Target::Service,
        };
        let id = (service.key.namespace.clone(), kind, service.name().clone());
        self.targets.get(&id).unwrap_or(&self.none)
    }

    pub(in crate::world) fn to_waypoint(&self, waypoint: &ObjectKey) -> Option<&Arc<PolicySet>> {
        self.waypoints.get(waypoint)
    }
}
