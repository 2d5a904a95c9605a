//! HTTPRoutes, as what all routes share ([`super::route`]).

use super::route::{RouteParts, RuleParts};
use crate::base::ObjectKey;
use crate::model::HttpMatch;
use crate::source::objects::{HttpRoute, HttpRouteRule, Typed, created};

pub(super) fn parts<'a>(key: &'a ObjectKey, route: &'a HttpRoute) -> RouteParts<'a> {
    RouteParts {
        kind: HttpRoute::KIND,
        key,
        created: created(&route.metadata),
        parents: &route.spec.parent_refs,
        hostnames: &route.spec.hostnames,
        rules: rules(&route.spec.rules),
    }
}

/// A route without rules has one that takes everything (Gateway API, HTTPRouteSpec).
fn rules(rules: &[HttpRouteRule]) -> Vec<RuleParts<'_>> {
    if rules.is_empty() {
        let matches = vec![HttpMatch::default()];
        return vec![RuleParts { made_up: true, matches, ..RuleParts::default() }];
    }
    rules.iter().map(rule).collect()
}

fn rule(rule: &HttpRouteRule) -> RuleParts<'_> {
    let mut matches: Vec<HttpMatch> = rule.matches.iter().map(|it| it.0.clone()).collect();
    if matches.is_empty() {
        matches.push(HttpMatch::default());
    }
    let mut parts = RuleParts {
        name: &rule.name,
        matches,
        filters: &rule.filters,
        backends: &rule.backend_refs,
        ..RuleParts::default()
    };
    match rule.timeouts.as_ref().map(|it| it.read()).transpose() {
        Ok(timeouts) => parts.timeouts = timeouts.unwrap_or_default(),
        Err(unsupported) => parts.unsupported.push(unsupported),
    }
    match rule.retry.as_ref().map(|it| it.read()).transpose() {
        Ok(retry) => parts.retry = retry,
        Err(unsupported) => parts.unsupported.push(unsupported),
    }
    parts.read_sessions(&rule.session_persistence);
    parts
}
