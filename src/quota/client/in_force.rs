//! The shared limits of Services that have pods on this node.

use std::collections::HashSet;
use std::sync::Arc;

use crate::base::ObjectKey;
use crate::filter::{HttpFilter, RateLimit, SharedLimit};
use crate::model::Service;
use crate::quota::messages::LimitId;
use crate::quota::rounds::InForce;
use crate::world::World;

/// Every one once; with `of`, those of one Service. Those of ServiceEntries are not exchanged: the API server does not say which node
/// has their endpoints.
pub(super) fn limits(world: &World, node: &str, of: Option<&ObjectKey>) -> Vec<InForce> {
    let mut found = Vec::new();
    let mut known = HashSet::new();
    let mut swept = HashSet::new();
    // Only what is bound to a waypoint is parsed, and so limited.
    let bound = world.mesh.services.iter().filter(|it| it.waypoint.waypoint().is_some());
    let wanted = |service: &&Arc<Service>| of.is_none_or(|of| service.key == *of);
    for service in bound.filter(wanted).filter(|it| it.entry.is_none()) {
        let limits = || limits_of(world, service);
        for SharedLimit { parts, .. } in limits() {
            if swept.insert(std::ptr::from_ref(parts)) {
                parts.retain(|service| world.service(service).is_some());
            }
        }
        if limits().next().is_none() {
            continue;
        }
        let pods = service.pods(node);
        if pods.here == 0 {
            continue;
        }
        for SharedLimit { policy, name, rate, cost, parts } in limits() {
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
fn limits_of<'a>(world: &'a World, service: &'a Service) -> impl Iterator<Item = SharedLimit<'a>> {
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
