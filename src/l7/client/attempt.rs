//! From a plan to a response: endpoint, authorization and rate limits where nobody keeps them there, connection, retries.
//!
//! Two loops. [`retry`](super::retry) sends a request again that may have reached an application, as its route configures. Inside of
//! that, [`Routed::pass`] goes on to another endpoint with what was certainly not sent: after a refused connection, a tunnel that
//! could not be opened, a connection that was closed before the request was written.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use http::Response;
use tokio::time::Instant;

use super::judge::Judge;
use super::plan::{Chosen, Plan};
use super::session::Session;
use crate::balance::{self, Ended, Picked};
use crate::base::{PolicyNote, Reason, Str, covered};
use crate::filter::{Claims, ExternalAuth, HttpFilter, Seen};
use crate::gate::{self, Ask, Filtered, Gate, Providers};
use crate::jwt::KeySource;
use crate::l7::exchange::Exchange;
use crate::l7::exchange::answer::{Answer, Form};
use crate::l7::exchange::arrived::{Arrived, Untold};
use crate::l7::exchange::keys;
use crate::l7::exchange::upgrade::Upgrade;
use crate::l7::message::asked::{self, Asked};
use crate::l7::message::body;
use crate::l7::message::lasting::{self, Kept, Waits};
use crate::l7::message::original::Original;
use crate::l7::message::sent::Sent;
use crate::l7::message::{deadline, headers};
use crate::l7::upstream::{Lease, SendError, UpstreamBody, UpstreamError};
use crate::l7::worker::guards::{self, Asking};
use crate::model::Retry;
use crate::policy::{Denial, Verified};
use crate::reach::Attempts;
use crate::world::World;

/// A request that knows where it goes.
pub(in crate::l7) struct Routed {
    pub(in crate::l7) session: Arc<Session>,
    pub(in crate::l7) world: Arc<World>,
    pub(in crate::l7) plan: Plan,
    /// The request as the client sent it, when the route's filters may have changed it.
    pub(in crate::l7) before: Option<Box<Sent>>,
    /// What filters of the response look at.
    pub(in crate::l7) seen: Seen,
    /// What the client asks of the request in headers of Envoy.
    pub(in crate::l7) asked: Option<Box<Asked>>,
}

/// A response, and what it came with.
pub(in crate::l7) struct Got {
    pub(in crate::l7) response: Response<UpstreamBody>,
    pub(in crate::l7) lease: Lease,
    pub(in crate::l7) upgrade: Option<Upgrade>,
    /// What is judged again of a request that lasts, where nobody else will do it. Boxed, because every future on the way up holds it.
    pub(in crate::l7) judged: Option<Box<Kept>>,
}

impl Got {
    /// What the response tells about its endpoint.
    pub(in crate::l7) fn ended(&self) -> Ended {
        Ended::Answered(body::outcome(self.response.status(), self.response.headers()))
    }
}

/// An attempt without a response.
pub(super) struct Failed {
    /// Certainly nothing of the request was sent, or the application did not look at it, and it is whole again.
    unsent: bool,
    /// The application says that it did not look at it.
    refused: bool,
    pub(super) answer: Answer,
    pub(super) ended: Ended,
}

impl Failed {
    /// Nothing was sent: there is no connection.
    pub(super) fn unconnected(error: &UpstreamError) -> Self {
        let answer = Answer::unreachable(error.reason(), error.to_string());
        Self { unsent: true, ..Self::of(answer, error.ended()) }
    }

    /// Something may have been sent.
    fn of(answer: Answer, ended: Ended) -> Self {
        Self { unsent: false, refused: false, answer, ended }
    }
}

/// Services whose filters nobody else asks, and who bears the request.
type Guarding = (Arc<[Filtered]>, Option<Box<Verified>>);

/// What is to be done once a request may go to an endpoint.
#[derive(Default)]
struct Prepared {
    notes: Vec<PolicyNote>,
    filtered: Option<Guarding>,
    /// Providers that nobody else asks.
    asks: Vec<Ask>,
}

