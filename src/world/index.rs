//! The look-ups of a world; one is a hash probe or two. The next world's are those of its predecessor with the changes
//! of the mesh applied; changes are found by pointer, because sources share what stayed.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::applied::Applied;
use super::diff::{Diff, are_shared};
use super::endpoints::{Endpoints, Way};
use super::owners::{self, Addresses, Names};
use super::shards::Shards;
use super::{Load, MeshNames, World, key};
use crate::base::{FastMap, ObjectKey, Str};
use crate::model::{
    HttpRoute, Mesh, RouteParent, Served, Service, StreamRoute, Waypoint, Workload,
};
use crate::policy::PolicySet;
use crate::rules::{Compilations, ServiceRules};

/// Routes by a service that is their parent, each sorted by namespace.
type ByService<R> = HashMap<ObjectKey, Arc<[Arc<R>]>>;

#[derive(Clone, Default)]
pub(super) struct Indexes {
    workloads: Shards<Str, Arc<Workload>>,
    /// All claimants of an address, the winner first; never empty.
    by_address: Shards<IpAddr, Arc<[Arc<Workload>]>>,
    /// Never empty.
    by_node: Shards<Str, Arc<Vec<Arc<Workload>>>>,
    /// How many workloads a namespace has; never 0.
    population: Shards<Str, usize>,
    services: Shards<ObjectKey, Arc<Service>>,
    endpoints: Endpoints,
    pub(super) addresses: Addresses,
    pub(super) names: Names,
    waypoints: Arc<HashMap<ObjectKey, Arc<Waypoint>>>,
    routes: Arc<ByService<HttpRoute>>,
    /// The same, compiled.
    rules: Arc<FastMap<ObjectKey, ServiceRules>>,
    streams: Arc<ByService<StreamRoute>>,
    policies: Arc<Applied>,
}

impl Indexes {
    pub(super) fn build(
        mesh: &Mesh,
        names: &MeshNames,
        previous: Option<(&Mesh, &Indexes)>,
    ) -> Self {
        let nothing = Mesh::default();
        let (before, mut indexes) = match previous {
            Some((before, indexes)) => (before, indexes.clone()),
            None => (&nothing, Indexes::default()),
        };
        let workloads = Diff::between(&before.workloads, &mesh.workloads, |it| &it.key);
        for workload in &workloads.gone {
            indexes.remove_workload(workload);
        }
        for workload in &workloads.come {
            indexes.add_workload(workload);
        }
        indexes.follow_services(before, mesh);
        let same_waypoints = are_shared(&before.waypoints, &mesh.waypoints);
        if !same_waypoints {
            let waypoints = mesh.waypoints.iter().map(|it| (it.key.clone(), it.clone()));
            indexes.waypoints = Arc::new(waypoints.collect());
        }
        if !are_shared(&before.routes, &mesh.routes) {
            let by_service = by_service(&mesh.routes, |it| &it.parents, |it| &it.key.namespace);
            indexes.rules = Arc::new(rules(&by_service, &indexes.rules));
            indexes.routes = Arc::new(by_service);
        }
        if !are_shared(&before.stream_routes, &mesh.stream_routes) {
            let routes = &mesh.stream_routes;
            let by_service = by_service(routes, |it| &it.parents, |it| &it.key.namespace);
            indexes.streams = Arc::new(by_service);
        }
        let root = &names.root_namespace;
        let (gone, come) = (&workloads.gone[..], &workloads.come[..]);
        let policies = if previous.is_some() && are_shared(&before.policies, &mesh.policies) {
            let waypoints = (!same_waypoints).then_some((&mesh.waypoints[..], root));
            indexes.policies.with(&mesh.policies, gone, come, waypoints)
        } else {
            let renewed = indexes.policies.renewed(mesh, root, gone, come);
            Some(renewed.unwrap_or_else(|| Applied::new(mesh, root)))
        };
        if let Some(policies) = policies {
            indexes.policies = Arc::new(policies);
        }
        indexes
    }

    /// Two workloads may claim one address (a finished Job's and its successor): the one that is ready wins, then one
    /// that is in the mesh, then the first by key. Readiness comes first, because a finished workload releases its
    /// address, also to workloads outside the mesh. Host-network workloads share their node's address and cannot be
    /// found by it.
    fn add_workload(&mut self, workload: &Arc<Workload>) {
        self.workloads.insert(workload.uid.clone(), workload.clone());
        self.by_node.change(&workload.node, |all| Arc::make_mut(all).push(workload.clone()));
        self.population.change(&workload.key.namespace, |count| *count += 1);
        if workload.host_network {
            return;
        }
        for address in &workload.addresses {
            let mut claimants = self.claimants(address).to_vec();
            claimants.push(workload.clone());
            claimants.sort_by_key(|it| (Reverse((it.ready, it.enrolled)), it.key.clone()));
            self.by_address.insert(*address, claimants.into());
        }
    }

