//! What both halves of a waypoint would do with a request, for people: the same functions over one snapshot, without a connection.
//! Nothing is counted, no turn is taken, no provider is asked.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderValue, Request, StatusCode};

use super::client::plan;
use super::destination::gates::Inbound;
use super::exchange::answer::Answer;
use super::message::original::Original;
use super::message::sent::{self, Sent};
use super::message::{framing, headers};
use crate::base::{Identity, ObjectKey, PolicyNote, Str};
use crate::filter::Pair;
use crate::gate::{Gate, Permit, Providers, Views, Whose};
use crate::model::{HttpRoute, Service, Workload};
use crate::policy::{Connection, Denial, Explained, speaks_for};
use crate::route::{Candidate, Client, Who};
use crate::world::World;

/// Fields that a request of a question may have: the settings of the worker do not matter here.
const MOST_FIELDS: usize = 1_000;

/// Who asks, and where.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    pub world: &'a World,
    pub client: &'a Workload,
    pub client_address: SocketAddr,
    /// What it dialled.
    pub dialled: SocketAddr,
    /// The service that it addressed; `None`: a pod.
    pub service: Option<&'a ObjectKey>,
}

/// An answer that no application gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAnswer {
    pub status: StatusCode,
    pub text: &'static str,
    /// The flag in the access log.
    pub flag: &'static str,
    pub why: String,
}

/// The rule that holds, and the matches that were looked at before it.
pub struct Ruled {
    /// `None`: the service has no routes.
    pub rule: Option<(Arc<HttpRoute>, usize)>,
    /// In the order of precedence.
    pub candidates: Vec<Candidate>,
}

/// A request as it arrives at a destination.
pub struct Forwarded {
    pub request: Request<()>,
    /// What the client's half tells of the original.
    original: Option<HeaderValue>,
}

/// What a destination decides.
pub struct Judged {
    /// The service that was addressed, as far as its name counts there.
    pub addressed: Option<Str>,
    pub verdict: Result<Permitted, Denial>,
    /// Of the answer to a request that is refused.
    pub status: u16,
    /// Each set of policies.
    pub policies: Vec<(Whose, Vec<Explained>)>,
}

/// What a destination permits.
pub struct Permitted {
    /// The policy that allowed, where one did.
    pub policy: Option<ObjectKey>,
    /// The waypoint whose principal counts beside the client's.
    pub waypoint: Option<Identity>,
    /// Providers that are asked first.
    pub asks: Vec<Str>,
    pub notes: Vec<PolicyNote>,
}

impl From<Answer> for OwnAnswer {
    fn from(answer: Answer) -> Self {
        let Answer { status, text, reason, why, .. } = answer;
        Self { status, text, flag: reason.flag(), why: why.into_string() }
    }
}

impl Judged {
    fn of(
        addressed: Option<&Arc<Service>>,
        verdict: Result<Permit, Denial>,
        policies: Vec<(Whose, Vec<Explained>)>,
        request: Option<&Request<()>>,
    ) -> Self {
        let none = Request::new(());
        let request = request.unwrap_or(&none);
        let answer =
            |denial: &Denial| Answer::of_denial(denial, request.uri(), request.headers()).status;
        let status = verdict.as_ref().err().map_or(StatusCode::OK, answer).as_u16();
        let addressed = addressed.map(|service| service.hostname.clone());
        Self { addressed, verdict: verdict.map(Permitted::from), status, policies }
    }
}

