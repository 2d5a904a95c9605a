//! HTTPRoutes with Service parents, and with ServiceEntries as such (Gateway API v1; GEP-1294 for the mesh, GEP-1324 for
//! consumer routes; Istio "Traffic management").
//!
//! A rule is kept as it is written or not at all: where a rule says something that we do not carry out, its requests
//! are answered with an error, rather than forwarded as if it did not say it. Parents that cannot be resolved are left
//! out, and the route holds for the others.

mod backend;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::Context;
use crate::base::ObjectKey;
use crate::model::{self, HttpFilter, HttpMatch, HttpRule, RouteParent, Service};
use crate::source::objects::{
    HttpRoute, HttpRouteFilter, HttpRouteRule, ISTIO_NETWORKING_GROUP, ParentRef, created,
};
use crate::source::{Condition, ConditionReason, ConditionType};
use backend::Backends;

/// The range of the offset at which a rule starts to split its traffic: wide enough that two agents seldom start
/// alike, far from overflow.
const TURN_RANGE: u64 = 1 << 32;

/// What the status says, and why.
type Refused = (ConditionReason, String);

type Services<'a> = HashMap<&'a ObjectKey, &'a Service>;

pub(super) fn translate(
    cx: &mut Context<'_>,
    services: &[Arc<Service>],
) -> Vec<Arc<model::HttpRoute>> {
    let objects = cx.objects;
    let services: Services<'_> =
        services.iter().map(|service| (&service.key, &**service)).collect();
    let mut routes = Vec::new();
    for (key, route) in objects.all::<HttpRoute>() {
        let parents = parents(cx, &services, key, route);
        // Routes of ingress gateways come by here too, and are none of ours.
        if parents.is_empty() {
            continue;
        }
        if !route.spec.hostnames.is_empty() {
            let reason = "is ignored for Service parents (GEP-1294); match the header Host instead";
            cx.warn::<HttpRoute>(key, "spec.hostnames", reason);
        }
        let backends = Backends { objects, services: &services, route: key, parents: &parents };
        // A route without rules has one that takes everything (Gateway API, HTTPRouteSpec).
        let default_rules = [HttpRouteRule::default()];
        let rules =
            if route.spec.rules.is_empty() { &default_rules[..] } else { &route.spec.rules };
        let rules = rules
            .iter()
            .enumerate()
            .map(|(index, it)| rule(cx, &backends, key, &format!("spec.rules[{index}]"), it))
            .collect();
        routes.push(Arc::new(model::HttpRoute {
            key: key.clone(),
            created: created(&route.metadata),
            parents,
            rules,
        }));
    }
    routes
}

fn parents(
    cx: &mut Context<'_>,
    services: &Services<'_>,
    key: &ObjectKey,
    route: &HttpRoute,
) -> Vec<RouteParent> {
    let mut parents = Vec::new();
    for (index, parent) in route.spec.parent_refs.iter().enumerate() {
        let resolved = match (parent.group.as_str(), parent.kind.as_str()) {
            ("" | "core", "Service") => service_parent(services, key, parent).map(|it| vec![it]),
            (ISTIO_NETWORKING_GROUP, "ServiceEntry") => entry_parents(services, key, parent),
            _ => continue,
        };
        match resolved {
            Ok(resolved) => {
                for parent in resolved {
                    if !parents.contains(&parent) {
                        parents.push(parent);
                    }
                }
            }
            Err(why) => {
                let (condition, why) = why;
                let reason = format!("{why}; the route is not attached there");
                let condition = Condition::of_parent(ConditionType::Accepted, condition, index);
                let field = format!("spec.parentRefs[{index}]");
                cx.error_with::<HttpRoute>(key, field, reason, condition);
            }
        }
    }
    parents
}

fn service_parent(
    services: &Services<'_>,
    route: &ObjectKey,
    parent: &ParentRef,
) -> Result<RouteParent, Refused> {
    let namespace = parent.namespace.as_deref().unwrap_or(&route.namespace);
    let key = ObjectKey::new(namespace, parent.name.as_str());
    let service = services.get(&key).ok_or_else(|| {
        let why =
            format!("the Service {key} does not exist, was refused, or is of type ExternalName");
        (ConditionReason::ParentNotFound, why)
    })?;
    Ok(RouteParent { port: parent_port(service, parent)?, service: key })
}

