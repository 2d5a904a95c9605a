//! A request's way through the destination's half, on one page: [`deliver`].
//!
//! The order, and the reasons for it:
//!
//! 1. **Canonical form and budget.** Headers that only agents may send are taken off; the original values that the client's half
//!    may have sent are kept aside, and believed only where a route verifies them.
//! 2. **A verdict** ([`judge`]), before the record, because the record names the policies: a budget that is full, a request that
//!    is malformed, then authorization, by what arrived or was verified. A token of an unknown key has the issuer's keys fetched
//!    ([`Newer`]). The record begins with the verdict, so that what was rejected is logged and counted as well.
//! 3. **External authorization**, if a CUSTOM policy matches. The verdict is then only that the request may be asked about; DENY
//!    and ALLOW follow, by the request as the providers made it.
//! 4. **Rate limits** of the services that guard the workload, after authorization: a request that is not permitted takes no token
//!    from those that are.
//! 5. **The application**, by this connection's own connection, once more if the resting one was just closed. What the application is told
//!    of the client is added last, since the request was judged by what arrived.
//! 6. **The response**, for as long as the request is permitted.

use std::pin::pin;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use super::gates::{Gates, Permitted};
use super::session::{self, Session};
use crate::balance::InUse;
use crate::base::{PolicyNote, Str};
use crate::ext_authz;
use crate::filter::Claims;
use crate::gate::{Permit, Providers};
use crate::jwt::KeySource;
use crate::l7::budget::Full;
use crate::l7::budget::admission::Admission;
use crate::l7::exchange::answer::{Answer, Form};
use crate::l7::exchange::arrived::Arrived;
use crate::l7::exchange::keys::{self, Newer};
use crate::l7::exchange::upgrade::{self, Upgrade};
use crate::l7::exchange::{Exchange, ResponseBody, relay, traced};
use crate::l7::message::body::RequestBody;
use crate::l7::message::headers;
use crate::l7::message::lasting::{self, Kept, Waits};
use crate::l7::upstream::{Lease, UpstreamBody};
use crate::l7::worker::authorizer::Authorizer;
use crate::l7::worker::guards::{self, Asking};
use crate::l7::worker::serve::Handler;
use crate::model::Observed;
use crate::telemetry::RequestStart;
use crate::trace::Kind;
use crate::world::World;

/// How often a request is sent: the application may close the resting connection just before the first attempt.
const MAX_ATTEMPTS: usize = 2;

/// Judges one request and answers it.
pub(in crate::l7) async fn deliver(
    session: Arc<Session>,
    request: Request<RequestBody>,
) -> Response<ResponseBody> {
    let limits = session.context.limits(session.most_fields());
    let mut arrived = Arrived::new(request, &limits, session.inbound.destination);
    let sent_as = arrived.request.headers_mut().remove(headers::ORIGINAL).map(Box::new);
    headers::strip_internal(arrived.request.headers_mut());
    let attempt = headers::take_attempt(arrived.request.headers_mut());
    let form = arrived.form;
    let (Judgement { routed, notes, judged, observed, keys: _ }, place) = {
        let (permit, mut newer) = (arrived.admit(&session.seat), None);
        loop {
            let judgement =
                judge(&session, &mut arrived, sent_as.as_deref(), permit.as_ref().err());
            if let Some(judgement) = judgement.unless_open(&session, &mut newer) {
                break (judgement, Admission::of(permit, &session.seat, arrived.version));
            }
            // Boxed, because it is rare.
            Box::pin(keys::wait(&mut newer)).await;
        }
    };
    let start = session.request_start(routed, judged.as_ref().ok().map(|it| &it.permit));
    let record = session.context.dependencies.telemetry.request(arrived.describe(start));
    let mut exchange = Exchange::new(record, arrived.request.body(), place);
    exchange.attempt = attempt;
    exchange.record.notes(notes);
    let rules = observed.as_ref().and_then(|it| it.rules.as_ref());
    rules.inspect(|rules| exchange.record.follow(rules));
    exchange.record.headers(arrived.request.headers());
    if let Some(tracing) = observed.and_then(|it| it.tracing) {
        let side = (Kind::Server, session.inbound.destination.port());
        traced::begin(&mut exchange, &tracing, side, arrived.request.headers());
    }
    arrived.name_target(&mut exchange.record);
    exchange.record.destination(session.destination.clone(), session.inbound.destination);
    let mut judged = match judged {
        Ok(judged) => judged,
        Err(answer) => return answer.respond(exchange, form),
    };
    let head = if judged.permit.asks.is_empty() {
        tell(&mut arrived, &mut judged)
    } else {
        // Boxed, because it is large and most requests go without it.
        let sent_as = sent_as.as_deref();
        let asked = Box::pin(authorize(&session, &mut arrived, judged, sent_as, &mut exchange));
        match asked.await {
            Ok((permitted, head)) => {
                judged = permitted;
                head
            }
            Err(answer) => return answer.respond(exchange, form),
        }
    };
    head.as_ref().inspect(|_| exchange.record.changed(arrived.request.headers()));
    if let Err(answer) = limit(&session, &mut arrived, &judged, &mut exchange).await {
        return answer.respond(exchange, form);
    }
    pass(session, &mut arrived, sent_as, &judged.permit, head, exchange).await
}

