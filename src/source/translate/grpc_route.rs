//! GRPCRoutes, as what all routes share ([`super::route`]).

use super::route::{RouteParts, RuleParts};
use crate::base::ObjectKey;
use crate::model::{HttpMatch, PathMatch};
use crate::source::objects::{GrpcRoute, GrpcRouteRule, Typed, created};

pub(super) fn parts<'a>(key: &'a ObjectKey, route: &'a GrpcRoute) -> RouteParts<'a> {
    RouteParts {
        kind: GrpcRoute::KIND,
        key,
        created: created(&route.metadata),
        parents: &route.spec.parent_refs,
        hostnames: &route.spec.hostnames,
        rules: route.spec.rules.iter().map(rule).collect(),
    }
}

/// A rule without matches takes every request of gRPC (Gateway API, GRPCRouteRule).
fn rule(rule: &GrpcRouteRule) -> RuleParts<'_> {
    let mut matches: Vec<HttpMatch> = rule.matches.iter().map(|it| it.0.clone()).collect();
    if matches.is_empty() {
        let path = PathMatch::Grpc { service: None, method: None };
        matches.push(HttpMatch { path, ..HttpMatch::default() });
    }
    let mut parts = RuleParts {
        name: &rule.name,
        matches,
        filters: &rule.filters,
        backends: &rule.backend_refs,
        ..RuleParts::default()
    };
    parts.read_sessions(&rule.session_persistence);
    parts
}
