//! Parents of a route: Services and ServiceEntries. Gateways are other controllers', and what can be no parent says so.

use std::sync::Arc;

use super::super::Context;
use super::super::waypoint::CLASS;
use super::services::Services;
use super::{Refused, RouteParts};
use crate::base::ObjectKey;
use crate::model::{
    AppProtocol, Binding, HttpRoute, RouteParent, Service, ServicePort, StreamRoute,
};
use crate::source::objects::{GATEWAY_GROUP, Gateway, ISTIO_NETWORKING_GROUP, Kind, ParentRef};
use crate::source::{Condition, ConditionReason, ConditionType, Severity, Topic};

/// A translated route, and for each of its parents the index in `spec.parentRefs`.
#[derive(Clone)]
pub(in crate::source::translate) struct Attached {
    pub(in crate::source::translate) route: Translated,
    pub(in crate::source::translate) indexes: Vec<usize>,
}

/// A translated route of requests, or of connections.
#[derive(Clone)]
pub(in crate::source::translate) enum Translated {
    Http(Arc<HttpRoute>),
    Stream(Arc<StreamRoute>),
}

impl Translated {
    pub(in crate::source::translate) fn parents(&self) -> &[RouteParent] {
        match self {
            Translated::Http(route) => &route.parents,
            Translated::Stream(route) => &route.parents,
        }
    }
}

/// The parents that there are, each once, with their indexes; complains of the others.
pub(super) fn resolve(
    cx: &mut Context<'_>,
    services: &Services<'_>,
    route: &RouteParts<'_>,
) -> (Vec<usize>, Vec<RouteParent>) {
    let (mut indexes, mut parents) = (Vec::new(), Vec::new());
    if route.parents.is_empty() {
        let reason = "are missing, so the route has no effect; name a Service, with group \"\"";
        cx.complain(
            Severity::Warning,
            route.kind,
            route.key,
            "spec.parentRefs".to_owned(),
            reason.to_owned(),
        );
    }
    for (index, parent) in route.parents.iter().enumerate() {
        let resolved = match (parent.group.as_str(), parent.kind.as_str()) {
            ("" | "core", "Service") => of_service(services, route.key, parent).map(|it| vec![it]),
            (ISTIO_NETWORKING_GROUP, "ServiceEntry") => of_entry(services, route.key, parent),
            _ => {
                complain_of_other(cx, services, route, index, parent);
                continue;
            }
        };
        match resolved {
            Ok(resolved) => {
                for parent in resolved {
                    if parents.contains(&parent) {
                        continue;
                    }
                    if let Some((topic, why)) = has_no_effect(services, route.kind, &parent) {
                        let field = format!("spec.parentRefs[{index}]");
                        cx.complain(Severity::Warning, route.kind, route.key, field, why);
                        cx.about(topic);
                    }
                    indexes.push(index);
                    parents.push(parent);
                }
            }
            Err((condition, why)) => {
                let reason = format!("{why}; the route is not attached there");
                let condition = Condition::of_parent(ConditionType::Accepted, condition, index);
                let field = format!("spec.parentRefs[{index}]");
                cx.error_of(route.kind, route.key, field, reason, condition);
                cx.about(Topic::ParentMissing);
            }
        }
    }
    (indexes, parents)
}

/// Says why a route is not attached to what is neither a Service nor a ServiceEntry.
fn complain_of_other(
    cx: &mut Context<'_>,
    services: &Services<'_>,
    route: &RouteParts<'_>,
    index: usize,
    parent: &ParentRef,
) {
    let ParentRef { group, kind, name, .. } = parent;
    let namespace = parent.namespace.as_deref().unwrap_or(&route.key.namespace);
    let key = ObjectKey::new(namespace, name.as_str());
    let field = format!("spec.parentRefs[{index}]");
    let right_group = match kind.as_str() {
        "Service" => Some("\"\""),
        "ServiceEntry" => Some(ISTIO_NETWORKING_GROUP),
        "Gateway" if group != GATEWAY_GROUP => Some(GATEWAY_GROUP),
        _ => None,
    };
    if let Some(right) = right_group {
        let reason = format!(
            "the kind {kind} of group {group:?} does not exist; write group: {right} (without it, the group is \
             {GATEWAY_GROUP}). The route is not attached there"
        );
        let kind = ConditionType::Accepted;
        let condition = Condition::of_parent(kind, ConditionReason::InvalidKind, index);
        cx.error_of(route.kind, route.key, field, reason, condition);
        return cx.about(Topic::ParentMissing);
    }
    let (severity, why) = match kind.as_str() {
        "Gateway" => why_no_gateway(services.gateway(cx.objects, &key), &key),
        // Of other ingress controllers.
        "ListenerSet" | "XListenerSet" => return,
        _ => {
            let why = format!(
                "{kind:?} of group {group:?} cannot be a parent in the mesh; a Service (group: \"\") or a ServiceEntry \
                 (group: {ISTIO_NETWORKING_GROUP}) can"
            );
            (Severity::Warning, why)
        }
    };
    let reason = format!("{why}; the route is not attached there");
    cx.complain(severity, route.kind, route.key, field, reason);
}