/// Every host of the entry.
fn entry_parents(
    services: &Services<'_>,
    route: &ObjectKey,
    parent: &ParentRef,
) -> Result<Vec<RouteParent>, Refused> {
    let namespace = parent.namespace.as_deref().unwrap_or(&route.namespace);
    let mut hosts: Vec<_> = (services.values())
        .filter(|it| it.key.namespace == namespace && it.entry.as_deref() == Some(&parent.name))
        .collect();
    if hosts.is_empty() {
        let name = &parent.name;
        let why = format!(
            "the ServiceEntry {namespace}/{name} does not exist, was refused, or lost its hosts"
        );
        return Err((ConditionReason::ParentNotFound, why));
    }
    hosts.sort_by_key(|service| &service.key);
    let of_host = |service: &&Service| {
        Ok(RouteParent { port: parent_port(service, parent)?, service: service.key.clone() })
    };
    hosts.into_iter().map(of_host).collect()
}

/// For a Service `sectionName` is a port's name; given together with `port`, both must mean the same port.
fn parent_port(service: &Service, parent: &ParentRef) -> Result<Option<u16>, Refused> {
    let refused = |why: String| (ConditionReason::NoMatchingParent, why);
    if let Some(port) = parent.port.filter(|port| service.port(*port).is_none()) {
        return Err(refused(format!("the {service} has no TCP port {port}")));
    }
    let Some(name) = &parent.section_name else { return Ok(parent.port) };
    let named = service.ports.iter().find(|port| port.name == name.as_str());
    let named =
        named.ok_or_else(|| refused(format!("the {service} has no TCP port named {name:?}")))?;
    if parent.port.is_some_and(|port| port != named.port) {
        let why = format!("sectionName {name:?} is port {} and not the port given", named.port);
        return Err(refused(why));
    }
    Ok(Some(named.port))
}

fn rule(
    cx: &mut Context<'_>,
    backends: &Backends<'_>,
    key: &ObjectKey,
    place: &str,
    rule: &HttpRouteRule,
) -> HttpRule {
    let mut matches: Vec<HttpMatch> = rule.matches.iter().map(|it| it.0.clone()).collect();
    if matches.is_empty() {
        matches.push(HttpMatch::default());
    }
    let unsupported = unsupported(rule);
    for (field, why) in &unsupported {
        let reason = format!("{why}; requests that match the rule are answered with status 500");
        let condition =
            Condition::of(ConditionType::PartiallyInvalid, ConditionReason::UnsupportedValue);
        cx.error_with::<HttpRoute>(key, format!("{place}.{field}"), reason, condition);
    }
    let (filters, backends) = match unsupported.first() {
        Some((field, why)) => (Vec::new(), vec![backend::invalid(1, format!("{field}: {why}"))]),
        None => (filters(rule), backends.resolve_all(cx, place, rule)),
    };
    let turn = Arc::new(AtomicU64::new(fastrand::u64(..TURN_RANGE)));
    HttpRule { name: rule.name.as_str().into(), matches, filters, backends, turn }
}

fn filters(rule: &HttpRouteRule) -> Vec<HttpFilter> {
    let supported = |filter: &HttpRouteFilter| match filter {
        HttpRouteFilter::Supported(filter) => Some(filter.clone()),
        HttpRouteFilter::Unsupported(_) => None,
    };
    rule.filters.iter().filter_map(supported).collect()
}

/// Fields of the rule, relative to it, that we do not carry out.
fn unsupported(rule: &HttpRouteRule) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for name in rule.unsupported() {
        found.push((name.to_owned(), "is not supported".to_owned()));
    }
    for (index, filter) in rule.filters.iter().enumerate() {
        if let HttpRouteFilter::Unsupported(kind) = filter {
            found.push((format!("filters[{index}].type"), format!("{kind:?} is not supported")));
        }
    }
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        if !backend.filters.is_empty() {
            let field = format!("backendRefs[{index}].filters");
            found.push((field, "is not supported".to_owned()));
        }
    }
    found
}
