//! Small worlds for tests of the rooms that decide over one.

use std::sync::Arc;

use super::{MeshNames, World, WorldStore};
use crate::base::{Bits, Identity, LabelMap, ObjectKey};
use crate::model::*;
use crate::traffic::Traffic;

/// A mesh under construction; everything is in namespace `shop` unless its name says `namespace/name`.
#[derive(Default)]
pub(crate) struct Fixture {
    pub(crate) mesh: Mesh,
}

pub(crate) fn key(name: &str) -> ObjectKey {
    match name.split_once('/') {
        Some((namespace, name)) => ObjectKey::new(namespace, name),
        None => ObjectKey::new("shop", name),
    }
}

pub(crate) fn identity(name: &str) -> Identity {
    let key = key(name);
    Identity::new("cluster.local", key.namespace, key.name)
}

/// Enrolled, ready, with a service account of the same name.
pub(crate) fn workload(name: &str, address: &str) -> Workload {
    Workload {
        uid: format!("Kubernetes//Pod/{}", key(name)).into(),
        key: key(name),
        identity: identity(name),
        node: "node".into(),
        addresses: vec![address.parse().unwrap()],
        pod: None,
        network_namespace: None,
        enrolled: true,
        unsure: false,
        host_network: false,
        gateway: false,
        capture: CaptureWishes::default(),
        ready: true,
        canonical: Canonical::default(),
        locality: Locality::default(),
        waypoint: Binding::None,
        peer_authentication: PeerAuthentication::default(),
        policies: Vec::new(),
        selected_by: Bits::default(),
        labels: LabelMap::new(),
        rules: Vec::new(),
        registry_only: false,
    }
}

/// Port 80 of the service targets port 8080 of each workload.
pub(crate) fn service(name: &str, vip: &str, workloads: &[&Workload]) -> Service {
    let key = key(name);
    Service {
        hostname: format!("{}.{}.svc.cluster.local", key.name, key.namespace).into(),
        key,
        entry: None,
        visibility: Visibility::Everywhere,
        vips: vec![vip.parse().unwrap()],
        networks: Vec::new(),
        resolution: Resolution::Listed,
        server: None,
        ports: vec![ServicePort { name: "http".into(), port: 80, protocol: AppProtocol::Http }],
        endpoints: workloads
            .iter()
            .map(|workload| Endpoint {
                workload: Some(workload.uid.clone()),
                addresses: workload.addresses.clone(),
                name: None,
                hostname: None,
                weight: 1,
                ports: vec![PortMapping { port: 80, target: 8080 }],
                ready: workload.ready,
                terminating: false,
                node: workload.node.clone(),
                locality: workload.locality.clone(),
                subsets: Bits::default(),
                labels: workload.labels.clone(),
            })
            .collect(),
        balancing: Balancing::default(),
        waypoint: Binding::None,
        encryption: Encryption::default(),
        traffic: Traffic::default(),
        filters: Vec::new(),
        port_filters: Vec::new(),
        tables: Tables::default(),
        canary: None,
        ingress: false,
    }
}

pub(crate) fn waypoint(name: &str) -> Waypoint {
    Waypoint {
        key: key(name),
        class: "istio-waypoint".into(),
        identity: identity(name),
        for_services: true,
        for_workloads: true,
        names_clients: false,
    }
}

pub(crate) fn bound_to(name: &str) -> Binding {
    Binding::Waypoint(key(name))
}

pub(crate) fn policy(
    name: &str,
    action: Action,
    scope: Scope,
    rules: Vec<Rule>,
) -> AuthorizationPolicy {
    AuthorizationPolicy {
        key: key(name),
        action,
        scope,
        rules,
        dry_run: false,
        broken: None,
        provider: None,
    }
}

/// To port 80 of a service.
pub(crate) fn backend(service: &str, weight: u32) -> Backend {
    let target = BackendRef::Service { service: key(service), port: 80 };
    Backend { weight, target, subset: None, filters: Vec::new() }
}

/// Matches every request.
pub(crate) fn rule(backends: Vec<Backend>) -> HttpRule {
    HttpRule { matches: vec![HttpMatch::default()], backends, ..HttpRule::default() }
}

/// An HTTPRoute on every port of a service.
pub(crate) fn route(name: &str, parent: &str, rules: Vec<HttpRule>) -> HttpRoute {
    let parents = vec![RouteParent { service: key(parent), port: None }];
    HttpRoute { kind: RouteKind::Http, key: key(name), created: 0, parents, rules, holds: None }
}

impl Fixture {
    pub(crate) fn workload(mut self, workload: Workload) -> Self {
        self.mesh.workloads.push(Arc::new(workload));
        self
    }

    pub(crate) fn service(mut self, service: Service) -> Self {
        self.mesh.services.push(Arc::new(service));
        self
    }

    pub(crate) fn waypoint(mut self, waypoint: Waypoint) -> Self {
        self.mesh.waypoints.push(Arc::new(waypoint));
        self
    }

    pub(crate) fn route(mut self, route: HttpRoute) -> Self {
        self.mesh.routes.push(Arc::new(route));
        self
    }

    pub(crate) fn stream_route(mut self, route: StreamRoute) -> Self {
        self.mesh.stream_routes.push(Arc::new(route));
        self
    }

    pub(crate) fn policy(mut self, policy: AuthorizationPolicy) -> Self {
        self.mesh.policies.push(Arc::new(policy));
        self
    }

    pub(crate) fn build(self) -> Arc<World> {
        store().publish(self.mesh)
    }
}

pub(crate) fn store() -> Arc<WorldStore> {
    WorldStore::new(MeshNames {
        trust_domains: crate::base::TrustDomains::new("cluster.local".into(), &[]),
        root_namespace: "istio-system".into(),
    })
}