    fn remove_workload(&mut self, workload: &Arc<Workload>) {
        self.workloads.remove(&workload.uid);
        self.by_node.change(&workload.node, |all| {
            if let Some(place) = all.iter().position(|it| Arc::ptr_eq(it, workload)) {
                Arc::make_mut(all).swap_remove(place);
            }
        });
        if self.of_node(&workload.node).is_empty() {
            self.by_node.remove(&workload.node);
        }
        let namespace = &workload.key.namespace;
        self.population.change(namespace, |count| *count = count.saturating_sub(1));
        if self.population.get(namespace) == Some(&0) {
            self.population.remove(namespace);
        }
        for address in &workload.addresses {
            let all = self.claimants(address);
            if !all.iter().any(|it| Arc::ptr_eq(it, workload)) {
                continue;
            }
            let rest: Arc<[_]> =
                all.iter().filter(|it| !Arc::ptr_eq(it, workload)).cloned().collect();
            match rest.is_empty() {
                true => self.by_address.remove(address),
                false => self.by_address.insert(*address, rest),
            }
        }
    }

    fn of_node(&self, node: &str) -> &[Arc<Workload>] {
        self.by_node.get(node).map_or(&[], |all| &all[..])
    }

    fn claimants(&self, address: &IpAddr) -> &[Arc<Workload>] {
        self.by_address.get(address).map_or(&[], |all| all)
    }

    fn follow_services(&mut self, before: &Mesh, mesh: &Mesh) {
        let order = |service: &'_ Service| (service.entry.is_some(), service.key.clone());
        let services = Diff::between(&before.services, &mesh.services, order);
        if services.is_empty() {
            return;
        }
        let come: HashMap<&ObjectKey, _> = services.come.iter().map(|it| (&it.key, *it)).collect();
        for gone in &services.gone {
            if !come.contains_key(&gone.key) {
                self.endpoints.replace(Some(gone), None);
                self.services.remove(&gone.key);
            }
        }
        for come in &services.come {
            let before = self.services.get(&come.key).cloned();
            self.endpoints.replace(before.as_deref(), Some(come));
            self.services.insert(come.key.clone(), Arc::clone(come));
        }
        let all = [&before.services[..], &mesh.services[..]];
        owners::follow(&mut self.addresses, &mut self.names, &services, all);
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

    fn ways(&self, uid: &str, namespace: &str) -> &[Way] {
        self.endpoints.ways(uid, namespace)
    }

    pub(super) fn workload_policies(&self, uid: &str) -> Option<&Arc<PolicySet>> {
        self.policies.to_workload(self.workload(uid)?)
    }

    pub(super) fn service_policies(&self, service: &ObjectKey) -> Option<&Arc<PolicySet>> {
        Some(self.policies.to_service(self.service(service)?))
    }

    pub(super) fn waypoint_policies(&self, waypoint: &ObjectKey) -> Option<&Arc<PolicySet>> {
        self.policies.to_waypoint(waypoint)
    }
}

/// A route once for each service that is a parent, whatever the port.
fn by_service<R>(
    routes: &[Arc<R>],
    parents: fn(&R) -> &[RouteParent],
    namespace: fn(&R) -> &Str,
) -> ByService<R> {
    let mut by_service: HashMap<ObjectKey, Vec<Arc<R>>> = HashMap::new();
    for route in routes {
        for parent in parents(route) {
            let list = by_service.entry(parent.service.clone()).or_default();
            if list.last().is_none_or(|last| !Arc::ptr_eq(last, route)) {
                list.push(route.clone());
            }
        }
    }
    let sorted = by_service.into_iter().map(|(key, mut list)| {
        list.sort_by(|one, other| namespace(one).cmp(namespace(other)));
        (key, list.into())
    });
    sorted.collect()
}

fn rules(
    routes: &ByService<HttpRoute>,
    before: &FastMap<ObjectKey, ServiceRules>,
) -> FastMap<ObjectKey, ServiceRules> {
    let mut compilations = Compilations::default();
    before.values().for_each(|rules| rules.keep(&mut compilations));
    let compiled = routes.iter().map(|(service, routes)| {
        let before = before.get(service);
        (service.clone(), ServiceRules::of(service, routes, before, &mut compilations))
    });
    compiled.collect()
}

/// Those of one namespace; `all` are sorted by namespace.
fn of_namespace<'a, R>(all: &'a [Arc<R>], namespace: &str, of: fn(&R) -> &Str) -> &'a [Arc<R>] {
    let start = all.partition_point(|route| of(route).as_str() < namespace);
    let length = all[start..].partition_point(|route| of(route).as_str() == namespace);
    &all[start..start + length]
}

