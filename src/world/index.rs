//! The look-ups of a world. All are built when the world is; a look-up is one or two hash probes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::owners::{Addresses, Names};
use super::policies::{SortedPolicies, Target};
use super::{JudgedSince, Load, MeshNames, PolicySet, World, key};
use crate::base::{ObjectKey, Str};
use crate::model::{Endpoint, HttpRoute, Mesh, PortMapping, Service, Waypoint, Workload};

/// A service that a workload is an endpoint of, and the service's port that leads to the port asked for.
#[derive(Clone, Debug)]
pub struct Served {
    pub service: Arc<Service>,
    pub service_port: u16,
}

/// One way from a service to a workload.
pub(super) struct Membership {
    pub(super) target_port: u16,
    pub(super) served: Served,
}

#[derive(Default)]
pub(super) struct Indexes {
    workloads: HashMap<Str, Arc<Workload>>,
    by_address: HashMap<IpAddr, Arc<Workload>>,
    loads: HashMap<(Option<Str>, IpAddr), Arc<Load>>,
    services: HashMap<ObjectKey, Arc<Service>>,
    pub(super) addresses: Addresses,
    pub(super) names: Names,
    /// By workload; each service and port once.
    memberships: HashMap<Str, Vec<Membership>>,
    waypoints: HashMap<ObjectKey, Arc<Waypoint>>,
    routes: HashMap<ObjectKey, Arc<[Arc<HttpRoute>]>>,
    workload_policies: HashMap<Str, Arc<PolicySet>>,
    service_policies: HashMap<ObjectKey, Arc<PolicySet>>,
    waypoint_policies: HashMap<ObjectKey, Arc<PolicySet>>,
    pub(super) judged_since: JudgedSince,
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

    /// Two workloads may claim one address (a finished Job's and its successor): the one that is ready wins, then one
    /// that is in the mesh, then the first. Readiness comes first, because a finished workload gives its address
    /// back, also to workloads outside the mesh. Host-network workloads share their node's address and are not
    /// found by it.
    fn add_workload(&mut self, workload: &Arc<Workload>) {
        self.workloads.insert(workload.uid.clone(), workload.clone());
        if workload.host_network {
            return;
        }
        let rank = |workload: &Workload| (workload.ready, workload.enrolled);
        for address in &workload.addresses {
            let taken = self.by_address.get(address);
            if taken.is_none_or(|other| rank(workload) > rank(other)) {
                self.by_address.insert(*address, workload.clone());
            }
        }
    }

    fn add_service(&mut self, service: &Arc<Service>, previous: Option<&Indexes>) {
        self.services.insert(service.key.clone(), service.clone());
        self.names.add(service);
        self.addresses.add(service);
        for endpoint in &service.endpoints {
            if let Some(uid) = &endpoint.workload {
                self.add_membership(uid, service, endpoint);
            }
            for address in &endpoint.addresses {
                let id = (endpoint.workload.clone(), *address);
                let kept = previous.and_then(|previous| previous.loads.get(&id)).cloned();
                self.loads.entry(id).or_insert_with(|| kept.unwrap_or_default());
            }
        }
    }

    /// A workload may be several endpoints of one service: one per address family.
    fn add_membership(&mut self, uid: &Str, service: &Arc<Service>, endpoint: &Endpoint) {
        let known = self.memberships.entry(uid.clone()).or_default();
        for PortMapping { port, target } in endpoint.ports.iter().copied() {
            let same = |one: &Membership| {
                one.target_port == target
                    && one.served.service_port == port
                    && Arc::ptr_eq(&one.served.service, service)
            };
            if !known.iter().any(same) {
                let served = Served { service: service.clone(), service_port: port };
                known.push(Membership { target_port: target, served });
            }
        }
    }