/// Gateways are other controllers', but for waypoints, which have no routes of their own.
fn why_no_gateway(gateway: Option<&Gateway>, key: &ObjectKey) -> (Severity, String) {
    let Some(gateway) = gateway else {
        let why = format!(
            "the Gateway {key} is not known; for traffic within the mesh name a Service as the parent (group: \"\", kind: \
             Service)"
        );
        return (Severity::Warning, why);
    };
    let class = &gateway.spec.gateway_class_name;
    if class != CLASS {
        let why = format!("the Gateway {key} is of class {class:?}, which Isthmus does not serve");
        return (Severity::Note, why);
    }
    let why = format!(
        "the Gateway {key} is a waypoint, and routes of a mesh attach to Services: name the Service that the route is for \
         as the parent (group: \"\", kind: Service)"
    );
    (Severity::Warning, why)
}

/// Why traffic to the parent never meets a route, although the route is attached to it.
fn has_no_effect(
    services: &Services<'_>,
    kind: Kind,
    parent: &RouteParent,
) -> Option<(Topic, String)> {
    let service = services.get(&parent.service)?;
    let of_requests = matches!(kind, Kind::HTTPRoute | Kind::GRPCRoute);
    let port = parent.port.and_then(|port| service.port(port));
    if let Some(ServicePort { port, protocol: AppProtocol::Tcp, .. }) = port
        && of_requests
    {
        let why = format!(
            "port {port} of {service} is not HTTP (appProtocol, or the port's name), so the route has no effect on it"
        );
        return Some((Topic::PortNotHttp, why));
    }
    if service.vips.is_empty() && service.networks.is_empty() {
        let why = format!(
            "{service} has no address of its own (a headless Service), so nobody addresses it, and the route has no effect \
             there; name a Service with a clusterIP"
        );
        return Some((Topic::Unaddressed, why));
    }
    (of_requests && service.waypoint == Binding::None).then(|| {
        let why = format!(
            "{service} has no waypoint, so the route has no effect there; label it, or its namespace, with \
             istio.io/use-waypoint"
        );
        (Topic::NoWaypoint, why)
    })
}

fn of_service(
    services: &Services<'_>,
    route: &ObjectKey,
    parent: &ParentRef,
) -> Result<RouteParent, Refused> {
    let namespace = parent.namespace.as_deref().unwrap_or(&route.namespace);
    let key = ObjectKey::new(namespace, parent.name.as_str());
    // A host of an entry is no Service, whatever its key looks like.
    let service = services.kubernetes(&key);
    let service = service.ok_or_else(|| {
        let why =
            format!("the Service {key} does not exist, was refused, or is of type ExternalName");
        (ConditionReason::ParentNotFound, why)
    })?;
    Ok(RouteParent { port: port(service, parent)?, service: key })
}

/// Every host of the entry.
fn of_entry(
    services: &Services<'_>,
    route: &ObjectKey,
    parent: &ParentRef,
) -> Result<Vec<RouteParent>, Refused> {
    let namespace = parent.namespace.as_deref().unwrap_or(&route.namespace);
    let mut hosts: Vec<_> = (services.entries())
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
    let of_host = |service: &Service| {
        Ok(RouteParent { port: port(service, parent)?, service: service.key.clone() })
    };
    hosts.into_iter().map(of_host).collect()
}

/// For a Service `sectionName` is a port's name; given together with `port`, both must mean the same port.
fn port(service: &Service, parent: &ParentRef) -> Result<Option<u16>, Refused> {
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
