//! Routes of several kinds on one port of a Service: of those of a namespace only the most specific kind holds (GEP-1294, "Route
//! types"): GRPCRoutes, then HTTPRoutes, TLSRoutes, TCPRoutes. Of several TCPRoutes the oldest holds. Which route holds is decided for
//! each request or connection; here its author is told.

use std::cmp::Ordering;

use super::super::Context;
use super::parents::{Attached, Translated};
use super::services::Services;
use crate::base::ObjectKey;
use crate::model::{AppProtocol, RouteKind, RouteParent, Service, StreamKind};
use crate::source::objects::Kind;
use crate::source::{Condition, ConditionReason, ConditionType, Severity, Topic};

/// Of the routes of one namespace.
pub(super) fn complain(cx: &mut Context<'_>, services: &Services<'_>, routes: &[Attached]) {
    let contested = routes.iter().any(|it| kind(it) != Kind::HTTPRoute) && routes.len() > 1;
    for loser in routes.iter().filter(|_| contested) {
        for (index, parent) in loser.indexes.iter().zip(loser.route.parents()) {
            let Some(service) = services.get(&parent.service) else { continue };
            complain_of(cx, service, (loser, *index, parent), routes);
        }
    }
}

/// One parent of a route.
fn complain_of(
    cx: &mut Context<'_>,
    service: &Service,
    (loser, index, parent): (&Attached, usize, &RouteParent),
    routes: &[Attached],
) {
    let ports: Vec<u16> = ports_of(parent, service).collect();
    let winner_on = |port: u16| {
        let winners = routes.iter().filter(|it| is_on(it, service, port) && beats(it, loser));
        winners.reduce(|best, other| if beats(other, best) { other } else { best })
    };
    let taken: Vec<(u16, &Attached)> =
        ports.iter().filter_map(|port| Some((*port, winner_on(*port)?))).collect();
    let Some((_, winner)) = taken.first() else { return };
    let (kind, field) = (kind(loser), format!("spec.parentRefs[{index}]"));
    let winning = format!("the {} {}", self::kind(winner).name(), key(winner));
    if taken.len() < ports.len() {
        let taken: Vec<String> = taken.iter().map(|(port, _)| port.to_string()).collect();
        let reason = format!(
            "{winning} holds for port {} of {}, and this route for the other ports",
            taken.join(", "),
            parent.service
        );
        cx.complain(Severity::Warning, kind, key(loser), field, reason);
        return cx.about(Topic::Outdone);
    }
    let rule = match self::kind(winner) == kind {
        true => format!("and of several {}s only the oldest does", kind.name()),
        false => format!("and of both kinds only {}s do", self::kind(winner).name()),
    };
    let service = &parent.service;
    let reason = format!("{winning} holds there, {rule}; this route has no effect on {service}");
    let condition =
        Condition::of_parent(ConditionType::Accepted, ConditionReason::Conflicted, index);
    cx.error_of(kind, key(loser), field, reason, condition);
    cx.about(Topic::Outdone);
}

fn ports_of<'a>(parent: &RouteParent, service: &'a Service) -> impl Iterator<Item = u16> + use<'a> {
    let wanted = parent.port;
    let ports = service.ports.iter().map(|port| port.port);
    ports.filter(move |port| wanted.is_none_or(|wanted| wanted == *port))
}

/// Routes of requests are on no port that is said to speak something else.
fn is_on(route: &Attached, service: &Service, port: u16) -> bool {
    let protocol = service.port(port).map(|it| it.protocol);
    if matches!(route.route, Translated::Http(_)) && protocol == Some(AppProtocol::Tcp) {
        return false;
    }
    let mut here = route.route.parents().iter().filter(|parent| parent.service == service.key);
    here.any(|parent| parent.port.is_none_or(|wanted| wanted == port))
}

/// Whether `one` takes a port from `other`.
fn beats(one: &Attached, other: &Attached) -> bool {
    match rank(one).cmp(&rank(other)) {
        Ordering::Greater => true,
        Ordering::Less => false,
        Ordering::Equal => match (&one.route, &other.route) {
            (Translated::Stream(one), Translated::Stream(other)) if one.kind == StreamKind::Tcp => {
                one.seniority() < other.seniority()
            }
            _ => false,
        },
    }
}

fn rank(route: &Attached) -> u8 {
    match kind(route) {
        Kind::GRPCRoute => 3,
        Kind::HTTPRoute => 2,
        Kind::TLSRoute => 1,
        _ => 0,
    }
}

fn kind(route: &Attached) -> Kind {
    match &route.route {
        Translated::Http(route) => match route.kind {
            RouteKind::Http => Kind::HTTPRoute,
            RouteKind::Grpc => Kind::GRPCRoute,
            RouteKind::Virtual => Kind::VirtualService,
        },
        Translated::Stream(route) => match route.kind {
            StreamKind::Tcp => Kind::TCPRoute,
            StreamKind::Tls => Kind::TLSRoute,
            StreamKind::Virtual => Kind::VirtualService,
        },
    }
}

fn key(route: &Attached) -> &ObjectKey {
    match &route.route {
        Translated::Http(route) => &route.key,
        Translated::Stream(route) => &route.key,
    }
}