/// Makes of the request what its token says, so that neither providers nor limits see headers that a client made up. Gives the head
/// as it was judged, where that changes it.
fn tell(arrived: &mut Arrived, judged: &mut Permitted) -> Option<Box<Kept>> {
    let told = judged.permit.told.as_ref()?;
    let head = Box::new(Kept::of(&arrived.request));
    told.apply(&mut arrived.request);
    arrived.request.body_mut().forbid_in_trailers(told.not_in_trailers());
    if let Some(sent) = &mut judged.sent {
        sent.headers = told.headers(&sent.headers);
    }
    Some(head)
}

/// Asks the providers of the CUSTOM policies that match, and judges the request as they make it. Gives the head as it was judged, too.
async fn authorize(
    session: &Session,
    arrived: &mut Arrived,
    mut judged: Permitted,
    sent_as: Option<&HeaderValue>,
    exchange: &mut Exchange,
) -> Result<(Permitted, Option<Box<Kept>>), Answer> {
    let head = Kept::of(&arrived.request);
    tell(arrived, &mut judged);
    let authorizer = session.authorizer(arrived.checks);
    let sent = judged.sent.as_ref().map(|sent| (&sent.uri, &sent.headers));
    let asks = &judged.permit.asks;
    let asked = authorizer.ask(asks, &mut arrived.request, sent, Some(&mut *exchange)).await;
    let mutations = Arc::new(asked?);
    exchange.added = Some(Box::new(mutations.response()));
    let head = head.changed(Some(mutations.clone()));
    let mut judged = {
        let world = session.context.dependencies.world.load();
        let gates = session.gates(&world);
        let (inbound, before) = (&session.inbound, head.request());
        gates.authorize(&world, inbound, &before, sent_as, head.providers()).map_err(|denial| {
            exchange.record.notes(denial.notes.clone());
            Answer::of_denial(&denial, before.uri(), before.headers())
        })?
    };
    exchange.record.notes(std::mem::take(&mut judged.permit.notes));
    exchange.record.policy(judged.permit.policy.clone());
    // Once more, because another token may count since the providers were asked.
    tell(arrived, &mut judged);
    mutations.apply(arrived.request.headers_mut());
    arrived.request.body_mut().leave_to_providers(&mutations);
    if let Some(sent) = &mut judged.sent {
        mutations.apply(&mut sent.headers);
    }
    Ok((judged, Some(Box::new(head))))
}

/// Asks the filters of what guards the workload.
async fn limit(
    session: &Session,
    arrived: &mut Arrived,
    judged: &Permitted,
    exchange: &mut Exchange,
) -> Result<(), Answer> {
    let Some(filtered) = &judged.permit.filtered else { return Ok(()) };
    let world = session.context.dependencies.world.snapshot();
    let inbound = &session.inbound;
    let from = Asking {
        identity: inbound.client.as_ref(),
        address: inbound.client_address.ip(),
        pod: &inbound.workload.uid,
        claims: judged.permit.bearer.as_deref().map(|it| it as &dyn Claims),
        node: Some(&inbound.workload.node),
    };
    let sent = judged.sent.as_ref().map(|sent| (&sent.uri, &sent.headers));
    let authorizer = session.authorizer(arrived.checks);
    let request = &mut arrived.request;
    // Boxed, because it is large and most services have no such policy.
    Box::pin(guards::ask(&world, filtered, from, &authorizer, sent, request, Some(exchange))).await
}