impl Asking<'_> {
    /// The same request once more.
    pub fn copy(&self, request: &Request<()>) -> Request<()> {
        let mut copied = copied(request);
        *copied.version_mut() = request.version();
        copied
    }

    /// Brings a request into the form that routes and policies see, as the client's half does.
    ///
    /// # Errors
    /// What is wrong with it, as it would be answered.
    pub fn canonical(&self, request: &mut Request<()>) -> Result<(), OwnAnswer> {
        let framed = framing::check_request(request.headers(), MOST_FIELDS);
        let mut canonical = || Ok(headers::canonical(request, Some(self.dialled))?);
        framed.and_then(|()| canonical()).map_err(Answer::fault)?;
        headers::strip_internal(request.headers_mut());
        headers::add_missing(request.headers_mut());
        Ok(())
    }

    /// The rule that takes a request in canonical form.
    ///
    /// # Errors
    /// The answer where none does; with the matches that were looked at.
    pub fn rule(&self, request: &Request<()>) -> Result<Ruled, (OwnAnswer, Vec<Candidate>)> {
        let namespace = &self.client.key.namespace;
        let who = Who::Workload(&self.client.uid);
        let client = Client { namespace, who, selected_by: None };
        let head = sent::head(request.method(), request.uri(), request.headers(), client);
        let Some(addressed) = self.service else {
            return Ok(Ruled { rule: None, candidates: Vec::new() });
        };
        let candidates = match self.world.service(addressed) {
            Some(service) => {
                let port = self.dialled.port();
                crate::route::candidates(self.world, service, port, namespace, &head)
            }
            None => Vec::new(),
        };
        match plan::route(self.world, addressed, self.dialled, namespace, &head) {
            Ok(route) => {
                let chosen = route.chosen.as_ref();
                let rule = chosen.map(|it| (it.http_route().clone(), it.rule_index()));
                Ok(Ruled { rule, candidates })
            }
            Err(answer) => Err((answer.into(), candidates)),
        }
    }

    /// The request as these filters of a rule and its backend make it.
    pub fn forward(
        &self,
        request: &Request<()>,
        rule: Option<(&HttpRoute, usize)>,
        filters: Pair<'_>,
    ) -> Forwarded {
        let mut forwarded = copied(request);
        let before = Sent::of(request);
        if filters.iter().all(|filters| filters.is_empty()) {
            return Forwarded { request: forwarded, original: None };
        }
        sent::filter(filters, &before, &mut forwarded);
        let authors = rule.and_then(|(route, at)| Some((route, route.rules.get(at)?)));
        let is_producers = authors.is_some_and(|(route, rule)| {
            self.service.is_some_and(|it| speaks_for(it, route.authors(rule), &it.namespace))
        });
        let original = is_producers
            .then(|| Original::between(&before, forwarded.uri(), forwarded.headers()).encode());
        Forwarded { request: forwarded, original: original.flatten() }
    }

    /// What the agent of a captured workload decides of a request that comes in the client's tunnel.
    pub fn judge(
        &self,
        workload: &Arc<Workload>,
        destination: SocketAddr,
        forwarded: &Forwarded,
    ) -> Judged {
        let inbound = self.inbound(workload, destination);
        let gates = inbound.gates(self.world);
        let (request, original) = (&forwarded.request, forwarded.original.as_ref());
        let verdict = gates.authorize(self.world, &inbound, request, original, Providers::NotAsked);
        let policies = gates.explain(self.world, &inbound, request, original);
        Judged::of(gates.service(), verdict.map(|it| it.permit), policies, Some(request))
    }

    /// The same of bytes.
    pub fn judge_bytes(
        &self,
        workload: &Arc<Workload>,
        destination: SocketAddr,
        server_name: Option<&str>,
    ) -> Judged {
        let inbound = self.inbound(workload, destination);
        let gates = inbound.gates(self.world);
        let policies = gates.explain_bytes(&inbound, server_name);
        let verdict = gates.authorize_bytes(&inbound, server_name);
        Judged::of(gates.service(), verdict, policies, None)
    }

    /// What the client's half decides of a request to a destination without an agent.
    pub fn judge_here(
        &self,
        gate: &Gate,
        destination: SocketAddr,
        forwarded: &Forwarded,
        before: &Request<()>,
    ) -> Judged {
        let connection = self.connection(destination);
        let (method, arrives) = (forwarded.request.method(), &forwarded.request);
        let arrived = sent::policy_request(method, arrives.uri(), arrives.headers());
        let sent = sent::policy_request(method, before.uri(), before.headers());
        let sent = if forwarded.original.is_some() { &sent } else { &arrived };
        let views = Views { arrived: &arrived, sent, providers: Providers::NotAsked };
        let policies = gate.explain(&connection, Some(views));
        let verdict = gate.decide_views(&connection, Some(views));
        Judged::of(gate.service(), verdict, policies, Some(arrives))
    }

    /// The same of bytes.
    pub fn judge_bytes_here(&self, gate: &Gate, destination: SocketAddr) -> Judged {
        let connection = self.connection(destination);
        let policies = gate.explain(&connection, None);
        Judged::of(gate.service(), gate.decide_views(&connection, None), policies, None)
    }

    fn connection(&self, destination: SocketAddr) -> Connection<'_> {
        Connection {
            client: Some(&self.client.identity),
            source: self.client_address.ip(),
            destination,
            server_name: None,
        }
    }

    fn inbound(&self, workload: &Arc<Workload>, destination: SocketAddr) -> Inbound {
        let service = self.service.and_then(|service| self.world.service(service));
        Inbound {
            workload: workload.clone(),
            client: self.client.is_captured().then(|| self.client.identity.clone()),
            client_address: self.client_address,
            destination,
            forwarded_host: service
                .filter(|_| self.client.is_captured())
                .map(|service| service.hostname.clone()),
            baggage: None,
            in_process: self.client.node == workload.node,
        }
    }
}

impl From<Permit> for Permitted {
    fn from(permit: Permit) -> Self {
        let asks = permit.asks.iter().map(|ask| ask.provider.name.clone()).collect();
        Self { policy: permit.policy, waypoint: permit.waypoint, asks, notes: permit.notes }
    }
}

fn copied(request: &Request<()>) -> Request<()> {
    Sent::of(request).request(request.method())
}
