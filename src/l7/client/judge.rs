//! Authorization by the client's half, where nobody else judges: of requests to destinations without an agent, and of answers
//! that no application gives.

use std::sync::Arc;

use http::header::ACCESS_CONTROL_REQUEST_METHOD;
use http::{HeaderMap, Method, Request};

use super::plan::{Chosen, Plan};
use super::session::Session;
use crate::balance::Picked;
use crate::base::{PolicyNote, Reason};
use crate::ext_authz::Mutations;
use crate::gate::{self, Addressed, Ask, Gate, Permit, Providers, Views};
use crate::jwt::KeySource;
use crate::l7::exchange::answer::Answer;
use crate::l7::message::lasting::{self, End, Kept};
use crate::l7::message::sent::{self, Sent};
use crate::policy::{Connection, Denial, speaks_for};
use crate::reach::{self, cut_after_a_change};
use crate::world::World;

/// What decides about a request, besides the endpoint and what is sent there.
#[derive(Clone, Copy)]
pub(in crate::l7) struct Judge<'a> {
    pub(in crate::l7) session: &'a Session,
    pub(in crate::l7) plan: &'a Plan,
    /// The request as the client sent it, when the route's filters may have changed it.
    pub(in crate::l7) before: Option<&'a Sent>,
}

impl Judge<'_> {
    /// The waypoints' policies, as [`reach::judge`] has them. What a producer's route changed is judged as it was sent, what a
    /// consumer's did as it will arrive.
    pub(in crate::l7) fn judge<B>(
        &self,
        world: &World,
        picked: &Picked,
        request: &Request<B>,
        providers: Providers<'_>,
    ) -> Result<Option<Permit>, Denial> {
        let way = self.way(picked);
        let arrives = sent::policy_request(request.method(), request.uri(), request.headers());
        let sent = match self.before.filter(|_| self.is_producers()) {
            Some(sent) => sent::policy_request(request.method(), &sent.uri, &sent.headers),
            None => arrives,
        };
        let views = Views { arrived: &arrives, sent: &sent, providers };
        reach::judge(world, &self.session.downstream(), &way, Some(views))
    }

    /// Whether the request may go to an endpoint by whom its rule is ([`Plan::lent`]). As in Istio, where the waypoint that carries
    /// the rule out calls in its own name; here, where it calls in the client's, both must be permitted.
    pub(in crate::l7) fn judge_lent<B>(
        &self,
        world: &World,
        picked: &Picked,
        request: &Request<B>,
    ) -> Result<(), Denial> {
        let client = &self.session.client;
        let owner = picked.workload.as_ref().map_or(&self.plan.backend.0.key, |it| &it.key);
        let Some(waypoint) = self.plan.lent(world, client, &owner.namespace) else {
            return Ok(());
        };
        // What the addressed service itself asks of its clients is no matter of its waypoint's name.
        let (backend, port) = &self.plan.backend;
        let gate = match &picked.workload {
            Some(workload) if workload.is_captured() => {
                Gate::new(world, workload, picked.address.port(), &Addressed::Workload)
            }
            _ => Gate::for_uncaptured(world, &reach::direct(backend, *port, picked)),
        };
        let connection = Connection {
            client: Some(&waypoint),
            source: self.session.client_address.ip(),
            destination: picked.address,
            server_name: None,
        };
        let arrives = sent::policy_request(request.method(), request.uri(), request.headers());
        let views =
            Views { providers: Providers::Permit(Mutations::NONE), ..Views::same(&arrives) };
        let denied = |denial: Denial| {
            let by = self.plan.chosen.as_ref().map(Chosen::route);
            let by = by.map_or_else(|| "a mirror".to_owned(), ToString::to_string);
            let why = format!(
                "{by} leads clients of {} to the namespace {}, where {waypoint}, which carries it out, may not go: {}",
                client.key.namespace, owner.namespace, denial.why
            );
            Denial { why, ..denial }
        };
        gate.decide_views(&connection, Some(views)).map(|_| ()).map_err(denied)
    }

    fn way<'a>(&'a self, picked: &'a Picked) -> gate::Way<'a> {
        let Plan { addressed, port, chosen, backend: (backend, backend_port), .. } = self.plan;
        gate::Way {
            addressed,
            port: *port,
            route: chosen.as_ref().map(Chosen::route),
            delegate: chosen.as_ref().and_then(Chosen::delegate),
            backend: (backend, *backend_port),
            workload: picked.workload.as_deref(),
            destination: picked.address,
        }
    }

    /// The rule is of the addressed service's own namespace.
    pub(in crate::l7) fn is_producers(&self) -> bool {
        let (service, chosen) = (&self.plan.addressed.key, self.plan.chosen.as_ref());
        let route = chosen.map(Chosen::route);
        let led = route.into_iter().chain(chosen.and_then(Chosen::delegate));
        speaks_for(service, led, &service.namespace)
    }

    /// Ends when a request may not go on. Every change may concern it, and it is judged once in a while at most, so that a
    /// tenant's churn costs little.
    pub(in crate::l7) async fn until_refused(&self, picked: &Picked, head: &Kept) -> End {
        let store = &self.session.context.dependencies.world;
        let mut changes = store.subscribe();
        loop {
            let world = store.snapshot();
            let Session { client, dialled, .. } = self.session;
            if let Some(why) = reach::unregistered(&world, &client.uid, *dialled) {
                return (Reason::NotRegistered, cut_after_a_change(&why));
            }
            if let Some(why) = self.unencrypted(&world, picked) {
                return (Reason::Unencrypted, cut_after_a_change(&why));
            }
            if let Err(denial) = self.judge(&world, picked, &head.request(), head.providers()) {
                return (Reason::Denied, cut_after_a_change(&denial.why));
            }
            drop(world);
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(lasting::AWHILE).await;
        }
    }

    /// Why an object no longer permits that the request is sent as it is.
    fn unencrypted(&self, world: &World, picked: &Picked) -> Option<String> {
        let (backend, port) = &self.plan.backend;
        let namespace = &self.session.client.key.namespace;
        let backend = world.service(&backend.key)?;
        let tunnelled = picked.captured().is_some();
        // The request was sent as its plan's snapshot wanted it.
        let port = (*port, self.plan.subset());
        let sent = gate::encryption(&self.plan.backend.0, port, namespace, tunnelled);
        gate::refused_as_it_is(backend, port, namespace, tunnelled, sent.ok().flatten())
    }
}