/// Why a request may not go to an endpoint.
struct Refused {
    answer: Answer,
    notes: Vec<PolicyNote>,
    /// It may perhaps, by newer keys.
    keys: Vec<Arc<KeySource>>,
}

impl From<Answer> for Box<Refused> {
    fn from(answer: Answer) -> Self {
        Box::new(Refused { answer, notes: Vec::new(), keys: Vec::new() })
    }
}

/// How the attempts at some endpoints ended, of which one at most has seen the request.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the common one, and costs no allocation"
)]
pub(in crate::l7) enum Outcome {
    Got(Got, Picked),
    /// The last endpoint, where there was one.
    Failed(Answer, Ended, Option<SocketAddr>),
}

impl Routed {
    /// How the request is retried: as the client asks, within what the rule or the mesh says.
    pub(super) fn retry(&self) -> Option<&Retry> {
        let asked = self.asked.as_ref().and_then(|asked| asked.retry.as_ref());
        asked.or_else(|| self.plan.retry(&self.world))
    }

    /// The same, if it is retried.
    pub(super) fn retry_if_any(&self) -> Option<&Retry> {
        self.retry().filter(|retry| !retry.is_off())
    }

    /// Tries endpoints until one may have seen the request. Its response has begun by then, if `due` is given.
    pub(super) async fn pass(
        &self,
        arrived: &mut Arrived,
        first: Option<Picked>,
        due: Option<Instant>,
        exchange: &mut Exchange,
    ) -> Outcome {
        let mut attempts = Attempts::default();
        let mut last = None;
        let mut next = first;
        let mut _again = None;
        while let Some((mut picked, call)) = self.let_in(next, &mut attempts, &mut last) {
            let peer =
                self.session.context.labels.destination(&self.world, picked.workload.as_ref());
            exchange.record.destination(peer, picked.address);
            if let Err(answer) = self.admit(&picked, arrived, exchange).await {
                return Outcome::Failed(answer, Ended::Denied, Some(picked.address));
            }
            // Boxed, because few destinations have such limits.
            if picked.limits_requests()
                && let Err(answer) = Box::pin(self.take_place(&mut picked, arrived, due)).await
            {
                return Outcome::Failed(answer, Ended::Denied, Some(picked.address));
            }
            let sent = {
                // Pinned here, so that what waits for it does not hold it a second time.
                let attempt = pin!(self.attempt(&picked, arrived, &mut exchange.attempts, due));
                deadline::within(due, attempt).await
            };
            let Failed { unsent, refused, answer, ended } = match sent {
                Some(Ok(got)) => {
                    let heard = exchange.heard(got.ended());
                    picked.ended(heard);
                    call.into_iter().for_each(|call| exchange.called(*call, heard));
                    return Outcome::Got(got, picked);
                }
                Some(Err(failed)) => failed,
                None => Failed::of(late(exchange.overdue()), Ended::TimedOut),
            };
            let heard = exchange.heard(ended);
            call.iter().for_each(|call| call.ended(heard.has_failed()));
            let goes_on = attempts.failed(&mut picked, heard);
            // A pooled connection that was closed meanwhile was no attempt at all.
            let was_one = refused || !matches!(ended, Ended::Stale);
            let last_one = was_one && self.retry().is_some_and(Retry::is_off);
            _again = None;
            let goes_on = unsent && goes_on && !last_one;
            match goes_on.then(|| self.once_more(refused, exchange)) {
                Some(Ok(place)) => _again = place,
                _ => return Outcome::Failed(answer, ended, Some(picked.address)),
            }
            last = Some((answer, ended, picked.address));
            next = self.plan.endpoint(&self.world, &self.session, &attempts);
        }
        match last {
            Some((answer, ended, endpoint)) => Outcome::Failed(answer, ended, Some(endpoint)),
            None => Outcome::Failed(self.nobody(), Ended::Unreached, None),
        }
    }