/// What is decided of a request before anything is done.
struct Judgement {
    /// The client's half has routed and recorded it.
    routed: bool,
    notes: Vec<PolicyNote>,
    judged: Result<Permitted, Answer>,
    observed: Option<Observed>,
    /// It would perhaps be another one by newer keys.
    keys: Vec<Arc<KeySource>>,
}

fn judge(
    session: &Session,
    arrived: &mut Arrived,
    sent_as: Option<&HeaderValue>,
    full: Option<&Full>,
) -> Judgement {
    let world = session.context.dependencies.world.load();
    let gates = session.gates(&world);
    let routed = gates.was_routed();
    let service = gates.service().map(|service| &service.key);
    let observed = world.observed(Kind::Server, &session.inbound.workload, service).cloned();
    if let Some(full) = full {
        let why = session.seat.share().why(*full);
        return Judgement::refused(routed, Answer::overflow(why), observed);
    }
    if let Some(fault) = arrived.fault {
        return Judgement::refused(routed, Answer::fault(fault), observed);
    }
    if !routed {
        headers::add_missing(arrived.request.headers_mut());
    }
    let judged =
        gates.authorize(&world, &session.inbound, &arrived.request, sent_as, Providers::NotAsked);
    match judged {
        Ok(mut judged) => {
            let notes = std::mem::take(&mut judged.permit.notes);
            Judgement { routed, notes, judged: Ok(judged), observed, keys: Vec::new() }
        }
        Err(denial) => {
            let request = &arrived.request;
            let answer = Answer::of_denial(&denial, request.uri(), request.headers());
            let (notes, keys) = (denial.notes, denial.keys);
            Judgement { routed, notes, judged: Err(answer), observed, keys }
        }
    }
}

impl Judgement {
    /// `None` while keys may still be fetched that make it another one.
    fn unless_open(self, session: &Session, newer: &mut Option<Box<Newer>>) -> Option<Self> {
        if self.keys.is_empty() || newer.as_ref().is_some_and(|newer| newer.is_over()) {
            return Some(self);
        }
        let dependencies = &session.context.dependencies;
        newer.get_or_insert_with(|| Box::new(Newer::new(dependencies, &self.keys)));
        None
    }

    fn refused(routed: bool, answer: Answer, observed: Option<Observed>) -> Self {
        Self { routed, notes: Vec::new(), judged: Err(answer), observed, keys: Vec::new() }
    }
}

/// What is judged again of a request that lasts.
struct Judged {
    session: Arc<Session>,
    head: Kept,
    /// Boxed, because few requests bring it, and it is held as long as the request.
    sent_as: Option<Box<HeaderValue>>,
}

/// Hands a permitted request to the application.
async fn pass(
    session: Arc<Session>,
    arrived: &mut Arrived,
    sent_as: Option<Box<HeaderValue>>,
    permit: &Permit,
    head: Option<Box<Kept>>,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let form = arrived.form;
    let head = head.map_or_else(|| Kept::of(&arrived.request), |head| *head);
    let judged = Judged { session: session.clone(), head, sent_as };
    // Only now: the request was judged by what arrived.
    session.name_client(permit, arrived.request.headers_mut());
    if let Some(attempt) = exchange.attempt.take() {
        headers::put_attempt(arrived.request.headers_mut(), attempt);
    }
    traced::tell(&exchange, arrived.request.headers_mut());
    if let Some(upgrade) = &arrived.upgrade {
        upgrade.ask(arrived.request.headers_mut());
    }
    let is_stream = lasting::is_stream(&arrived.request);
    let mut attempts = MAX_ATTEMPTS;
    loop {
        attempts -= 1;
        let mut lease = match session.lease(arrived.version).await {
            Ok(lease) => lease,
            Err(error) => {
                let answer = Answer::unreachable(error.reason(), error.to_string());
                return answer.respond(exchange, form);
            }
        };
        let cut = is_stream.then(|| judged.until_cut());
        exchange.attempts += 1;
        let sent = {
            let sending = pin!(lease.sender.send(&mut arrived.request));
            lasting::unless(sending, cut).await
        };
        let failed = match sent {
            Ok(Ok(response)) => {
                return judged.pass_on(response, lease, arrived.upgrade.take(), exchange, form);
            }
            Ok(Err(failed)) => failed,
            Err((reason, why)) => return Answer::unreachable(reason, why).respond(exchange, form),
        };
        if !failed.unsent || !lease.reused || attempts == 0 {
            let answer = session.context.broken(session.inbound.destination, &failed.error);
            return answer.respond(exchange, form);
        }
    }
}

