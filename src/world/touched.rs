//! The workloads that a change affects.
//!
//! This module starts from what was added, removed or changed between two worlds, and follows the services and routes
//! from there. Its cost grows with the change, neither with the mesh nor with the number of paths to a workload.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::World;
use super::diff::Diff;
use super::endpoints::ways_of;
use crate::base::{ObjectKey, Str, work};
use crate::model::{
    AuthorizationPolicy, BackendRef, Binding, HttpRoute, PolicyTarget, Scope, Service, Waypoint,
};

/// What changed between two worlds, as far as it may affect decisions about connections to workloads.
pub(super) struct Touched<'a> {
    worlds: [&'a World; 2],
    /// Whether a workload is watched.
    is_watched: &'a dyn Fn(&str) -> bool,
    /// By uid: the namespaces in which something changed that leads there.
    by: HashMap<&'a str, HashSet<&'a str>>,
    waypoints: HashSet<&'a ObjectKey>,
    /// Namespaces whose policies for workloads changed; `None` if those of all may have.
    policies: Option<HashSet<&'a Str>>,
}

impl<'a> Touched<'a> {
    pub(super) fn between(
        before: &'a World,
        after: &'a World,
        is_watched: &'a dyn Fn(&str) -> bool,
    ) -> Self {
        let mut touched = Self {
            worlds: [before, after],
            is_watched,
            by: HashMap::new(),
            waypoints: HashSet::new(),
            policies: Some(HashSet::new()),
        };
        touched.follow_services();
        touched.follow_routes();
        touched.follow_policies();
        touched.follow_waypoints();
        touched
    }

    /// Whether something changed that leads to the workload; only in `namespace`, if that is given.
    pub(super) fn leads_to(&self, uid: &str, namespace: Option<&str>) -> bool {
        let by = self.by.get(uid);
        by.is_some_and(|by| namespace.is_none_or(|namespace| by.contains(namespace)))
    }

    /// Whether the named waypoint, or its policies, changed.
    pub(super) fn is_bound(&self, binding: &Binding) -> bool {
        matches!(binding, Binding::Waypoint(key) if self.waypoints.contains(key))
    }

    /// Whether policies for workloads of the namespace may have changed.
    pub(super) fn has_policies_of(&self, namespace: &Str) -> bool {
        self.policies.as_ref().is_none_or(|changed| changed.contains(namespace))
    }

    fn follow_services(&mut self) {
        let [before, after] = self.worlds;
        let order = |service: &'a Service| (service.entry.is_some(), &service.key);
        let services = Diff::between(&before.mesh.services, &after.mesh.services, order);
        let changed = services.gone.iter().chain(&services.come).map(|service| &service.key);
        for key in changed.collect::<HashSet<_>>() {
            match (before.service(key), after.service(key)) {
                (Some(old), Some(new)) if Arc::ptr_eq(old, new) => {}
                // Not its endpoints: for a workload, only its own paths count.
                (Some(old), Some(new)) if are_shaped_alike(old, new) => {
                    let (was, is) = (ways_of(Some(old)), ways_of(Some(new)));
                    for (workload, _) in was.symmetric_difference(&is) {
                        self.touch(workload, &key.namespace);
                    }
                }
                (old, new) => {
                    let claimed = [old, new].into_iter().flatten().map(|it| &it.hostname);
                    for hostname in claimed.collect::<HashSet<_>>() {
                        self.touch_claimants(hostname, &key.namespace);
                    }
                    self.touch_led(key, &key.namespace);
                }
            }
        }
    }

    /// A name may belong to another service than before.
    fn touch_claimants(&mut self, hostname: &str, by: &'a str) {
        for world in self.worlds {
            for service in world.indexes.names.claimants(hostname) {
                self.touch_led(&service.key, by);
            }
        }
    }

    fn follow_routes(&mut self) {
        let [before, after] = self.worlds;
        let routes = Diff::between(&before.mesh.routes, &after.mesh.routes, |it| &it.key);
        for route in routes.gone.iter().chain(&routes.come) {
            for service in led_to(route).collect::<HashSet<_>>() {
                self.touch_endpoints(service, &route.key.namespace);
            }
        }
    }

