//! Filters of a rule, and what makes a rule one that cannot be carried out.

use super::super::Context;
use super::backend::Backends;
use super::{Fault, RuleParts, turn};
use crate::base::Str;
use crate::model::{
    HttpFilter, HttpMatch, Mirror, PathMatch, PathRewrite, Redirect, Rewrite, RouteKind,
};
use crate::source::ConditionReason;
use crate::source::objects::{PathModifier, RouteFilter, Unsupported};

/// Why the rule is dropped; fields are relative to the rule.
pub(super) fn faults(kind: RouteKind, rule: &RuleParts<'_>) -> Vec<Fault> {
    let mut faults: Vec<Fault> = rule.unsupported.iter().map(unsupported).collect();
    of_list(kind, "filters", rule.filters, &rule.matches, &mut faults);
    if answers(rule.filters) && !rule.backends.is_empty() {
        let why = "stands beside a RequestRedirect, which never forwards".to_owned();
        let reason = ConditionReason::IncompatibleFilters;
        faults.push(Fault { field: "backendRefs".to_owned(), reason, why });
    }
    for (index, backend) in rule.backends.iter().enumerate() {
        let place = format!("backendRefs[{index}].filters");
        of_list(kind, &place, &backend.filters, &rule.matches, &mut faults);
    }
    faults
}

/// A filter answers each request itself.
pub(super) fn answers(filters: &[RouteFilter]) -> bool {
    filters.iter().any(|filter| matches!(filter, RouteFilter::Redirect(_)))
}

fn unsupported(it: &Unsupported) -> Fault {
    let Unsupported { field, why } = it.clone();
    Fault { field, reason: ConditionReason::UnsupportedValue, why }
}

fn of_list(
    kind: RouteKind,
    place: &str,
    filters: &[RouteFilter],
    matches: &[HttpMatch],
    faults: &mut Vec<Fault>,
) {
    for (index, filter) in filters.iter().enumerate() {
        let place = format!("{place}[{index}]");
        let mut fault = |field: &str, reason, why: String| {
            faults.push(Fault { field: format!("{place}.{field}"), reason, why });
        };
        let name = name(filter);
        if let RouteFilter::Unsupported(Unsupported { field, why }) = filter {
            fault(field, ConditionReason::UnsupportedValue, why.clone());
            continue;
        }
        if kind == RouteKind::Grpc && !is_for_grpc(filter) {
            let why = format!("{name:?} is not a filter of GRPCRoutes");
            fault("type", ConditionReason::UnsupportedValue, why);
        }
        let others = &filters[..index];
        if !matches!(filter, RouteFilter::Mirror(_)) && others.iter().any(|it| same(it, filter)) {
            let why = format!("a second {name} is not possible");
            fault("type", ConditionReason::IncompatibleFilters, why);
        }
        if others.iter().any(|it| exclude_each_other(it, filter)) {
            let why = "RequestRedirect and URLRewrite exclude each other".to_owned();
            fault("type", ConditionReason::IncompatibleFilters, why);
        }
        if matches!(path(filter), Some(PathModifier::Prefix(_))) && prefix(matches).is_none() {
            let why = "ReplacePrefixMatch needs a rule with exactly one match, of type PathPrefix";
            fault("path", ConditionReason::UnsupportedValue, why.to_owned());
        }
    }
}

fn name(filter: &RouteFilter) -> &'static str {
    match filter {
        RouteFilter::RequestHeaders(_) => "RequestHeaderModifier",
        RouteFilter::ResponseHeaders(_) => "ResponseHeaderModifier",
        RouteFilter::Redirect(_) => "RequestRedirect",
        RouteFilter::Rewrite(_) => "URLRewrite",
        RouteFilter::Mirror(_) => "RequestMirror",
        RouteFilter::Cors(_) => "CORS",
        RouteFilter::Unsupported(_) => "",
    }
}

fn same(one: &RouteFilter, other: &RouteFilter) -> bool {
    name(one) == name(other)
}

fn is_for_grpc(filter: &RouteFilter) -> bool {
    !matches!(filter, RouteFilter::Redirect(_) | RouteFilter::Rewrite(_) | RouteFilter::Cors(_))
}

fn exclude_each_other(one: &RouteFilter, other: &RouteFilter) -> bool {
    matches!(
        (one, other),
        (RouteFilter::Redirect(_), RouteFilter::Rewrite(_))
            | (RouteFilter::Rewrite(_), RouteFilter::Redirect(_))
    )
}

fn path(filter: &RouteFilter) -> Option<&PathModifier> {
    match filter {
        RouteFilter::Redirect(redirect) => redirect.path.as_ref(),
        RouteFilter::Rewrite(rewrite) => rewrite.path.as_ref(),
        _ => None,
    }
}

/// The prefix by which a rule matches, without a slash at its end.
fn prefix(matches: &[HttpMatch]) -> Option<Str> {
    match matches {
        [HttpMatch { path: PathMatch::Prefix(prefix), .. }] => {
            Some(prefix.trim_end_matches('/').into())
        }
        _ => None,
    }
}

/// Filters without a fault, of a rule or of a backend. A mirror that leads nowhere is left out, and said so.
pub(super) fn translate(
    cx: &mut Context<'_>,
    backends: &Backends<'_>,
    place: &str,
    matches: &[HttpMatch],
    filters: &[RouteFilter],
) -> Vec<HttpFilter> {
    let prefix = prefix(matches).unwrap_or_default();
    let path = |modifier: &PathModifier| match modifier {
        PathModifier::Full(full) => PathRewrite::Full(full.clone()),
        PathModifier::Prefix(with) => {
            PathRewrite::Prefix { prefix: prefix.clone(), with: with.clone() }
        }
    };
    let mut translated = Vec::new();
    for (index, filter) in filters.iter().enumerate() {
        translated.push(match filter {
            RouteFilter::RequestHeaders(filter) => HttpFilter::RequestHeaders(filter.clone()),
            RouteFilter::ResponseHeaders(filter) => HttpFilter::ResponseHeaders(filter.clone()),
            RouteFilter::Redirect(filter) => HttpFilter::Redirect(Redirect {
                scheme: filter.scheme.clone(),
                hostname: filter.hostname.clone(),
                path: filter.path.as_ref().map(path),
                port: filter.port,
                status: filter.status,
            }),
            RouteFilter::Rewrite(filter) => HttpFilter::Rewrite(Rewrite {
                hostname: filter.hostname.clone(),
                path: filter.path.as_ref().map(path),
            }),
            RouteFilter::Cors(cors) => HttpFilter::Cors(cors.clone()),
            RouteFilter::Mirror(mirror) => {
                let place = format!("{place}.filters[{index}].requestMirror.backendRef");
                match backends.target(cx, &place, &mirror.backend, "nothing is mirrored to it") {
                    Ok(target) => {
                        HttpFilter::Mirror(Mirror { target, share: mirror.share, turn: turn() })
                    }
                    Err(_) => continue,
                }
            }
            RouteFilter::Unsupported(_) => continue,
        });
    }
    translated
}
