//! HTTPRoutes beside GRPCRoutes: on one port of a Service only the GRPCRoutes of a namespace hold (GEP-1294, "Route
//! types"). Which route holds is decided for each request; here its author is told.

use super::super::Context;
use super::parents::Attached;
use crate::model::RouteParent;
use crate::source::objects::{HttpRoute, Typed};
use crate::source::{Condition, ConditionReason, ConditionType, Severity};

/// Of the routes of one namespace.
pub(super) fn complain(cx: &mut Context<'_>, http: &[Attached], grpc: &[Attached]) {
    for loser in http {
        for (index, parent) in loser.indexes.iter().zip(&loser.route.parents) {
            let rival = grpc.iter().find_map(|other| {
                let taken = other.route.parents.iter().find(|it| overlap(it, parent));
                taken.map(|taken| (other, taken))
            });
            let Some((winner, taken)) = rival else { continue };
            let field = format!("spec.parentRefs[{index}]");
            let (key, winner, service) = (&loser.route.key, &winner.route.key, &parent.service);
            match (taken.port, parent.port) {
                (Some(port), None) => {
                    let reason = format!(
                        "the GRPCRoute {winner} holds for port {port} of {service}, and this route for the other ports"
                    );
                    cx.complain(Severity::Warning, HttpRoute::KIND, key, field, reason);
                }
                _ => {
                    let reason = format!(
                        "the GRPCRoute {winner} holds there, and of both kinds only GRPCRoutes do; this route has no \
                         effect on {service}"
                    );
                    let condition = Condition::of_parent(
                        ConditionType::Accepted,
                        ConditionReason::Conflicted,
                        *index,
                    );
                    cx.error_of(HttpRoute::KIND, key, field, reason, condition);
                }
            }
        }
    }
}

fn overlap(one: &RouteParent, other: &RouteParent) -> bool {
    one.service == other.service
        && (one.port.is_none() || other.port.is_none() || one.port == other.port)
}
