//! A request's way through the client's half, in reading order: canonical form, budget, plan, record, filters, and on
//! to an endpoint ([`forward`](super::forward)).
//!
//! Routes and policies see the request as the client sent it; filters come after.

use std::sync::Arc;

use http::header::ORIGIN;
use http::{Request, Response};
use hyper::body::Incoming;

use super::arrived::Arrived;
use super::body::ResponseBody;
use super::exchange::Exchange;
use super::forward::Way;
use super::outbound::Outbound;
use super::plan::{self, Plan, Refusal};
use super::respond::Answer;
use super::{headers, mirror, sent};
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
    let permit = arrived.admit(&session.seat);
    let full = permit.as_ref().err().map(|full| session.seat.share().why(*full));
    let world = session.context.dependencies.world.snapshot();
    let mut planned = decide(&session, &world, &arrived, full);
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
    let mut exchange = Exchange::new(record, arrived.request.body().uploaded(), permit.ok());
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
    let filters = plan.filters();
    let asked = filters.iter().any(|filters| route::asks_for_origin(filters));
    let origin = arrived.request.headers().get(ORIGIN).filter(|_| asked).cloned();
    let before = sent::filter(filters, &mut arrived.request);
    mirror::send_copies(&session, &world, &plan, before.as_deref(), &mut arrived);
    Way { session, world, plan, before, origin }.forward(arrived, first, exchange).await
}

fn decide(
    session: &Outbound,
    world: &World,
    arrived: &Arrived,
    full: Option<String>,
) -> Result<Plan, Refusal> {
    if let Some(why) = full {
        return Err(Answer::overflow(why).into());
    }
    if let Some(fault) = arrived.fault {
        return Err(Answer::bad_request(fault).into());
    }
    let request = &arrived.request;
    let head = sent::head(request.method(), request.uri(), request.headers());
    let namespace = &session.client.key.namespace;
    plan::plan(world, &session.service, session.dialled.port(), namespace, &head)
}
