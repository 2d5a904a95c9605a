//! The look-ups of a world. All are built when the world is; a look-up is one or two hash probes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Load, MeshNames, PolicySet, World, key};
use crate::base::{ObjectKey, Str};
use crate::model::{
    AuthorizationPolicy, HttpRoute, Mesh, PolicyTarget, Scope, Service, Waypoint, Workload,
};

/// A service that a workload is an endpoint of, and the service's port that leads to the port asked for.
#[derive(Clone, Debug)]
pub struct Served {
    pub service: Arc<Service>,
    pub service_port: u16,
}

#[derive(Default)]
pub(super) struct Indexes {
    workloads: HashMap<Str, Arc<Workload>>,
    by_address: HashMap<IpAddr, Arc<Workload>>,
    loads: HashMap<(Option<Str>, IpAddr), Arc<Load>>,
    services: HashMap<ObjectKey, Arc<Service>>,
    by_vip: HashMap<IpAddr, Arc<Service>>,
    by_hostname: HashMap<Str, Arc<Service>>,
    memberships: HashMap<Str, Vec<Arc<Service>>>,
    waypoints: HashMap<ObjectKey, Arc<Waypoint>>,
    routes: HashMap<ObjectKey, Arc<[Arc<HttpRoute>]>>,
    workload_policies: HashMap<Str, Arc<PolicySet>>,
    service_policies: HashMap<ObjectKey, Arc<PolicySet>>,
    waypoint_policies: HashMap<ObjectKey, Arc<PolicySet>>,
}

impl Indexes {
    pub(super) fn build(mesh: &Mesh, names: &MeshNames, previous: Option<&Indexes>) -> Self {
        let mut indexes = Indexes::default();
        for workload in &mesh.workloads {
            indexes.add_workload(workload);
        }
        for service in &mesh.services {
            indexes.add_service(service, previous);
        }
        for waypoint in &mesh.waypoints {
            indexes.waypoints.insert(waypoint.key.clone(), waypoint.clone());
        }
        indexes.add_routes(&mesh.routes);
        indexes.add_policies(mesh, names);
        indexes
    }

    /// Two workloads may claim one address (a finished Job's and its successor): one that is in the mesh and
    /// ready wins, then the first. Host-network workloads share their node's address and are not found by it.
    fn add_workload(&mut self, workload: &Arc<Workload>) {
        self.workloads.insert(workload.uid.clone(), workload.clone());
        if workload.host_network {
            return;
        }
        let rank = |workload: &Workload| (workload.enrolled, workload.ready);
        for address in &workload.addresses {
            let taken = self.by_address.get(address);
            if taken.is_none_or(|other| rank(workload) > rank(other)) {
                self.by_address.insert(*address, workload.clone());
            }
        }
    }

    fn add_service(&mut self, service: &Arc<Service>, previous: Option<&Indexes>) {
        self.services.insert(service.key.clone(), service.clone());
        self.by_hostname.insert(service.hostname.clone(), service.clone());
        for vip in &service.vips {
            self.by_vip.entry(*vip).or_insert_with(|| service.clone());
        }
        for endpoint in &service.endpoints {
            if let Some(uid) = &endpoint.workload {
                self.memberships.entry(uid.clone()).or_default().push(service.clone());
            }
            for address in &endpoint.addresses {
                let id = (endpoint.workload.clone(), *address);
                let kept = previous.and_then(|previous| previous.loads.get(&id)).cloned();
                self.loads.entry(id).or_insert_with(|| kept.unwrap_or_default());
            }
        }
    }

    fn add_routes(&mut self, routes: &[Arc<HttpRoute>]) {
        let mut by_service: HashMap<ObjectKey, Vec<Arc<HttpRoute>>> = HashMap::new();
        for route in routes {
            for parent in &route.parents {
                let list = by_service.entry(parent.service.clone()).or_default();
                if list.last().is_none_or(|last| !Arc::ptr_eq(last, route)) {
                    list.push(route.clone());
                }
            }
        }
        self.routes = by_service.into_iter().map(|(key, list)| (key, list.into())).collect();
    }

