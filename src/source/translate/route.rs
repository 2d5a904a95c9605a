//! Routes with Service parents, and with ServiceEntries as such (Gateway API v1; GEP-1294 for the mesh, GEP-1324 for
//! consumer routes; Istio "Traffic management"): what HTTPRoutes and GRPCRoutes share, and with `streams` what TCPRoutes and
//! TLSRoutes do.
//!
//! A rule is kept as it is written or not at all: where a rule says something that we do not carry out, its requests
//! are answered with an error, rather than forwarded as if it did not say it, or given to another rule. That is what
//! the API calls a dropped rule. Parents that cannot be resolved are left out, and the route holds for the others.

mod backend;
mod conflicts;
mod filters;
mod kept;
mod parents;
mod services;
mod session;
mod streams;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::StatusCode;

use super::Context;
use crate::base::ObjectKey;
use crate::filter::{HttpFilter, Manifest, SessionPersistence};
use crate::model::{
    Backend, BackendRef, HttpMatch, HttpRoute, HttpRule, Retry, RouteKind, Timeouts,
};
use crate::source::objects::{GrpcRoute, Kind, ParentRef, RouteBackendRef, Typed, Unsupported};
use crate::source::{Condition, ConditionReason, ConditionType, Topic};
use backend::Backends;
pub(super) use kept::Routes;
pub(super) use parents::{Attached, Translated};
use services::Services;
pub(super) use streams::StreamParts;

/// The range of the offset at which a rule starts to split its traffic: wide enough that two agents seldom start
/// alike, far from overflow.
const TURN_RANGE: u64 = 1 << 32;

/// What the status says, and why.
type Refused = (ConditionReason, String);

/// A route of any kind.
pub(super) struct RouteParts<'a> {
    pub(super) kind: Kind,
    pub(super) key: &'a ObjectKey,
    pub(super) created: i64,
    pub(super) parents: &'a [ParentRef],
    pub(super) hostnames: &'a [String],
    pub(super) rules: Vec<RuleParts<'a>>,
}

/// A rule of either kind.
#[derive(Default)]
pub(super) struct RuleParts<'a> {
    pub(super) name: &'a str,
    /// Not written: it stands for none at all.
    pub(super) made_up: bool,
    /// Never empty.
    pub(super) matches: Vec<HttpMatch>,
    pub(super) filters: &'a [Manifest],
    pub(super) backends: &'a [RouteBackendRef],
    pub(super) timeouts: Timeouts,
    pub(super) retry: Option<Retry>,
    pub(super) session_persistence: Option<SessionPersistence>,
    /// What this kind of route does not have, or we do not carry out.
    pub(super) unsupported: Vec<Unsupported>,
}

/// A part of a rule for which the rule is dropped.
struct Fault {
    /// From the route on.
    field: String,
    reason: ConditionReason,
    why: String,
}

fn translate_one(
    cx: &mut Context<'_>,
    services: &Services<'_>,
    parts: &RouteParts<'_>,
) -> Option<Attached> {
    let (indexes, parents) = parents::resolve(cx, services, parts);
    // Routes of ingress gateways come by here too, and are none of ours.
    if parents.is_empty() {
        return None;
    }
    if !parts.hostnames.is_empty() {
        let reason = "is ignored for Service parents (GEP-1294); match the header Host instead";
        let field = "spec.hostnames".to_owned();
        cx.complain(super::Severity::Warning, parts.kind, parts.key, field, reason.into());
    }
    let kind = parts.route_kind();
    if parts.rules.is_empty() {
        let reason = "is empty: all requests to the parents are answered with UNIMPLEMENTED; add a rule, or delete the route";
        let field = "spec.rules".to_owned();
        cx.complain(super::Severity::Warning, parts.kind, parts.key, field, reason.into());
    }
    complain_of_names(cx, parts);
    let backends = Backends { services, route: parts };
    let mut dropped = Vec::new();
    let mut rules = Vec::new();
    for (index, rule) in parts.rules.iter().enumerate() {
        let place = format!("spec.rules[{index}]");
        rules.push(match filters::faults(kind, rule) {
            faults if faults.is_empty() => {
                complain_of_no_backend(cx, parts, &place, rule);
                complain_of_mirror(cx, parts, &place, rule);
                keep(cx, &backends, &place, rule)
            }
            faults => {
                let why = format!("{}: {}", faults[0].field, faults[0].why);
                let at = |it: Fault| Fault { field: format!("{place}.{}", it.field), ..it };
                dropped.push(faults.into_iter().map(at).collect::<Vec<_>>());
                drop_rule(kind, rule, why)
            }
        });
    }
    complain_of_dropped(cx, parts, dropped);
    let (key, created) = (parts.key.clone(), parts.created);
    let route = HttpRoute { kind, key, created, parents, rules, holds: None };
    Some(Attached { route: Translated::Http(Arc::new(route)), indexes })
}

fn keep(
    cx: &mut Context<'_>,
    backends: &Backends<'_>,
    place: &str,
    rule: &RuleParts<'_>,
) -> HttpRule {
    let mut filters = filters::translate(cx, backends, place, &rule.matches, rule.filters);
    filters.extend(rule.session_persistence.clone().map(HttpFilter::SessionPersistence));
    HttpRule {
        name: rule.name.into(),
        delegate: None,
        matches: rule.matches.clone(),
        filters,
        backends: resolve_all(cx, backends, place, rule),
        timeouts: rule.timeouts,
        retry: rule.retry.clone(),
        turn: turn(),
    }
}

