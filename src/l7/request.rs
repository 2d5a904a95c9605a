//! A request's way through the client's half, in reading order: canonical form, budget, record, plan, filters, and on
//! to an endpoint ([`forward`](super::forward)).
//!
//! Routes and policies see the request as the client sent it; filters come after.

use std::sync::Arc;

use http::header::ACCESS_CONTROL_REQUEST_METHOD;
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;

use super::arrived::Arrived;
use super::body::ResponseBody;
use super::exchange::{Exchange, Place};
use super::forward::Way;
use super::outbound::Outbound;
use super::plan::{self, Plan};
use super::respond::Answer;
use super::sent::Sent;
use super::server::Handler;
use super::{headers, mirror, sent};
use crate::balance::Picked;
use crate::base::PolicyNote;
use crate::filter::{self, Cx, Flow, Half, HttpFilter, RequestHead, Waited};
use crate::model::Service;
use crate::policy::{Connection, Gate};
use crate::reach::Attempts;
use crate::world::World;

/// A request that goes nowhere.
struct Refusal {
    answer: Answer,
    /// What policies that decide nothing have to say.
    notes: Vec<PolicyNote>,
}

impl From<Answer> for Refusal {
    fn from(answer: Answer) -> Self {
        Self { answer, notes: Vec::new() }
    }
}

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
    let start = arrived.describe(session.request_start());
    let record = session.context.dependencies.telemetry.request(start);
    let place = Place::of(permit, &session.seat, arrived.version);
    let mut exchange = Exchange::new(record, arrived.request.body(), place);
    exchange.record.headers(arrived.request.headers());
    let world = session.context.dependencies.world.snapshot();
    let mut before = None;
    let planned = match check(&arrived, full) {
        Ok(()) => plan(&session, &world, &mut arrived, &mut before, &mut exchange).await,
        Err(answer) => Err(answer.into()),
    };
    let plan = match planned {
        Ok(plan) => plan,
        Err(Refusal { answer, notes }) => {
            exchange.record.notes(notes);
            return answer.respond(exchange, form);
        }
    };
    let world = match exchange.waited {
        true => session.context.dependencies.world.snapshot(),
        false => world,
    };
    let first = plan.endpoint(&world, &session, &Attempts::default());
    let captured = |picked: &Picked| picked.captured().is_some();
    exchange.record.mutual_tls(first.as_ref().is_none_or(captured));
    let seen = filter::remember(plan.filters(), sent_headers(&before, &arrived));
    if let Some(before) = &before {
        sent::filter(plan.filters(), before, &mut arrived.request);
    }
    mirror::send_copies(&session, &world, &plan, before.as_deref(), &mut arrived);
    Way { session, world, plan, before, seen }.forward(arrived, first, exchange).await
}

/// What no route is asked about.
fn check(arrived: &Arrived, full: Option<String>) -> Result<(), Answer> {
    match (full, arrived.fault) {
        (Some(why), _) => Err(Answer::overflow(why)),
        (None, Some(fault)) => Err(Answer::fault(fault)),
        (None, None) => Ok(()),
    }
}

/// The rule, its filters' say, the backend, and its filters' say. `before` is the request as the client sent it, where a
/// filter may change it.
async fn plan(
    session: &Outbound,
    world: &World,
    arrived: &mut Arrived,
    before: &mut Option<Box<Sent>>,
    exchange: &mut Exchange,
) -> Result<Plan, Refusal> {
    let request = &arrived.request;
    let head = sent::head(request.method(), request.uri(), request.headers());
    let namespace = &session.client.key.namespace;
    let route = plan::route(world, &session.service, session.dialled.port(), namespace, &head);
    let mut route = route.map_err(|answer| heard(session, world, arrived, before, answer))?;
    let led = lead(session, world, &mut route, arrived, before, exchange).await;
    exchange.record.route(route.chosen.as_ref().map(|chosen| chosen.name()).unwrap_or_default());
    let (service, port) = led.map_err(|answer| heard(session, world, arrived, before, answer))?;
    let resolved = session.resolve(&service).await?;
    Ok(route.lead_to((resolved, port)))
}

