//! A request's way through the client's half, on one page: [`route`].
//!
//! The order, and the reasons for it:
//!
//! 1. **Canonical form, budget, record.** Whatever comes is brought into one form, takes its places in the budgets, and
//!    has a record from here on, so that every answer below is logged and counted, and so is a client that leaves meanwhile.
//! 2. **What no route is asked about**: a budget that is full, then a request that is malformed. They come first because
//!    nothing else may cost time on their behalf.
//! 3. **The rule**, by the request as the client sent it. No filter has touched it yet.
//! 4. **Filters that may answer**, each as it stands in its list: those of the addressed service, except of a type that the
//!    rule has itself (the more specific policy holds); the rule's; and those of the backend whose turn it is. A rule's
//!    filters come before its backend is chosen, so that a request that they answer takes no turn.
//! 5. **Authorization of answers.** What steps 3 and 4 answer (no route, redirects, CORS, rejections, faults) tells what the
//!    service has, and no destination judges it. So the policies of the service decide whether the client may hear it; a
//!    denial takes the answer's place, as Envoy's RBAC filter stands before CORS and the router. A request that goes on is
//!    judged at its destination, or by this half in step 8 where nobody judges there.
//! 6. **Endpoints of the backend**, with the addresses of names.
//! 7. **Filters that change the request**, once it is known that it goes on; then its **mirrors**, which get what the
//!    endpoints get.
//! 8. **Attempts** ([`attempt`](super::attempt)): an endpoint, authorization where nobody judges there, rate limits that nobody keeps
//!    there, the connection, and retries.
//! 9. **The response** ([`pass_on`]): checked, through the same filters as in step 4, and streamed; the record ends with its
//!    last byte.

use std::sync::Arc;

use http::header::SET_COOKIE;
use http::{HeaderMap, Request, Response, StatusCode};

use super::attempt::{Got, Outcome, Routed};
use super::judge::{self, Judge, Pending, Refusal};
use super::mirror;
use super::plan::{self, Plan};
use super::retry;
use super::session::Session;
use crate::balance::Picked;
use crate::base::Str;
use crate::ext_authz;
use crate::filter::{self, Cx, Half, HttpFilter, ResponseHead};
use crate::gate::Providers;
use crate::l7::budget::admission::Admission;
use crate::l7::exchange::answer::{Answer, Form};
use crate::l7::exchange::arrived::Arrived;
use crate::l7::exchange::{Exchange, ResponseBody, chain, keys, relay, traced, upgrade};
use crate::l7::message::asked::Asked;
use crate::l7::message::body::RequestBody;
use crate::l7::message::headers;
use crate::l7::message::lasting::{self, Cut, Kept};
use crate::l7::message::sent::{self, Sent};
use crate::l7::worker::serve::Handler;
use crate::model::{Resolution, Service};
use crate::reach::Attempts;
use crate::route::{self, Client, Who};
use crate::trace::Kind;
use crate::world::World;