impl Judged {
    /// Passes the application's response on, for as long as it is permitted.
    fn pass_on(
        self,
        mut response: Response<UpstreamBody>,
        lease: Lease,
        upgrade: Option<Upgrade>,
        mut exchange: Box<Exchange>,
        form: Form,
    ) -> Response<ResponseBody> {
        let session = self.session.clone();
        exchange.settle(response.headers());
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let granted = upgrade.filter(|it| switched && it.is_granted(response.headers()));
        if switched && granted.is_none() {
            // With the lease goes the connection: nobody knows what it speaks now.
            return upgrade::unasked().respond(exchange, form);
        }
        if let Err(why) = session.context.check_response(&response) {
            return Answer::bad_gateway(why).respond(exchange, form);
        }
        // An application is no agent.
        headers::take_denied(&mut response, exchange.record.is_grpc());
        if let Some(added) = exchange.added.take() {
            ext_authz::add_to_response(&added, response.headers_mut());
        }
        if let Err(why) = exchange.reserve(response.headers()) {
            return Answer::overflow(why).respond(exchange, form);
        }
        exchange.answered(response.status(), response.headers(), lease, InUse::default());
        match granted {
            Some(upgrade) => {
                let cut = async move { self.until_cut().await };
                upgrade.switch(&session.context.tasks.clone(), response, exchange, cut, session)
            }
            None => {
                let cut = || async move { lasting::after_awhile(self.until_cut()).await };
                relay(response, exchange).map(|body| body.unless(|| Some(Box::pin(cut()))))
            }
        }
    }

    /// Ends when the request may not go on.
    fn until_cut(&self) -> Waits<'_> {
        let session = &self.session;
        let permitted = |world: &World, gates: &Gates| {
            let judged = gates.authorize(
                world,
                &session.inbound,
                &self.head.request(),
                self.sent_as.as_deref(),
                self.head.providers(),
            );
            judged.map(|judged| judged.permit)
        };
        // Asks for changes when it is waited for.
        Box::pin(async move { session.until_cut(session.changes(), permitted).await })
    }
}

impl Session {
    /// Asks providers on behalf of the workload, about a request to which so many checks led.
    fn authorizer(&self, checks: u8) -> Authorizer<'_> {
        let inbound = &self.inbound;
        Authorizer {
            context: &self.context,
            from: self.as_client(),
            client: inbound.client.as_ref(),
            client_address: inbound.client_address,
            server: Some(&inbound.workload.identity),
            server_address: inbound.destination,
            share: self.seat.share(),
            checks,
        }
    }

    /// Tells the application who the client is, where a waypoint that guards it wants that.
    fn name_client(&self, permit: &Permit, headers: &mut HeaderMap) {
        let inbound = &self.inbound;
        let Some(client) = inbound.client.as_ref().filter(|_| permit.names_client) else { return };
        let by = &inbound.workload.identity;
        headers::name_client(headers, by, client, permit.waypoint.as_ref());
    }

    /// The record of a request, but for the request.
    pub(in crate::l7) fn request_start(
        &self,
        routed: bool,
        permit: Option<&Permit>,
    ) -> RequestStart {
        RequestStart {
            count: !routed,
            outbound: false,
            source: self.source.clone(),
            service: self.service.clone(),
            mutual_tls: self.inbound.client.is_some(),
            source_address: self.inbound.client_address,
            method: Method::default(),
            path: Str::default(),
            authority: Str::default(),
            protocol: "",
            grpc: false,
            waypoint_principal: permit.and_then(session::principal),
            policy: permit.and_then(|permit| permit.policy.clone()),
            connection: self.open.get().cloned(),
        }
    }
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
        assert!(size(deliver) <= 2_720, "{} bytes", size(deliver));
    }
}