/// To the backend whose turn it is, unless a filter answers instead.
async fn lead(
    session: &Outbound,
    world: &World,
    route: &mut plan::Route,
    arrived: &mut Arrived,
    before: &mut Option<Box<Sent>>,
    exchange: &mut Exchange,
) -> Result<(Arc<Service>, u16), Answer> {
    let cx = Cx {
        port: session.dialled.port(),
        identity: Some(&session.client.identity),
        address: session.client_address.ip(),
        service: Some(&session.service),
        pod: "",
        route: None,
    };
    let mut asking = Asking { arrived, before, cx, exchange };
    // A rule's filter holds instead of the service's of its type, which is the more general policy's.
    let of_service = route.addressed.filters_on(session.dialled.port());
    asking.decide(of_service, route.filters()).await?;
    asking.decide(route.filters(), &[]).await?;
    route.take_turn()?;
    asking.decide(route.backend_filters(), &[]).await?;
    route.backend(world)
}

/// A request whose filters are asked.
struct Asking<'a> {
    arrived: &'a mut Arrived,
    before: &'a mut Option<Box<Sent>>,
    cx: Cx<'a>,
    exchange: &'a mut Exchange,
}

impl Asking<'_> {
    /// Asks each filter, which sees the request as the client sent it; not those of a type that one of `instead` has.
    async fn decide(
        &mut self,
        filters: &[HttpFilter],
        instead: &[HttpFilter],
    ) -> Result<(), Answer> {
        if filters.is_empty() {
            return Ok(());
        }
        let request = &mut self.arrived.request;
        if self.before.is_none() {
            *self.before = sent::keep(filters, request);
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        for filter in filters {
            if filter.half() != Half::Client || filter::has_type_of(instead, filter) {
                continue;
            }
            let headers = request.headers_mut();
            let mut head = RequestHead { method: &method, uri: &uri, headers };
            let answer = match filter.request(&mut head, &self.cx) {
                Flow::Next => None,
                Flow::Answer(answer) => Some(answer),
                Flow::Note(note) => {
                    self.exchange.record.note(note);
                    None
                }
                Flow::Wait(waited) => {
                    let Waited { answer, mark } = waited.await;
                    self.exchange.waited = true;
                    if let Some((reason, why)) = mark {
                        self.exchange.record.mark(reason, why);
                    }
                    answer
                }
            };
            if let Some(answer) = answer {
                return Err(Answer::of_filter(answer));
            }
        }
        Ok(())
    }
}

/// The headers as the client sent them.
fn sent_headers<'a>(before: &'a Option<Box<Sent>>, arrived: &'a Arrived) -> &'a HeaderMap {
    before.as_ref().map_or(arrived.request.headers(), |before| &before.headers)
}

/// What the client may hear of an answer that no application gives: redirects, what CORS says, and that no route or backend
/// is there tell what a service has. No destination judges these requests, so this half does, by the policies of the
/// service and its waypoint, on what the client sent; Envoy too comes to RBAC before CORS and the router. Browsers ask for
/// leave without the headers and by another method than those of the request that they announce, so either may be
/// permitted.
fn heard(
    session: &Outbound,
    world: &World,
    arrived: &Arrived,
    before: &Option<Box<Sent>>,
    answer: Answer,
) -> Refusal {
    let mut refusal = Refusal::from(answer);
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
    let (request, headers) = (&arrived.request, sent_headers(before, arrived));
    let judge = |method: &Method| {
        let judged = sent::policy_request(method, request.uri(), headers);
        gate.authorize(&connection, Some(&judged))
    };
    let announced = Some(headers).filter(|_| request.method() == Method::OPTIONS);
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