    pub(super) fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    pub(super) fn service(&self, key: &ObjectKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    pub(super) fn waypoint(&self, key: &ObjectKey) -> Option<&Arc<Waypoint>> {
        self.waypoints.get(key)
    }

    pub(super) fn memberships(&self, uid: &str) -> &[Membership] {
        self.memberships.get(uid).map_or(&[], |list| list)
    }

    pub(super) fn workload_policies(&self, uid: &str) -> Option<&Arc<PolicySet>> {
        self.workload_policies.get(uid)
    }

    pub(super) fn service_policies(&self, service: &ObjectKey) -> Option<&Arc<PolicySet>> {
        self.service_policies.get(service)
    }

    pub(super) fn waypoint_policies(&self, waypoint: &ObjectKey) -> Option<&Arc<PolicySet>> {
        self.waypoint_policies.get(waypoint)
    }

    pub(super) fn judged_since(&self, uid: &str) -> Option<u64> {
        self.judged_since.get(uid).copied()
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
        let sorted = SortedPolicies::of(&mesh.policies);
        // Workloads of one Deployment share their set: a thousand of them need one index, not a thousand.
        let mut shared: HashMap<(&Str, &[ObjectKey]), Arc<PolicySet>> = HashMap::new();
        for workload in &mesh.workloads {
            let like = (&workload.key.namespace, &workload.policies[..]);
            let set = match shared.get(&like) {
                Some(set) if sorted.knows(&workload.policies) => set.clone(),
                _ => sorted.of_workload(workload).finish(),
            };
            shared.entry(like).or_insert_with(|| set.clone());
            self.workload_policies.insert(workload.uid.clone(), set);
        }
        for service in &mesh.services {
            let kind = match service.entry {
                Some(_) => Target::ServiceEntry,
                None => Target::Service,
            };
            let set = sorted.of_target(&service.key.namespace, kind, service.name());
            self.service_policies
                .insert(service.key.clone(), set.cloned().unwrap_or_default().finish());
        }
        for waypoint in &mesh.waypoints {
            let set = sorted.of_waypoint(waypoint, &names.root_namespace);
            self.waypoint_policies.insert(waypoint.key.clone(), set.finish());
        }
    }
}

impl World {
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.indexes.workload(uid)
    }

    /// The workload that owns an address.
    pub fn workload_at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.indexes.by_address.get(&address)
    }

    /// The service that owns a virtual address.
    pub fn service_at(&self, vip: IpAddr) -> Option<&Arc<Service>> {
        self.indexes.addresses.first_at(vip)
    }

    pub fn service(&self, key: &ObjectKey) -> Option<&Arc<Service>> {
        self.indexes.service(key)
    }

    /// The service of this host name; of several entries' the first.
    pub fn service_named(&self, hostname: &str) -> Option<&Arc<Service>> {
        self.indexes.names.first(hostname)
    }

    pub fn waypoint(&self, key: &ObjectKey) -> Option<&Arc<Waypoint>> {
        self.indexes.waypoint(key)
    }

    /// Routes with this service as a parent, whatever the port and the client.
    pub fn routes_of(&self, service: &ObjectKey) -> &[Arc<HttpRoute>] {
        self.indexes.routes.get(service).map_or(&[], |routes| routes)
    }

    /// How busy an endpoint is; the same counter in every world that has it.
    pub fn load_of(&self, workload: Option<&Str>, address: IpAddr) -> Option<&Arc<Load>> {
        self.indexes.loads.get(&(workload.cloned(), address))
    }

    /// The services that lead to `target_port` of this workload, each service port once.
    pub fn served_by<'a>(
        &'a self,
        workload: &Workload,
        target_port: u16,
    ) -> impl Iterator<Item = Served> + use<'a> {
        let known = self.indexes.memberships(&workload.uid);
        let leads = known.iter().filter(move |one| one.target_port == target_port);
        leads.map(|one| one.served.clone())
    }

    /// Mesh, namespace and selector policies of a workload.
    pub fn workload_policies(&self, uid: &str) -> Option<&Arc<PolicySet>> {
        self.indexes.workload_policies(uid)
    }

    /// Policies whose `targetRefs` name the service.
    pub fn service_policies(&self, service: &ObjectKey) -> Option<&Arc<PolicySet>> {
        self.indexes.service_policies(service)
    }

    /// Policies whose `targetRefs` name the waypoint's Gateway or class.
    pub fn waypoint_policies(&self, waypoint: &ObjectKey) -> Option<&Arc<PolicySet>> {
        self.indexes.waypoint_policies(waypoint)
    }

    /// The generation since which what inbound connections of the workload are judged by is the same; `None` when it is
    /// not known. Errs towards later.
    pub fn judged_since(&self, uid: &str) -> Option<u64> {
        self.indexes.judged_since(uid)
    }

    /// The service `name` in `namespace`.
    pub fn service_in(&self, namespace: &Str, name: &Str) -> Option<&Arc<Service>> {
        self.service(&key(namespace, name))
    }
}