fn resolve_all(
    cx: &mut Context<'_>,
    backends: &Backends<'_>,
    place: &str,
    rule: &RuleParts<'_>,
) -> Vec<Backend> {
    let kind = backends.route.route_kind();
    let outcome = format!("its share of the requests is answered with {}", refusal(kind));
    let mut resolved = Vec::new();
    for (index, backend) in rule.backends.iter().enumerate() {
        let place = format!("{place}.backendRefs[{index}]");
        resolved.push(match backends.target(cx, &place, &backend.object, &outcome) {
            Ok(target) => {
                let filters =
                    filters::translate(cx, backends, &place, &rule.matches, &backend.filters);
                Backend { weight: backend.weight, target, subset: None, filters }
            }
            Err(why) => invalid(kind, backend.weight, why),
        });
    }
    resolved
}

/// Names of rules differ within a route (Gateway API, SectionName). An API server with definitions before 1.7 accepts others.
fn complain_of_names(cx: &mut Context<'_>, parts: &RouteParts<'_>) {
    for (index, rule) in parts.rules.iter().enumerate().filter(|(_, rule)| !rule.name.is_empty()) {
        let same = parts.rules[..index].iter().position(|other| other.name == rule.name);
        let Some(first) = same else { continue };
        let reason = format!(
            "{:?} is the name of rules[{first}] too, so a policy whose sectionName names it applies to both; give each rule a \
             name of its own",
            rule.name
        );
        let field = format!("spec.rules[{index}].name");
        cx.complain(super::Severity::Warning, parts.kind, parts.key, field, reason);
    }
}

/// A rule that forwards nothing and answers nothing itself is right by the API, and seldom meant.
fn complain_of_no_backend(
    cx: &mut Context<'_>,
    parts: &RouteParts<'_>,
    place: &str,
    rule: &RuleParts<'_>,
) {
    if rule.backends.iter().any(|backend| backend.weight > 0) || filters::answers(rule.filters) {
        return;
    }
    let (field, why) = match (rule.made_up, rule.backends) {
        (true, _) => ("spec.rules".to_owned(), "is empty, so the route has no backend"),
        (_, []) => (format!("{place}.backendRefs"), "is empty"),
        _ => (format!("{place}.backendRefs"), "all have the weight 0"),
    };
    let reason = format!(
        "{why}: all requests that match are answered with {}; name a backend, or delete the {}",
        refusal(parts.route_kind()),
        if rule.made_up { "route" } else { "rule" },
    );
    cx.complain(super::Severity::Warning, parts.kind, parts.key, field, reason);
    cx.about(Topic::NoBackend);
}

/// Mirrors get their copies before the destination has an authorizer asked.
fn complain_of_mirror(
    cx: &mut Context<'_>,
    parts: &RouteParts<'_>,
    place: &str,
    rule: &RuleParts<'_>,
) {
    let backends = rule.backends.iter().flat_map(|backend| &backend.filters);
    let mut all = rule.filters.iter().chain(backends);
    if filters::asks(rule.filters) && all.any(|it| matches!(it, Manifest::Mirror(_))) {
        let reason = "has a RequestMirror beside an ExternalAuth: requests are not mirrored, because copies would leave before the \
                      authorizer is asked; mirror them in a route of the Service behind";
        let field = format!("{place}.filters");
        cx.complain(super::Severity::Warning, parts.kind, parts.key, field, reason.into());
    }
}

/// Answers all requests of the rule with an error. The destination knows of errors no more than of backends, but has authorizers
/// asked, whichever way a request comes: so it must know that there was to be one.
fn drop_rule(kind: RouteKind, rule: &RuleParts<'_>, why: String) -> HttpRule {
    HttpRule {
        name: rule.name.into(),
        matches: rule.matches.clone(),
        filters: filters::authorizer_of(rule.filters).into_iter().collect(),
        backends: vec![invalid(kind, 1, why)],
        turn: turn(),
        ..HttpRule::default()
    }
}

/// A route with no good rule left is not accepted; one with good and bad rules is partially invalid (RouteConditionType).
fn complain_of_dropped(cx: &mut Context<'_>, parts: &RouteParts<'_>, dropped: Vec<Vec<Fault>>) {
    let all = dropped.len() == parts.rules.len();
    let condition = if all { ConditionType::Accepted } else { ConditionType::PartiallyInvalid };
    let answer = refusal(parts.route_kind());
    for Fault { field, reason, why } in dropped.into_iter().flatten() {
        let reason_text = format!("{why}; requests that match the rule are answered with {answer}");
        cx.error_of(parts.kind, parts.key, field, reason_text, Condition::of(condition, reason));
    }
}

impl RouteParts<'_> {
    fn route_kind(&self) -> RouteKind {
        if self.kind == GrpcRoute::KIND { RouteKind::Grpc } else { RouteKind::Http }
    }
}

/// What requests without a usable backend are answered with (HTTPBackendRef, GRPCBackendRef).
fn refusal(kind: RouteKind) -> &'static str {
    match kind {
        RouteKind::Http => "status 500",
        RouteKind::Grpc => "UNAVAILABLE",
        RouteKind::Virtual => "status 503",
    }
}

fn invalid(kind: RouteKind, weight: u32, why: String) -> Backend {
    let status = match kind {
        RouteKind::Http => StatusCode::INTERNAL_SERVER_ERROR,
        RouteKind::Grpc | RouteKind::Virtual => StatusCode::SERVICE_UNAVAILABLE,
    };
    let target = BackendRef::Invalid { status, why: why.into() };
    Backend { weight, target, subset: None, filters: Vec::new() }
}

/// Where a rule begins to split its traffic.
pub(super) fn turn() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(fastrand::u64(..TURN_RANGE)))
}