/// A request that goes nowhere.
pub(in crate::l7) struct Refusal {
    pub(in crate::l7) answer: Answer,
    /// What policies that decide nothing have to say.
    pub(in crate::l7) notes: Vec<PolicyNote>,
    /// Providers that must permit that the client hears the answer, before the other policies decide.
    pub(in crate::l7) asks: Vec<Ask>,
    /// The client may hear another answer once newer keys are there.
    pub(in crate::l7) pending: Option<Box<Pending>>,
}

/// An answer that the client may not hear, as far as its token can be verified now.
pub(in crate::l7) struct Pending {
    pub(in crate::l7) answer: Answer,
    pub(in crate::l7) keys: Vec<Arc<KeySource>>,
}

impl From<Answer> for Refusal {
    fn from(answer: Answer) -> Self {
        Self { answer, notes: Vec::new(), asks: Vec::new(), pending: None }
    }
}

/// What the client may hear of an answer that no application gives: redirects, what CORS says, and that no route or backend
/// is there tell what a service has. No destination judges these requests, so this half does, by the policies of the
/// service and its waypoint, on what the client sent: `headers` are those. Browsers ask for leave without the headers and by
/// another method than those of the request that they announce, so either may be permitted.
pub(in crate::l7) fn heard<B>(
    session: &Session,
    world: &World,
    (request, headers): (&Request<B>, &HeaderMap),
    answer: Answer,
    providers: Providers<'_>,
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
        server_name: None,
    };
    let judge = |method: &Method| {
        let judged = sent::policy_request(method, request.uri(), headers);
        let views = Views { providers, ..Views::same(&judged) };
        gate.decide_views(&connection, Some(views))
    };
    let announced = Some(headers).filter(|_| request.method() == Method::OPTIONS);
    let announced = announced.and_then(|it| it.get(ACCESS_CONTROL_REQUEST_METHOD));
    let announced = announced.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
    let asked = judge(request.method());
    let judged = asked.or_else(|denial| announced.map_or(Err(denial), |method| judge(&method)));
    match judged {
        Ok(permit) => {
            refusal.notes = permit.notes;
            refusal.asks = permit.asks;
        }
        Err(denial) => {
            let instead = Answer::of_denial(&denial, request.uri(), headers);
            let answer = std::mem::replace(&mut refusal.answer, instead);
            refusal.notes = denial.notes;
            let keys = denial.keys;
            refusal.pending = (!keys.is_empty()).then(|| Box::new(Pending { answer, keys }));
        }
    }
    refusal
}