    fn add_policies(&mut self, mesh: &Mesh, names: &MeshNames) {
        let mut wide = PolicySet::default();
        let mut by_namespace: HashMap<Str, PolicySet> = HashMap::new();
        let mut by_key: HashMap<ObjectKey, &Arc<AuthorizationPolicy>> = HashMap::new();
        let mut by_target: HashMap<(Str, PolicyTargetKind, Str), PolicySet> = HashMap::new();
        for policy in &mesh.policies {
            match &policy.scope {
                Scope::Mesh => wide.add(policy),
                Scope::Namespace => {
                    by_namespace.entry(policy.key.namespace.clone()).or_default().add(policy);
                }
                Scope::Workloads => {
                    by_key.insert(policy.key.clone(), policy);
                }
                Scope::Targets(targets) => {
                    for target in targets {
                        let (kind, name) = target_key(target);
                        let id = (policy.key.namespace.clone(), kind, name.clone());
                        by_target.entry(id).or_default().add(policy);
                    }
                }
            }
        }
        for workload in &mesh.workloads {
            let mut set = wide.clone();
            if let Some(local) = by_namespace.get(&workload.key.namespace) {
                set.extend(local);
            }
            for name in &workload.policies {
                if let Some(policy) = by_key.get(name) {
                    set.add(policy);
                }
            }
            self.workload_policies.insert(workload.uid.clone(), Arc::new(set));
        }
        for service in &mesh.services {
            let id = (
                service.key.namespace.clone(),
                PolicyTargetKind::Service,
                service.key.name.clone(),
            );
            let set = by_target.get(&id).cloned().unwrap_or_default();
            self.service_policies.insert(service.key.clone(), Arc::new(set));
        }
        for waypoint in &mesh.waypoints {
            let mut set = PolicySet::default();
            let own = (
                waypoint.key.namespace.clone(),
                PolicyTargetKind::Gateway,
                waypoint.key.name.clone(),
            );
            let class = (
                names.root_namespace.clone(),
                PolicyTargetKind::GatewayClass,
                waypoint.class.clone(),
            );
            for id in [class, own] {
                if let Some(found) = by_target.get(&id) {
                    set.extend(found);
                }
            }
            self.waypoint_policies.insert(waypoint.key.clone(), Arc::new(set));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum PolicyTargetKind {
    Service,
    Gateway,
    GatewayClass,
}

fn target_key(target: &PolicyTarget) -> (PolicyTargetKind, &Str) {
    match target {
        PolicyTarget::Service(name) => (PolicyTargetKind::Service, name),
        PolicyTarget::Gateway(name) => (PolicyTargetKind::Gateway, name),
        PolicyTarget::GatewayClass(name) => (PolicyTargetKind::GatewayClass, name),
    }
}

impl World {
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.indexes.workloads.get(uid)
    }

    /// The workload that owns an address.
    pub fn workload_at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.indexes.by_address.get(&address)
    }

    /// The service that owns a virtual address.
    pub fn service_at(&self, vip: IpAddr) -> Option<&Arc<Service>> {
        self.indexes.by_vip.get(&vip)
    }

    pub fn service(&self, key: &ObjectKey) -> Option<&Arc<Service>> {
        self.indexes.services.get(key)
    }

    pub fn service_named(&self, hostname: &str) -> Option<&Arc<Service>> {
        self.indexes.by_hostname.get(hostname)
    }

    pub fn waypoint(&self, key: &ObjectKey) -> Option<&Arc<Waypoint>> {
        self.indexes.waypoints.get(key)
    }

    /// Routes with this service as a parent, whatever the port and the client.
    pub fn routes_of(&self, service: &ObjectKey) -> &[Arc<HttpRoute>] {
        self.indexes.routes.get(service).map_or(&[], |routes| routes)
    }

    /// How busy an endpoint is; the same counter in every world that has it.
    pub fn load_of(&self, workload: Option<&Str>, address: IpAddr) -> Option<&Arc<Load>> {
        self.indexes.loads.get(&(workload.cloned(), address))
    }

    /// The services that lead to `target_port` of this workload.
    pub fn served_by<'a>(
        &'a self,
        workload: &'a Workload,
        target_port: u16,
    ) -> impl Iterator<Item = Served> + 'a {
        let services = self.indexes.memberships.get(&workload.uid).map_or(&[][..], |list| list);
        services.iter().flat_map(move |service| {
            service
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.workload.as_ref() == Some(&workload.uid))
                .flat_map(|endpoint| endpoint.ports.iter())
                .filter(move |mapping| mapping.target == target_port)
                .map(move |mapping| Served { service: service.clone(), service_port: mapping.port })
        })
    }

    /// Mesh, namespace and selector policies of a workload.
    pub fn workload_policies(&self, uid: &str) -> Option<&Arc<PolicySet>> {
        self.indexes.workload_policies.get(uid)
    }

    /// Policies whose `targetRefs` name the service.
    pub fn service_policies(&self, service: &ObjectKey) -> Option<&Arc<PolicySet>> {
        self.indexes.service_policies.get(service)
    }

    /// Policies whose `targetRefs` name the waypoint's Gateway or class.
    pub fn waypoint_policies(&self, waypoint: &ObjectKey) -> Option<&Arc<PolicySet>> {
        self.indexes.waypoint_policies.get(waypoint)
    }

    /// The service `name` in `namespace`.
    pub fn service_in(&self, namespace: &Str, name: &Str) -> Option<&Arc<Service>> {
        self.service(&key(namespace, name))
    }
}