/// Routes one request and answers it.
pub(in crate::l7) async fn route(
    session: Arc<Session>,
    request: Request<RequestBody>,
) -> Response<ResponseBody> {
    let world = session.context.dependencies.world.snapshot();
    let (mut arrived, mut exchange, asked, rejected) = begin(&session, &world, request);
    let form = arrived.form;
    let mut before = None;
    let planned = match rejected {
        Some(answer) => Err(answer.into()),
        None => {
            let (arrived, before, exchange) = (&mut arrived, &mut before, &mut *exchange);
            let planning = Planning { session: &session, world: &world, arrived, before, exchange };
            planning.plan().await
        }
    };
    let plan = match planned {
        Ok(plan) => plan,
        Err(refusal) if refusal.asks.is_empty() && refusal.pending.is_none() => {
            exchange.record.notes(refusal.notes);
            return refusal.answer.respond(exchange, form);
        }
        // Boxed, because it is large and rare.
        Err(refusal) => {
            return Box::pin(refuse(session, refusal, arrived, before, exchange)).await;
        }
    };
    let world = match exchange.waited {
        true => session.context.dependencies.world.snapshot(),
        false => world,
    };
    let first = plan.endpoint(&world, &session, &Attempts::default());
    let captured = |picked: &Picked| picked.captured().is_some();
    exchange.record.mutual_tls(first.as_ref().is_none_or(captured));
    let headers = sent_headers(&before, &arrived);
    let seen = filter::remember(plan.filters_of_service(), plan.filters(), headers);
    if let Some(before) = &before {
        sent::filter(plan.filters(), before, &mut arrived.request);
    }
    let asked = asked.map(|asked| asked.under(plan.retry(&world)));
    let routed = Routed { session, world, plan, before, seen, asked };
    mirror::send_copies(&routed, &mut arrived);
    match retry::run(&routed, &mut arrived, first, &mut exchange).await {
        Outcome::Got(got, picked) => {
            exchange.settle(got.response.headers());
            exchange.tried(got.ended());
            pass_on(routed, got, picked, exchange, form)
        }
        Outcome::Failed(answer, ended, _) => {
            exchange.tried(ended);
            answer.respond(exchange, form)
        }
    }
}

/// Gives the client an answer that no application gives, if its token is one of newer keys where that counts, if the providers permit
/// that it hears it, and then the other policies: all are asked about what it sent.
async fn refuse(
    session: Arc<Session>,
    mut refusal: Refusal,
    mut arrived: Arrived,
    before: Option<Box<Sent>>,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    if let Some(pending) = refusal.pending.take() {
        let Pending { answer, keys } = *pending;
        let dependencies = &session.context.dependencies;
        let headers = sent_headers(&before, &arrived);
        let again = || {
            let world = dependencies.world.load();
            let (request, answer) = ((&arrived.request, headers), answer.clone());
            refusal = judge::heard(&session, &world, request, answer, Providers::NotAsked);
            refusal.pending.is_some()
        };
        keys::await_newer(dependencies, &keys, again).await;
        if refusal.asks.is_empty() {
            exchange.record.notes(refusal.notes);
            return refusal.answer.respond(exchange, arrived.form);
        }
    }
    let Refusal { answer, asks, .. } = refusal;
    let sent = before.as_ref().map(|sent| (&sent.uri, &sent.headers));
    let authorizer = session.authorizer();
    let asked = authorizer.ask(&asks, &mut arrived.request, sent, Some(&mut exchange)).await;
    let mutations = match asked {
        Ok(mutations) => mutations,
        Err(answer) => return answer.respond(exchange, arrived.form),
    };
    exchange.added = Some(Box::new(mutations.response()));
    let world = session.context.dependencies.world.snapshot();
    let request = (&arrived.request, sent_headers(&before, &arrived));
    let permitted = Providers::Permit(&mutations);
    let Refusal { answer, notes, .. } = judge::heard(&session, &world, request, answer, permitted);
    exchange.record.notes(notes);
    answer.respond(exchange, arrived.form)
}

