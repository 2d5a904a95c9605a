//! The shared limits of Services that have pods on this node.

use std::collections::HashSet;

use crate::filter::{HttpFilter, InForce as Found, Pods, RateLimit};
use crate::model::{Endpoint, Service};
use crate::quota::messages::LimitId;
use crate::quota::rounds::InForce;
use crate::world::World;

/// Every one once. Those of ServiceEntries are not exchanged: the API server does not say which node has their endpoints.
pub(super) fn limits(world: &World, node: &str) -> Vec<InForce> {
    let mut found = Vec::new();
    let mut known = HashSet::new();
    for service in world.mesh.services.iter().filter(|it| it.entry.is_none()) {
        let limits = || limits_of(world, service);
        if limits().next().is_none() {
            continue;
        }
        let pods = pods(service, node);
        if pods.here == 0 {
            continue;
        }
        for Found { policy, name, rate, cost, parts } in limits() {
            let (policy, name) = (policy.clone(), name.clone());
            let id = LimitId { service: service.key.clone(), policy, name, rate };
            if known.insert(id.clone()) {
                found.push(InForce { id, cost, part: parts.of(&service.key), pods });
            }
        }
    }
    found
}

/// As destinations ask them: those of the Service, of its ports, and of the rules of routes of its own namespace.
fn limits_of<'a>(world: &'a World, service: &'a Service) -> impl Iterator<Item = Found<'a>> {
    let ports = service.port_filters.iter().flat_map(|it| &it.filters);
    let routes = world.routes_from(&service.key.namespace, &service.key).iter();
    let rules = routes.flat_map(|route| &route.rules).flat_map(|rule| &rule.filters);
    let filters = service.filters.iter().chain(ports).chain(rules);
    filters.filter_map(rate_limit).flat_map(RateLimit::shared)
}

fn rate_limit(filter: &HttpFilter) -> Option<&RateLimit> {
    match filter {
        HttpFilter::RateLimit(limit) => Some(limit),
        _ => None,
    }
}

/// How many of a service's endpoints this node has, ready or not.
pub fn pods(service: &Service, node: &str) -> Pods {
    let placed = |it: &&Endpoint| !it.node.is_empty();
    let here = service.endpoints.iter().filter(|it| it.node == node);
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let all = service.endpoints.iter().filter(placed).count();
    Pods { here: count(here.count()), all: count(all) }
}