impl World {
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.indexes.workload(uid)
    }

    /// Those of a node, including host-network ones, in no particular order.
    pub fn workloads_on(&self, node: &str) -> &[Arc<Workload>] {
        self.indexes.of_node(node)
    }

    /// Whether a namespace has workloads.
    pub fn is_populated(&self, namespace: &str) -> bool {
        self.indexes.population.get(namespace).is_some()
    }

    /// The workload that owns an address.
    pub fn workload_at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.indexes.claimants(&address).first()
    }

    /// The service to which a virtual address belongs for all clients.
    pub fn service_at(&self, vip: IpAddr) -> Option<&Arc<Service>> {
        self.indexes.addresses.first_at(vip)
    }

    pub fn service(&self, key: &ObjectKey) -> Option<&Arc<Service>> {
        self.indexes.service(key)
    }

    pub fn waypoint(&self, key: &ObjectKey) -> Option<&Arc<Waypoint>> {
        self.indexes.waypoint(key)
    }

    /// Routes with this service as a parent, whatever the port and the client, by namespace.
    pub fn routes_of(&self, service: &ObjectKey) -> &[Arc<HttpRoute>] {
        self.indexes.routes.get(service).map_or(&[], |routes| routes)
    }

    /// The routes in this namespace. The number of others does not matter.
    pub fn routes_from(&self, namespace: &str, service: &ObjectKey) -> &[Arc<HttpRoute>] {
        of_namespace(self.routes_of(service), namespace, |route| &route.key.namespace)
    }

    /// The rules of these routes, compiled.
    pub fn rules_of(&self, service: &ObjectKey) -> Option<&ServiceRules> {
        self.indexes.rules.get(service)
    }

    /// TCPRoutes and TLSRoutes with this service as a parent, whatever the port and the client, by namespace.
    pub fn streams_of(&self, service: &ObjectKey) -> &[Arc<StreamRoute>] {
        self.indexes.streams.get(service).map_or(&[], |routes| routes)
    }

    /// Those in this namespace.
    pub fn streams_from(&self, namespace: &str, service: &ObjectKey) -> &[Arc<StreamRoute>] {
        of_namespace(self.streams_of(service), namespace, |route| &route.key.namespace)
    }

    /// The load of an endpoint; the same counter in every world that has it.
    pub fn load_of(&self, workload: Option<&Str>, address: IpAddr) -> Option<&Arc<Load>> {
        self.indexes.endpoints.load(workload, address)
    }

    /// The services of a namespace that lead to `target_port` of this workload, each service port once. The number of
    /// others does not matter.
    pub fn served_by<'a>(
        &'a self,
        namespace: &'a str,
        workload: &Workload,
        target_port: u16,
    ) -> impl Iterator<Item = Served> + use<'a> {
        let own = self.indexes.ways(&workload.uid, namespace).iter();
        own.filter(move |way| way.target_port == target_port).filter_map(|way| self.served(way))
    }

    /// The services of a namespace that lead to this workload, with the port of the workload.
    pub fn leading_to<'a>(
        &'a self,
        namespace: &'a str,
        workload: &Workload,
    ) -> impl Iterator<Item = (Served, u16)> + use<'a> {
        let own = self.indexes.ways(&workload.uid, namespace).iter();
        own.filter_map(|way| Some((self.served(way)?, way.target_port)))
    }

    /// The ports of a service that target `target_port` of this workload.
    pub fn ways_of<'a>(
        &'a self,
        service: &'a ObjectKey,
        workload: &Workload,
        target_port: u16,
    ) -> impl Iterator<Item = Served> + use<'a> {
        let ways = self.indexes.ways(&workload.uid, &service.namespace);
        let start = ways.partition_point(|way| way.service < *service);
        let own = ways[start..].iter().take_while(move |way| way.service == *service);
        own.filter(move |way| way.target_port == target_port).filter_map(|way| self.served(way))
    }

    fn served(&self, way: &Way) -> Option<Served> {
        let service = self.indexes.service(&way.service)?.clone();
        Some(Served { service, service_port: way.service_port })
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

    /// The service `name` in `namespace`.
    pub fn service_in(&self, namespace: &Str, name: &Str) -> Option<&Arc<Service>> {
        self.service(&key(namespace, name))
    }
}