/// The request in canonical form and its exchange, with the answer to one that no route is asked about.
fn begin(
    session: &Session,
    world: &World,
    request: Request<RequestBody>,
) -> (Arrived, Box<Exchange>, Option<Box<Asked>>, Option<Answer>) {
    let limits = session.context.limits(session.most_fields());
    let mut arrived = Arrived::new(request, &limits, session.dialled);
    headers::strip_internal(arrived.request.headers_mut());
    headers::take_attempt(arrived.request.headers_mut());
    let asked = Asked::take(arrived.request.headers_mut());
    headers::add_missing(arrived.request.headers_mut());
    let permit = arrived.admit(&session.seat);
    let full = permit.as_ref().err().map(|full| session.seat.share().why(*full));
    let start = arrived.describe(session.request_start());
    let record = session.context.dependencies.telemetry.request(start);
    let admission = Admission::of(permit, &session.seat, arrived.version);
    let mut exchange = Exchange::new(record, arrived.request.body(), admission);
    let observed = world.observed(Kind::Client, &session.client, Some(&session.service));
    if let Some(rules) = observed.and_then(|it| it.rules.as_ref()) {
        exchange.record.follow(rules);
    }
    exchange.record.headers(arrived.request.headers());
    if let Some(tracing) = observed.and_then(|it| it.tracing.as_ref()) {
        let (port, headers) = (session.dialled.port(), arrived.request.headers_mut());
        traced::begin(&mut exchange, tracing, (Kind::Client, port), headers);
        // Before the rule, the filters and the copy that the destination verifies, so that all see the same.
        traced::tell(&exchange, headers);
    }
    arrived.name_target(&mut exchange.record);
    let rejected = match (full, arrived.fault) {
        (Some(why), _) => Some(Answer::overflow(why)),
        (None, Some(fault)) => Some(Answer::fault(fault)),
        (None, None) => None,
    };
    (arrived, exchange, asked, rejected)
}

/// A request that is being planned, and over what.
struct Planning<'a> {
    session: &'a Session,
    world: &'a World,
    arrived: &'a mut Arrived,
    /// The request as the client sent it, where a filter may change it.
    before: &'a mut Option<Box<Sent>>,
    exchange: &'a mut Exchange,
}

impl Planning<'_> {
    /// The rule, its filters' say, the backend, and its filters' say.
    async fn plan(mut self) -> Result<Plan, Refusal> {
        let mut route = self.route().map_err(|answer| self.heard(answer))?;
        let led = self.lead(&mut route).await;
        let rule = route.chosen.as_ref().map(|chosen| chosen.name()).unwrap_or_default();
        self.exchange.record.route(rule);
        let (service, port) = led.map_err(|answer| self.heard(answer))?;
        let host = headers::host(sent_headers(self.before, self.arrived));
        let resolved = self.session.resolve(&service, host).await?;
        let request = &self.arrived.request;
        let (backend, subset) = ((&*resolved, port), route.subset().map(Str::as_str));
        let hash = plan::hash(backend, subset, self.session, request.uri(), request.headers());
        Ok(route.lead_to((resolved, port), hash))
    }

    /// The rule that takes the request.
    fn route(&self) -> Result<plan::Route, Answer> {
        let request = &self.arrived.request;
        let (service, dialled) = (&self.session.service, self.session.dialled);
        let namespace = &self.session.client.key.namespace;
        let who = Who::Workload(&self.session.client.uid);
        let client = Client { namespace, who, selected_by: None };
        let head = sent::head(request.method(), request.uri(), request.headers(), client);
        let route = plan::route(self.world, service, dialled, namespace, &head)?;
        let addressed = &route.addressed;
        if addressed.resolution == Resolution::Dynamic {
            let claim = headers::name_of(headers::host(request.headers()));
            let named = route::named(self.world, addressed, namespace, claim);
            named.map_err(|why| Answer::no_route(why.to_string()))?;
        }
        Ok(route)
    }

    /// To the backend whose turn it is, unless a filter answers instead.
    async fn lead(&mut self, route: &mut plan::Route) -> Result<(Arc<Service>, u16), Answer> {
        let of_service = route.addressed.filters_on(self.session.dialled.port());
        self.ask(of_service, route.filters()).await?;
        self.ask(route.filters(), &[]).await?;
        route.begin_session(sent_headers(self.before, self.arrived));
        route.take_turn(self.world, &self.session.client)?;
        self.ask(route.backend_filters(), &[]).await?;
        route.backend(self.world, self.session)
    }

    /// Asks each filter, which sees the request as the client sent it; not those of a type that one of `instead` has.
    async fn ask(&mut self, filters: &[HttpFilter], instead: &[HttpFilter]) -> Result<(), Answer> {
        if filters.is_empty() {
            return Ok(());
        }
        let session = self.session;
        if self.before.is_none() {
            *self.before = sent::keep(filters, &self.arrived.request);
        }
        let cx = Cx {
            port: session.dialled.port(),
            identity: Some(&session.client.identity),
            address: session.client_address.ip(),
            service: Some(&session.service),
            pod: "",
            route: None,
            spread: None,
            claims: None,
            level: None,
        };
        for filter in filters {
            if filter::has_type_of(instead, filter) {
                continue;
            }
            let (request, heard) = (&mut self.arrived.request, Some(&mut *self.exchange));
            chain::ask(filter, Half::Client, &cx, request, heard).await?;
        }
        Ok(())
    }

    /// What the client gets to hear of an answer that no application gives.
    fn heard(&self, answer: Answer) -> Refusal {
        let headers = sent_headers(self.before, self.arrived);
        let request = (&self.arrived.request, headers);
        judge::heard(self.session, self.world, request, answer, Providers::NotAsked)
    }
}

