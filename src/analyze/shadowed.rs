//! Matches of routes that are never reached, because others take all of their requests before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::code::Code;
use super::finding::Finding;
use super::snapshot::Snapshot;
use crate::base::{ObjectKey, Regex, Str};
use crate::model::{HttpMatch, HttpRoute, PathMatch, RouteKind, TextMatch};
use crate::rules::{Matched, by_precedence, covers};
use crate::source::objects::{GrpcRoute, HttpRoute as HttpRouteObject, VirtualService};

/// Matches of one service that are compared with each other: every one with every other.
const MOST: usize = 2_000;

pub(super) fn find(cx: &Snapshot<'_>, found: &mut Vec<Finding>) {
    for kind in [RouteKind::Http, RouteKind::Grpc] {
        for ((_, service), routes) in by_service(cx, kind) {
            of_service(cx, found, service, &routes);
        }
    }
    let mut told = BTreeSet::new();
    for route in cx.mesh.routes.iter().filter(|it| it.kind == RouteKind::Virtual) {
        of_virtual_service(cx, found, route, &mut told);
    }
}

type Routes = Vec<Arc<HttpRoute>>;

/// Routes of one kind, by their namespace and a service that they are for.
fn by_service<'a>(
    cx: &Snapshot<'a>,
    kind: RouteKind,
) -> BTreeMap<(&'a Str, &'a ObjectKey), Routes> {
    let mut all: BTreeMap<(&Str, &ObjectKey), Routes> = BTreeMap::new();
    for route in cx.mesh.routes.iter().filter(|it| it.kind == kind) {
        let services: BTreeSet<&ObjectKey> = route.parents.iter().map(|it| &it.service).collect();
        for service in services {
            all.entry((&route.key.namespace, service)).or_default().push(route.clone());
        }
    }
    all
}

fn of_service(
    cx: &Snapshot<'_>,
    found: &mut Vec<Finding>,
    service: &ObjectKey,
    routes: &[Arc<HttpRoute>],
) {
    let places: Vec<Matched> = by_precedence(routes).into_iter().take(MOST).collect();
    let get = |at: &Matched| {
        let route = routes.get(at.route)?;
        Some((route, route.rules.get(at.rule)?.matches.get(at.number)?))
    };
    for (rank, place) in places.iter().enumerate() {
        let Some((route, matched)) = get(place) else { continue };
        let takes_all = |at: &&Matched| {
            // Two matches of one rule do the same.
            (at.route, at.rule) != (place.route, place.rule)
                && get(at).is_some_and(|(other, wide)| {
                    is_wherever(service, other, route) && covers(wide, matched)
                })
        };
        let Some(before) = places[..rank].iter().find(takes_all) else { continue };
        let Some((other, wide)) = get(before) else { continue };
        found.push(of_match(cx, service, (route, *place, matched), (other, *before, wide)));
    }
}

/// Whether the first route is on every port of the service that the second one is on.
fn is_wherever(service: &ObjectKey, one: &HttpRoute, other: &HttpRoute) -> bool {
    let ports = |route: &HttpRoute| {
        let here = route.parents.iter().filter(|parent| parent.service == *service);
        here.map(|parent| parent.port).collect::<Vec<_>>()
    };
    let has = ports(one);
    has.contains(&None) || ports(other).iter().all(|port| has.contains(port))
}

type Of<'a> = (&'a HttpRoute, Matched, &'a HttpMatch);

fn of_match(
    cx: &Snapshot<'_>,
    service: &ObjectKey,
    (route, at, matched): Of<'_>,
    (other, before, wide): Of<'_>,
) -> Finding {
    let foreign = route.key != other.key;
    let code = match foreign && covers(matched, wide) {
        true => Code::Outdone,
        false => Code::NeverReached,
    };
    let whose = match foreign {
        true => format!(" of the {} {}", other.kind, other.key),
        false => String::new(),
    };
    let message = format!(
        "{}: rules[{}]{whose} ({}) takes precedence at {service} and takes all of these requests",
        in_words(matched),
        before.rule,
        in_words(wide)
    );
    let field = match route.rules.get(at.rule).map_or(0, |rule| rule.matches.len()) {
        1 => format!("spec.rules[{}]", at.rule),
        _ => format!("spec.rules[{}].matches[{}]", at.rule, at.number),
    };
    match route.kind {
        RouteKind::Grpc => Finding::of::<GrpcRoute>(cx.objects, &route.key, code, field, message),
        RouteKind::Http | RouteKind::Virtual => {
            Finding::of::<HttpRouteObject>(cx.objects, &route.key, code, field, message)
        }
    }
}

/// Its first match holds. `told`: what was found already, since one becomes a route for each port.
fn of_virtual_service(
    cx: &Snapshot<'_>,
    found: &mut Vec<Finding>,
    route: &HttpRoute,
    told: &mut BTreeSet<(ObjectKey, String)>,
) {
    let matches = |rule: usize| route.rules.get(rule).map_or(&[][..], |rule| &rule.matches);
    for index in 0..route.rules.len().min(MOST) {
        let Some(rule) = route.rules.get(index) else { continue };
        for matched in matches(index) {
            let before = (0..index).find_map(|at| {
                let wide = matches(at).iter().find(|wide| covers(wide, matched))?;
                Some((route.rules.get(at)?, wide))
            });
            let Some((earlier, wide)) = before else { continue };
            let name = |name: &str| match name {
                "" => String::new(),
                name => format!(" of the rule {name:?}"),
            };
            let message = format!(
                "the match {}{} is never reached: the match {}{} stands before it and takes all of these requests",
                in_words(matched),
                name(&rule.name),
                in_words(wide),
                name(&earlier.name)
            );
            if told.insert((route.key.clone(), message.clone())) {
                let (key, code, field) = (&route.key, Code::NeverReached, "spec.http");
                found.push(Finding::of::<VirtualService>(cx.objects, key, code, field, message));
            }
        }
    }
}

fn in_words(matched: &HttpMatch) -> String {
    let mut parts = vec![path(&matched.path)];
    parts.extend(matched.method.iter().map(|method| format!("method {method}")));
    parts.extend(matched.headers.iter().map(|it| format!("header {}", it.name)));
    parts.extend(matched.query.iter().map(|(name, _)| format!("query {name}")));
    let more = matched.more.as_ref();
    parts.extend(more.map(|_| "other conditions".to_owned()));
    parts.join(", ")
}

fn path(path: &PathMatch) -> String {
    let text = |text: &Option<TextMatch>| match text {
        None => "*".to_owned(),
        Some(TextMatch::Exact(text)) => text.to_string(),
        Some(TextMatch::Prefix(text)) => format!("{text}*"),
        Some(TextMatch::Regex(regex)) => format!("~{}", written(regex)),
    };
    match path {
        PathMatch::Exact(text) | PathMatch::ExactAnyCase(text) => format!("path {text}"),
        PathMatch::Prefix(text) if text.as_str() == "/" => "any path".to_owned(),
        PathMatch::Prefix(text) => format!("path {text}/*"),
        PathMatch::Starts(text) | PathMatch::StartsAnyCase(text) => format!("path {text}*"),
        PathMatch::Regex(regex) => format!("path ~{}", written(regex)),
        PathMatch::Grpc { service, method } => {
            format!("service {}, method {}", text(service), text(method))
        }
    }
}

/// As it stands in the object.
fn written(regex: &Regex) -> &str {
    let text = regex.as_str();
    text.strip_prefix("^(?:").and_then(|text| text.strip_suffix(")$")).unwrap_or(text)
}
