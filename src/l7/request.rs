//! A request's way through the client's half, in reading order: canonical form, budget, plan, record, filters, and on
//! to an endpoint ([`forward`](super::forward)).
//!
//! Routes and policies see the request as the client sent it; filters come after.

use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;

use super::arrived::{self, Arrived};
use super::body::ResponseBody;
use super::exchange::Exchange;
use super::forward::Way;
use super::headers;
use super::outbound::Outbound;
use super::plan::{self, Plan, Refusal};
use super::respond::Answer;
use crate::route;
use crate::world::World;

/// Routes one request and answers it.
pub(super) async fn route(
    session: Arc<Outbound>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let mut arrived = Arrived::new(request);
    headers::strip_internal(arrived.request.headers_mut());
    headers::add_missing(arrived.request.headers_mut());
    let form = arrived.form;
    let permit = session.context.budgets.request(arrived.version);
    let world = session.context.dependencies.world.snapshot();
    let mut planned = decide(&session, &world, &arrived, permit.is_some());
    if let Ok(plan) = &mut planned {
        match session.resolve(&plan.backend.0).await {
            Ok(resolved) => plan.backend.0 = resolved,
            Err(answer) => planned = Err(answer.into()),
        }
    }
    // The endpoint is chosen before the record begins, which tells whether mutual TLS leads there.
    let first = planned
        .as_ref()
        .ok()
        .and_then(|plan| plan.endpoint(&world, session.caller(), session.dialled, &[]));
    let start = arrived.describe(session.request_start(first.as_ref()));
    let record = session.context.dependencies.telemetry.request(start);
    let mut exchange = Exchange::new(record, arrived.request.body().uploaded(), permit);
    exchange.record.headers(arrived.request.headers());
    let plan = match planned {
        Ok(plan) => plan,
        Err(Refusal { answer, chosen }) => {
            exchange.record.route(chosen.map(|chosen| chosen.name()).unwrap_or_default());
            return answer.respond(exchange, form);
        }
    };
    if let Some(chosen) = &plan.chosen {
        exchange.record.route(chosen.name());
    }
    let before = filter(&plan, &mut arrived);
    Way { session, world, plan, before }.forward(arrived, first, exchange).await
}

fn decide(
    session: &Outbound,
    world: &World,
    arrived: &Arrived,
    permitted: bool,
) -> Result<Plan, Refusal> {
    if !permitted {
        let why = "the namespace's worker has no budget left for requests ([layer7] max_requests, max_buffered_bytes)";
        return Err(Answer::overflow(why).into());
    }
    if let Some(fault) = arrived.fault {
        return Err(Answer::bad_request(fault).into());
    }
    let head = arrived::head(&arrived.request, arrived.request.headers());
    let namespace = &session.client.key.namespace;
    plan::plan(world, &session.service, session.dialled.port(), namespace, &head)
}

/// Applies the rule's request filters; returns the headers as they were, when these changed anything.
fn filter(plan: &Plan, arrived: &mut Arrived) -> Option<HeaderMap> {
    let rule = plan.rule().filter(|rule| !rule.filters.is_empty())?;
    let before = arrived.request.headers().clone();
    let changed = route::filter_request(rule, arrived.request.headers_mut());
    // A filter may neither speak for the agent, nor leave the request without the host that HTTP/1.1 demands.
    headers::strip_internal(arrived.request.headers_mut());
    headers::keep_host(arrived.request.headers_mut(), &before);
    changed.then_some(before)
}