    /// What stands before an attempt where nobody at the destination judges.
    async fn admit(
        &self,
        picked: &Picked,
        arrived: &mut Arrived,
        exchange: &mut Exchange,
    ) -> Result<(), Answer> {
        let prepared = match self.prepare(picked, arrived) {
            // Boxed, because it is rare.
            Err(refused) if !refused.keys.is_empty() => {
                Box::pin(self.prepare_again(picked, arrived, refused)).await
            }
            prepared => prepared,
        };
        let (mut filtered, asks) = match prepared {
            Ok(Prepared { notes, filtered, asks }) => {
                exchange.record.notes(notes);
                (filtered, asks)
            }
            Err(refused) => {
                exchange.record.notes(refused.notes);
                return Err(refused.answer);
            }
        };
        if !asks.is_empty() {
            // Boxed, because it is large and most requests go without it.
            let heard = Some(&mut *exchange);
            filtered = Box::pin(self.ask_providers(asks, picked, arrived, heard)).await?;
        }
        let mut authorizes = filtered.iter().flat_map(|it| it.0.iter()).map(|it| it.authorizes);
        if arrived.untold.is_none()
            && (authorizes.any(|it| it) || self.asked_here(picked).next().is_some())
        {
            let sent = Sent::of(&arrived.request);
            arrived.untold = Some(Box::new(Untold { sent, mutations: None }));
        }
        for filter in self.asked_here(picked) {
            // Boxed as well.
            let (authorizer, request) = (self.session.authorizer(), &mut arrived.request);
            let namespace = self.plan.chosen.as_ref().map_or("", |it| &it.route().namespace);
            let before = self.before.as_deref().map(|sent| (&sent.uri, &sent.headers));
            let heard = Some(&mut *exchange);
            let asked =
                guards::ask_external(&authorizer, namespace, filter, before, request, heard);
            Box::pin(asked).await?;
        }
        self.limit(picked, arrived, filtered, Some(exchange)).await
    }

    /// The rule's authorizers, where this half asks them: of a consumer's route, and of any route to a pod of another namespace,
    /// whose agent does not ask on the route's behalf.
    fn asked_here(&self, picked: &Picked) -> impl Iterator<Item = &ExternalAuth> {
        let route = self.plan.chosen.as_ref().map(Chosen::route);
        let is_there = |namespace: &str| route.is_some_and(|route| route.namespace == namespace);
        let asked_there = is_there(&self.plan.addressed.key.namespace)
            && picked.captured().is_none_or(|server| is_there(&server.key.namespace));
        let [of_rule, _] = self.plan.filters();
        let here = if asked_there { &[] } else { of_rule };
        here.iter().filter_map(|filter| match filter {
            HttpFilter::ExternalAuth(filter) => Some(filter),
            _ => None,
        })
    }

    /// One attempt at one endpoint, for a copy.
    pub(in crate::l7) async fn send_once(
        &self,
        mut arrived: Arrived,
    ) -> Result<(Response<UpstreamBody>, Lease), Answer> {
        let picked = self.plan.endpoint(&self.world, &self.session, &Attempts::default());
        let mut picked = picked.ok_or_else(|| self.nobody())?;
        let got = self.attempt_at(&mut picked, &mut arrived, &mut 0, None, |ended| ended).await;
        let got = got.map_err(|failed| failed.answer)?;
        Ok((got.response, got.lease))
    }

    /// One attempt at this endpoint, which no record tells of. `heard`: what its end tells about the endpoint.
    pub(super) async fn attempt_at(
        &self,
        picked: &mut Picked,
        arrived: &mut Arrived,
        count: &mut u32,
        due: Option<Instant>,
        heard: impl Fn(Ended) -> Ended,
    ) -> Result<Got, Failed> {
        let denied = |answer| Failed::of(answer, Ended::Denied);
        let prepared = self.prepare(picked, arrived).map_err(|refused| denied(refused.answer))?;
        let Prepared { mut filtered, asks, .. } = prepared;
        if !asks.is_empty() {
            let asked = Box::pin(self.ask_providers(asks, picked, arrived, None)).await;
            filtered = asked.map_err(denied)?;
        }
        self.limit(picked, arrived, filtered, None).await.map_err(denied)?;
        if picked.limits_requests() {
            Box::pin(self.take_place(picked, arrived, None)).await.map_err(denied)?;
        }
        let sent = self.attempt(picked, arrived, count, due).await;
        picked.ended(heard(match &sent {
            Ok(got) => got.ended(),
            Err(failed) => failed.ended,
        }));
        sent
    }