    fn follow_policies(&mut self) {
        let [before, after] = self.worlds;
        let policies = Diff::between(&before.mesh.policies, &after.mesh.policies, |it| &it.key);
        let by_key = |all: &[&'a Arc<AuthorizationPolicy>]| -> HashMap<&'a ObjectKey, _> {
            all.iter().map(|policy| (&policy.key, *policy)).collect()
        };
        let (gone, come) = (by_key(&policies.gone), by_key(&policies.come));
        let both = gone.iter().map(|it| (it, &come)).chain(come.iter().map(|it| (it, &gone)));
        for ((key, policy), others) in both {
            if others.get(key) != Some(policy) {
                self.follow_policy(policy);
            }
        }
    }

    fn follow_policy(&mut self, policy: &'a AuthorizationPolicy) {
        let [_, after] = self.worlds;
        let namespace = &policy.key.namespace;
        match &policy.scope {
            Scope::Targets(targets) => {
                targets.iter().for_each(|target| self.follow_target(namespace, target));
            }
            Scope::Mesh => self.policies = None,
            // It may select workloads of all namespaces.
            Scope::Workloads if *namespace == after.names.root_namespace => self.policies = None,
            Scope::Namespace | Scope::Workloads => {
                self.policies.as_mut().map(|changed| changed.insert(namespace));
            }
        }
    }

    fn follow_target(&mut self, namespace: &'a Str, target: &PolicyTarget) {
        match target {
            PolicyTarget::Service(name) => self.touch_led(&super::key(namespace, name), namespace),
            PolicyTarget::ServiceEntry(name) => {
                let of_entry = |service: &&'a Arc<Service>| {
                    service.key.namespace == *namespace && service.entry.as_ref() == Some(name)
                };
                for world in self.worlds {
                    for service in world.mesh.services.iter().filter(of_entry) {
                        self.touch_led(&service.key, namespace);
                    }
                }
            }
            PolicyTarget::Gateway(name) => self.add_waypoints(|waypoint| {
                waypoint.key.namespace == *namespace && waypoint.key.name == *name
            }),
            PolicyTarget::GatewayClass(name) => self.add_waypoints(|it| it.class == *name),
        }
    }

    fn add_waypoints(&mut self, is_meant: impl Fn(&Waypoint) -> bool) {
        for world in self.worlds {
            let meant = world.mesh.waypoints.iter().filter(|waypoint| is_meant(waypoint));
            self.waypoints.extend(meant.map(|waypoint| &waypoint.key));
        }
    }

    /// After everything that affects the decisions of waypoints.
    fn follow_waypoints(&mut self) {
        let [before, after] = self.worlds;
        let waypoints = Diff::between(&before.mesh.waypoints, &after.mesh.waypoints, |it| &it.key);
        let changed = waypoints.gone.iter().chain(&waypoints.come).map(|it| &it.key);
        self.waypoints.extend(changed.filter(|key| before.waypoint(key) != after.waypoint(key)));
        if self.waypoints.is_empty() {
            return;
        }
        for world in self.worlds {
            for service in world.mesh.services.iter().filter(|it| it.waypoint != Binding::None) {
                let canary = service.canary.as_ref().map(|canary| &canary.waypoint);
                let tries = canary.is_some_and(|waypoint| self.waypoints.contains(waypoint));
                if tries || self.is_bound(&service.waypoint) {
                    self.touch_led(&service.key, &service.key.namespace);
                }
            }
        }
    }

    /// The guards of a service changed, or the service itself: affects its own endpoints, and those of its routes'
    /// backends.
    fn touch_led(&mut self, service: &ObjectKey, by: &'a str) {
        self.touch_endpoints(service, by);
        for world in self.worlds {
            let routes = world.routes_of(service).iter();
            for backend in routes.flat_map(|route| led_to(route)).collect::<HashSet<_>>() {
                self.touch_endpoints(backend, by);
            }
        }
    }

    fn touch_endpoints(&mut self, service: &ObjectKey, by: &'a str) {
        for world in self.worlds {
            let endpoints = world.service(service).into_iter().flat_map(|it| &it.endpoints);
            for workload in endpoints.filter_map(|endpoint| endpoint.workload.as_ref()) {
                self.touch(workload, by);
            }
        }
    }

    fn touch(&mut self, workload: &'a Str, by: &'a str) {
        work::did("workloads touched");
        if (self.is_watched)(workload) {
            self.by.entry(workload).or_default().insert(by);
        }
    }
}

/// Whether both are the same from the view of one of their endpoints.
fn are_shaped_alike(one: &Service, two: &Service) -> bool {
    one.hostname == two.hostname
        && one.visibility == two.visibility
        && one.ports == two.ports
        && one.vips == two.vips
        && one.waypoint == two.waypoint
        && one.canary == two.canary
        && one.filters == two.filters
        && one.port_filters == two.port_filters
}

fn led_to(route: &HttpRoute) -> impl Iterator<Item = &ObjectKey> {
    let backends = route.rules.iter().flat_map(|rule| &rule.backends);
    backends.filter_map(|backend| match &backend.target {
        BackendRef::Service { service, .. } => Some(service),
        BackendRef::Invalid { .. } => None,
    })
}
