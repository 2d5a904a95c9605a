//! A request's way through the client's half, in reading order: canonical form, budget, plan, record, filters, and on
//! to an endpoint ([`forward`](super::forward)).
//!
//! Routes and policies see the request as the client sent it; filters come after.

use std::sync::Arc;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{Method, Request, Response};
use hyper::body::Incoming;

use super::arrived::Arrived;
use super::body::ResponseBody;
use super::exchange::{Exchange, Place};
use super::forward::Way;
use super::outbound::Outbound;
use super::plan::{self, Plan, Refusal};
use super::respond::Answer;
use super::server::Handler;
use super::{headers, mirror, sent};
use crate::policy::{Connection, Gate};
use crate::route;
use crate::world::World;

/// Routes one request and answers it.
pub(super) async fn route(
    session: Arc<Outbound>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let mut arrived =
        Arrived::new(request, &session.context, session.dialled, session.most_fields());
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
    let place = Place::of(permit, &session.seat, arrived.version);
    let mut exchange = Exchange::new(record, arrived.request.body(), place);
    exchange.record.headers(arrived.request.headers());
    let plan = match planned {
        Ok(plan) => plan,
        Err(Refusal { answer, chosen, notes }) => {
            exchange.record.notes(notes);
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
        return Err(Answer::fault(fault).into());
    }
    let request = &arrived.request;
    let head = sent::head(request.method(), request.uri(), request.headers());
    let namespace = &session.client.key.namespace;
    let planned = plan::plan(world, &session.service, session.dialled.port(), namespace, &head);
    planned.map_err(|refusal| heard(session, world, &arrived.request, refusal))
}

/// What the client may hear of an answer that no application gives: redirects, what CORS says, and that no route or backend
/// is there tell what a service has. No destination judges these requests, so this half does, by the policies of the
/// service and its waypoint, on what the client sent; Envoy too comes to RBAC before CORS and the router. Browsers ask for
/// leave without the headers and by another method than those of the request that they announce, so either may be
/// permitted.
fn heard<B>(
    session: &Outbound,
    world: &World,
    request: &Request<B>,
    mut refusal: Refusal,
) -> Refusal {
    let service = world.service(&session.service);
    let Some(service) = service.filter(|service| service.waypoint.waypoint().is_some()) else {
        return refusal;
    };
    let gate = Gate::for_service(world, service, session.dialled.port());
    let connection = Connection {
        client: Some(&session.client.identity),
        source: session.client_address.ip(),
        destination: service.an_endpoint(session.dialled),
    };
    let judge = |method: &Method| {
        let judged = sent::policy_request(method, request.uri(), request.headers());
        gate.authorize(&connection, Some(&judged))
    };
    let announced = Some(request.headers()).filter(|_| request.method() == Method::OPTIONS);
    let announced = announced.and_then(|it| it.get(ACCESS_CONTROL_REQUEST_METHOD));
    let announced = announced.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
    let asked = judge(request.method());
    let judged = asked.or_else(|denial| announced.map_or(Err(denial), |method| judge(&method)));
    match judged {
        Ok(permit) => refusal.notes = permit.notes,
        Err(denial) => {
            refusal.answer = Answer::of_denial(&denial);
            refusal.notes = denial.notes;
        }
    }
    refusal
}