    /// What depends on the endpoint. One in the mesh judges for itself, and gets the original values when it will look
    /// at them; for one that is not, this half judges. Gives the notes of policies.
    fn prepare(&self, picked: &Picked, arrived: &mut Arrived) -> Result<Prepared, Box<Refused>> {
        // An attempt before may have changed and added these.
        if let Some(Sent { uri, headers }) = arrived.untold.take().map(|it| it.sent) {
            *arrived.request.uri_mut() = uri;
            *arrived.request.headers_mut() = headers;
        }
        headers::strip_internal(arrived.request.headers_mut());
        headers::take_attempt(arrived.request.headers_mut());
        headers::strip_hop_by_hop(arrived.request.headers_mut());
        if let Err(denial) = self.judge().judge_lent(&self.world, picked, &arrived.request) {
            return Err(denied(denial, arrived));
        }
        let captured = picked.captured();
        let (backend, port) = &self.plan.backend;
        let namespace = &self.session.client.key.namespace;
        let port = (*port, self.plan.subset());
        let encrypted = gate::encryption(backend, port, namespace, captured.is_some());
        if let Err(why) = encrypted {
            return Err(Answer::in_the_clear(why).into());
        }
        let Some(server) = captured else {
            return self.authorize(picked, arrived);
        };
        // Of what a consumer's route changed nobody there believes the original.
        let Some(before) = self.before.as_ref().filter(|_| self.judge().is_producers()) else {
            return Ok(Prepared::default());
        };
        let port = picked.address.port();
        let hostname = Some(self.plan.addressed.hostname.as_str());
        let client = Some(&self.session.client.identity);
        let addressed = gate::addressed(&self.world, server, port, hostname, client);
        if Gate::new(&self.world, server, port, &addressed).needs_http() {
            let request = &mut arrived.request;
            let original = Original::between(before, request.uri(), request.headers());
            if let Some(original) = original.encode() {
                request.headers_mut().insert(headers::ORIGINAL, original);
            }
        }
        Ok(Prepared::default())
    }

    /// The same once more when the keys have been fetched that a token may be of.
    async fn prepare_again(
        &self,
        picked: &Picked,
        arrived: &mut Arrived,
        refused: Box<Refused>,
    ) -> Result<Prepared, Box<Refused>> {
        let lacking = refused.keys.clone();
        let mut prepared = Err(refused);
        let again = || {
            prepared = self.prepare(picked, arrived);
            prepared.as_ref().is_err_and(|refused| !refused.keys.is_empty())
        };
        keys::await_newer(&self.session.context.dependencies, &lacking, again).await;
        prepared
    }

    /// Asks the filters of the destination, where nobody there does: for each endpoint as for a pod.
    async fn limit(
        &self,
        picked: &Picked,
        arrived: &mut Arrived,
        guarding: Option<Guarding>,
        mut exchange: Option<&mut Exchange>,
    ) -> Result<(), Answer> {
        let Some((filtered, bearer)) = guarding else { return Ok(()) };
        if let Some(exchange) = exchange.as_deref_mut() {
            exchange.forget_limits();
            exchange.release();
        }
        let pod = picked.address.to_string();
        let from = Asking {
            identity: Some(&self.session.client.identity),
            address: self.session.client_address.ip(),
            pod: &pod,
            claims: bearer.as_deref().map(|it| it as &dyn Claims),
            node: None,
        };
        let sent = self.before.as_deref().filter(|_| self.judge().is_producers());
        let sent = sent.map(|sent| (&sent.uri, &sent.headers));
        let (authorizer, request) = (self.session.authorizer(), &mut arrived.request);
        // Boxed, because it is large and most requests are limited at the destination.
        let asked = guards::ask(&self.world, &filtered, from, &authorizer, sent, request, exchange);
        Box::pin(asked).await
    }

