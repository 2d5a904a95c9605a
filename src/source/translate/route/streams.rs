//! TCPRoutes and TLSRoutes: one rule, whose backends take connections instead of requests. A backend that cannot be used keeps its
//! share, which is closed (Gateway API, TCPRouteRule).

use std::sync::Arc;

use http::StatusCode;

use super::super::Context;
use super::backend::Backends;
use super::parents::{self, Attached};
use super::services::Services;
use super::{RouteParts, Translated, turn};
use crate::model::{Backend, BackendRef, NameMatch, StreamKind, StreamRoute};
use crate::source::objects::StreamRule;
use crate::source::{Condition, ConditionReason, ConditionType, Severity};

/// A route of either kind.
pub(in crate::source::translate) struct StreamParts<'a> {
    pub(in crate::source::translate) kind: StreamKind,
    /// Without rules.
    pub(in crate::source::translate) route: RouteParts<'a>,
    pub(in crate::source::translate) rules: &'a [StreamRule],
}

pub(super) fn translate_one(
    cx: &mut Context<'_>,
    services: &Services<'_>,
    parts: &StreamParts<'_>,
) -> Option<Attached> {
    let route = &parts.route;
    let (indexes, parents) = parents::resolve(cx, services, route);
    // Routes of ingress gateways come by here too, and are none of ours.
    if parents.is_empty() {
        return None;
    }
    complain_of_rules(cx, parts);
    let backends = resolve(cx, &Backends { services, route }, parts.rules.first());
    let takes_some = backends.iter().any(|backend| backend.weight > 0);
    if !takes_some {
        let why = "no backend has a weight, so all connections to the parents are closed; name a backend, or delete the route";
        let field = "spec.rules".to_owned();
        cx.complain(Severity::Warning, route.kind, route.key, field, why.to_owned());
    }
    let names: Vec<_> = route.hostnames.iter().map(|name| NameMatch::new(name)).collect();
    if parts.kind == StreamKind::Tls && names.is_empty() {
        let why = "is empty, so no connection matches; list the names of servers (SNI)";
        let field = "spec.hostnames".to_owned();
        cx.complain(Severity::Warning, route.kind, route.key, field, why.to_owned());
    }
    let route = StreamRoute {
        kind: parts.kind,
        key: route.key.clone(),
        created: route.created,
        parents,
        names,
        backends,
        turn: turn(),
        rules: None,
    };
    Some(Attached { route: Translated::Stream(Arc::new(route)), indexes })
}

/// Versions before v1 allow more than one rule, and do not say what they mean.
fn complain_of_rules(cx: &mut Context<'_>, parts: &StreamParts<'_>) {
    let route = &parts.route;
    for index in 1..parts.rules.len() {
        let reason = format!(
            "only the first rule of a {} takes effect; add its backends there, or write another route",
            parts.kind
        );
        let condition =
            Condition::of(ConditionType::PartiallyInvalid, ConditionReason::UnsupportedValue);
        cx.error_of(route.kind, route.key, format!("spec.rules[{index}]"), reason, condition);
    }
}

fn resolve(
    cx: &mut Context<'_>,
    backends: &Backends<'_>,
    rule: Option<&StreamRule>,
) -> Vec<Backend> {
    let written = rule.map_or(&[][..], |rule| &rule.backend_refs);
    let mut resolved = Vec::new();
    for (index, backend) in written.iter().enumerate() {
        let place = format!("spec.rules[0].backendRefs[{index}]");
        let outcome = "its share of the connections is closed";
        let target = backends.target(cx, &place, &backend.object, outcome);
        let target = target.unwrap_or_else(|why| BackendRef::Invalid {
            status: StatusCode::SERVICE_UNAVAILABLE,
            why: why.into(),
        });
        let (weight, filters) = (backend.weight, Vec::new());
        resolved.push(Backend { weight, target, subset: None, filters });
    }
    resolved
}