/// The headers as the client sent them.
fn sent_headers<'a>(before: &'a Option<Box<Sent>>, arrived: &'a Arrived) -> &'a HeaderMap {
    before.as_ref().map_or(arrived.request.headers(), |before| &before.headers)
}

/// Passes the response on, through the response filters; all of it must have passed by the deadline.
fn pass_on(
    routed: Routed,
    got: Got,
    mut picked: Picked,
    mut exchange: Box<Exchange>,
    form: Form,
) -> Response<ResponseBody> {
    let Got { mut response, lease, upgrade, judged } = got;
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let granted = upgrade.filter(|upgrade| switched && upgrade.is_granted(response.headers()));
    if switched && granted.is_none() {
        // With the lease goes the connection: nobody knows what it speaks now.
        return upgrade::unasked().respond(exchange, form);
    }
    if let Err(why) = routed.session.context.check_response(&response) {
        return Answer::bad_gateway(why).respond(exchange, form);
    }
    exchange.record.in_process(lease.sender.is_local());
    // A server without an agent may say what it likes.
    if headers::take_denied(&mut response, exchange.record.is_grpc()) && picked.captured().is_some()
    {
        exchange.record.denied_there();
    }
    let Routed { plan, seen, .. } = &routed;
    let mut head = ResponseHead { status: response.status(), headers: response.headers_mut() };
    filter::respond(plan.filters_of_service(), plan.filters(), &mut head, seen);
    plan.tell_session(&picked, response.headers_mut());
    if let Some(cookie) = plan.hashed().and_then(|hashed| hashed.set_cookie.clone()) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    if let Some(added) = exchange.added.take() {
        ext_authz::add_to_response(&added, response.headers_mut());
    }
    if let Err(why) = exchange.reserve(response.headers()) {
        return Answer::overflow(why).respond(exchange, form);
    }
    let in_use = picked.in_use();
    exchange.answered(response.status(), response.headers(), lease, in_use);
    let session = routed.session.clone();
    let ends = || cut(routed, picked, judged?);
    match granted {
        Some(upgrade) => {
            let cut = ends().unwrap_or_else(|| Box::pin(std::future::pending()));
            upgrade.switch(&session.context.tasks.clone(), response, exchange, cut, session)
        }
        None => {
            let due = exchange.due;
            relay(response, exchange).map(|body| body.until(due).unless(ends))
        }
    }
}

/// Tells when what lasts must not go on. No world is kept for as long as that.
fn cut(routed: Routed, picked: Picked, head: Box<Kept>) -> Option<Cut> {
    let Routed { session, plan, before, .. } = routed;
    Some(Box::pin(lasting::after_awhile(async move {
        let judge = Judge { session: &session, plan: &plan, before: before.as_deref() };
        judge.until_refused(&picked, &head).await
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every request in flight holds it.
    #[test]
    fn the_future_of_a_request_stays_small() {
        fn size<S, R, F: Future>(_: impl Fn(S, R) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(route) <= 3_200, "{} bytes", size(route));
    }
}