    /// Asks providers, where nobody at the destination does, and judges the request as they make it. Gives the filters that nobody
    /// else asks.
    async fn ask_providers(
        &self,
        asks: Vec<Ask>,
        picked: &Picked,
        arrived: &mut Arrived,
        mut exchange: Option<&mut Exchange>,
    ) -> Result<Option<Guarding>, Answer> {
        let sent = self.before.as_deref().map(|sent| (&sent.uri, &sent.headers));
        let sent = sent.filter(|_| self.judge().is_producers());
        let authorizer = self.session.authorizer();
        let heard = exchange.as_deref_mut();
        let mutations = Arc::new(authorizer.ask(&asks, &mut arrived.request, sent, heard).await?);
        let judged = match &mut arrived.untold {
            Some(untold) => {
                untold.mutations = Some(mutations.clone());
                untold.sent.request(arrived.request.method())
            }
            None => Sent::of(&arrived.request).request(arrived.request.method()),
        };
        let (permitted, world) =
            (Providers::Permit(&mutations), self.session.context.dependencies.world.snapshot());
        let (permit, denial) = match self.judge().judge(&world, picked, &judged, permitted) {
            Ok(permit) => (permit, None),
            Err(denial) => (None, Some(denial)),
        };
        let notes = permit.as_ref().map(|it| &it.notes).or(denial.as_ref().map(|it| &it.notes));
        if let Some(exchange) = exchange {
            exchange.added = Some(Box::new(mutations.response()));
            exchange.record.notes(notes.cloned().unwrap_or_default());
        }
        if let Some(denial) = denial {
            return Err(Answer::of_denial(&denial, judged.uri(), judged.headers()));
        }
        mutations.apply(arrived.request.headers_mut());
        arrived.request.body_mut().leave_to_providers(&mutations);
        Ok(permit.and_then(|permit| Some((permit.filtered?, permit.bearer))))
    }

    /// For a destination where nobody judges.
    fn authorize(&self, picked: &Picked, arrived: &mut Arrived) -> Result<Prepared, Box<Refused>> {
        if let Some(server) = &self.plan.backend.0.server {
            self.keeps_name(server, arrived)?;
        }
        match self.judge().judge(&self.world, picked, &arrived.request, Providers::NotAsked) {
            Ok(None) => Ok(Prepared::default()),
            Ok(Some(permit)) => {
                if permit.told.is_some() || !permit.asks.is_empty() {
                    let sent = Sent::of(&arrived.request);
                    arrived.untold = Some(Box::new(Untold { sent, mutations: None }));
                }
                if let Some(told) = &permit.told {
                    told.apply(&mut arrived.request);
                    arrived.request.body_mut().forbid_in_trailers(told.not_in_trailers());
                }
                if let Some(by) = permit.waypoint.filter(|_| permit.names_client) {
                    let client = &self.session.client.identity;
                    headers::name_client(arrived.request.headers_mut(), &by, client, None);
                }
                let filtered = permit.filtered.map(|it| (it, permit.bearer));
                Ok(Prepared { notes: permit.notes, filtered, asks: permit.asks })
            }
            Err(denial) => Err(denied(denial, arrived)),
        }
    }

    /// Policies are asked about what a consumer's route has made of a request, so it must not name another server to them than the one
    /// that was resolved.
    fn keeps_name(&self, server: &Str, arrived: &Arrived) -> Result<(), Answer> {
        if self.before.is_none() || self.judge().is_producers() {
            return Ok(());
        }
        let host = headers::name_of(headers::host(arrived.request.headers()));
        if covered(&self.plan.backend.0.hostname, host).is_some_and(|name| name == server.as_str())
        {
            return Ok(());
        }
        let why = format!("a route of the client's namespace names {host:?} in place of {server}");
        Err(Answer::no_route(why))
    }

    pub(in crate::l7) fn judge(&self) -> Judge<'_> {
        let (session, plan, before) = (&*self.session, &self.plan, self.before.as_deref());
        Judge { session, plan, before }
    }

    /// One endpoint: a connection from the shelf or a new one, and the request on it.
    async fn attempt(
        &self,
        picked: &Picked,
        arrived: &mut Arrived,
        count: &mut u32,
        due: Option<Instant>,
    ) -> Result<Got, Failed> {
        let session = &self.session;
        let version = self.version(arrived);
        let secured = self.secured(picked, arrived).await?;
        let shelf = session.context.upstreams.shelf(self.key(picked, version, secured.as_ref()));
        let dial = || async {
            let (from, addressed) = (session.downstream(), &self.plan.addressed.hostname);
            let tls = secured.as_ref().map(|secured| (secured, version.over_tls()));
            let reach = &session.context.reach;
            let stream = reach.connect(&from, picked, Some(addressed), tls).await?;
            let share = session.seat.share();
            let limits = picked.limits().map(|limits| limits.per_connection).unwrap_or_default();
            session.context.connect_under(limits, share, version, stream, picked.address).await
        };
        let mut lease = match shelf.lease(dial).await {
            Ok(lease) => lease,
            Err(error) => return Err(Failed::unconnected(&error)),
        };
        *count += 1;
        headers::count_attempt(arrived.request.headers_mut(), *count);
        tell_deadline(arrived, due);
        if let Some(upgrade) = &arrived.upgrade {
            upgrade.ask(arrived.request.headers_mut());
        }
        let unguarded = picked.captured().is_none();
        let judged = unguarded.then(|| Box::new(kept(arrived)));
        let streams = judged.as_ref().filter(|_| lasting::is_stream(&arrived.request));
        let judge = self.judge();
        let cut = streams.map(|head| -> Waits<'_> { Box::pin(judge.until_refused(picked, head)) });
        let sent = {
            let sending = pin!(lease.sender.send(&mut arrived.request));
            lasting::unless(sending, cut).await
        };
        match sent {
            Ok(Ok(response)) => {
                Ok(Got { response, lease, upgrade: arrived.upgrade.take(), judged })
            }
            Err((reason, why)) => {
                let answer = Answer::unreachable(reason, why);
                Err(Failed::of(answer, Ended::Denied))
            }
            Ok(Err(failed)) => {
                let failed = self.failed(picked, lease.reused, &failed);
                *count -= u32::from(matches!(failed.ended, Ended::Stale) && !failed.refused);
                Err(failed)
            }
        }
    }

    /// The end of an attempt without a response, on a connection that was perhaps `reused`.
    fn failed(&self, picked: &Picked, reused: bool, failed: &SendError) -> Failed {
        let answer = self.session.context.broken(picked.address, &failed.error);
        let ended = match (failed.unsent || failed.refused, reused) {
            // The client's body ended before its length, or it broke the rules.
            (false, _) if failed.error.is_clients() => Ended::GivenUp,
            (false, _) => Ended::Broken,
            (true, true) => Ended::Stale,
            (true, false) => Ended::Unreached,
        };
        Failed { unsent: failed.unsent, refused: failed.refused, answer, ended }
    }

    fn nobody(&self) -> Answer {
        let (service, port) = &self.plan.backend;
        let why = balance::nobody(service, *port, &self.plan.caller(&self.session));
        Answer::no_healthy_upstream(why)
    }
}

fn denied(denial: Denial, arrived: &Arrived) -> Box<Refused> {
    let (uri, headers) = (arrived.request.uri(), arrived.request.headers());
    let answer = Answer::of_denial(&denial, uri, headers);
    Box::new(Refused { answer, notes: denial.notes, keys: denial.keys })
}

/// Tells the application how long it has, where there is a deadline.
fn tell_deadline(arrived: &mut Arrived, due: Option<Instant>) {
    let Some(due) = due else { return };
    let left = due.saturating_duration_since(Instant::now());
    asked::tell(arrived.request.headers_mut(), left, arrived.form == Form::Grpc);
}

/// What is judged again of a request that lasts.
fn kept(arrived: &Arrived) -> Kept {
    match &arrived.untold {
        Some(untold) => Kept::of(&untold.sent.request(arrived.request.method()))
            .changed(untold.mutations.clone()),
        None => Kept::of(&arrived.request),
    }
}

/// The answer to a request that took too long, for this reason.
pub(super) fn late(reason: Reason) -> Answer {
    Answer::unreachable(reason, "the route's timeout passed before there was a response")
}
