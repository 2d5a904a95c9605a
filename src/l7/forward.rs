//! From a plan to a response: endpoint, authorization where nobody else will do it, connection, retry, response.
//!
//! Tried again is only what was certainly not sent: a refused connection, a tunnel that could not be opened, a
//! connection that was closed before the request was written.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode};
use hyper::body::Incoming;

use super::arrived::Arrived;
use super::body::ResponseBody;
use super::detect::Version;
use super::exchange::Exchange;
use super::original::{self, Original};
use super::outbound::Outbound;
use super::plan::Plan;
use super::respond::{Answer, Form};
use super::sent::{self, Sent};
use super::upgrade::{self, Upgrade};
use super::upstream::{Key, Lease, Sender};
use super::{headers, peers};
use crate::balance::{self, Picked};
use crate::base::Reason;
use crate::policy::{self, Connection, Gate};
use crate::route;
use crate::telemetry::RequestRecord;
use crate::world::World;

/// How many endpoints are tried: the first and two more, as Envoy and Istio do.
pub(super) const MAX_ATTEMPTS: usize = 3;

/// A request that knows where it goes.
pub(super) struct Way {
    pub(super) session: Arc<Outbound>,
    pub(super) world: Arc<World>,
    pub(super) plan: Plan,
    /// The request as the client sent it, when the route's filters may have changed it.
    pub(super) before: Option<Box<Sent>>,
    /// The site whose script asks, when a filter wants to know.
    pub(super) origin: Option<HeaderValue>,
}

/// A response, and what it came with.
struct Got {
    response: Response<Incoming>,
    lease: Lease,
    upgrade: Option<Upgrade>,
}

/// An attempt without a response.
struct Failed {
    /// Given back when certainly nothing of it was sent.
    unsent: Option<Box<Arrived>>,
    answer: Answer,
    /// On a connection that had rested, which tells nothing about the endpoint.
    stale: bool,
}

impl Way {
    /// Tries endpoints until one has the request; passes on its response, or ours.
    pub(super) async fn forward(
        self,
        mut arrived: Arrived,
        first: Option<Picked>,
        mut exchange: Box<Exchange>,
    ) -> Response<ResponseBody> {
        let form = arrived.form;
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut failure: Option<Answer> = None;
        let mut next = first;
        for _ in 0..MAX_ATTEMPTS {
            let Some(picked) = next else { break };
            let peer =
                self.session.context.peers.destination(&self.world, picked.workload.as_ref());
            exchange.record.destination(peer, picked.address);
            if let Err(answer) = self.prepare(&picked, &mut arrived, &mut exchange.record) {
                return answer.respond(exchange, form);
            }
            match self.attempt(&picked, arrived).await {
                Ok(got) => return self.deliver(got, picked, exchange, form),
                Err(Failed { unsent: None, answer, .. }) => return answer.respond(exchange, form),
                Err(Failed { unsent: Some(unsent), answer, stale }) => {
                    arrived = *unsent;
                    failure = Some(answer);
                    if !stale {
                        tried.push(picked.address);
                    }
                }
            }
            next = self.plan.endpoint(
                &self.world,
                self.session.caller(),
                self.session.dialled,
                &tried,
            );
        }
        failure.unwrap_or_else(|| self.nobody()).respond(exchange, form)
    }

    /// What depends on the endpoint. One in the mesh judges for itself, and gets the original values when it will look
    /// at them; for one that is not, this half judges.
    fn prepare(
        &self,
        picked: &Picked,
        arrived: &mut Arrived,
        record: &mut RequestRecord,
    ) -> Result<(), Answer> {
        // An attempt before may have added these.
        headers::strip_internal(arrived.request.headers_mut());
        headers::strip_hop_by_hop(arrived.request.headers_mut());
        let Some(server) = peers::captured(picked.workload.as_ref()) else {
            return self.authorize(picked, arrived, record);
        };
        let Some(before) = &self.before else { return Ok(()) };
        let port = picked.address.port();
        let hostname = Some(self.plan.addressed.hostname.as_str());
        let addressed = policy::addressed(&self.world, server, port, hostname);
        if Gate::new(&self.world, server, port, &addressed).needs_http() {
            let request = &mut arrived.request;
            let original = Original::between(before, request.uri(), request.headers());
            if let Some(original) = original.encode() {
                request.headers_mut().insert(original::HEADER, original);
            }
        }
        Ok(())
    }

    /// The policies of the addressed service, for a destination outside of the mesh.
    fn authorize(
        &self,
        picked: &Picked,
        arrived: &Arrived,
        record: &mut RequestRecord,
    ) -> Result<(), Answer> {
        let gate = Gate::for_service(&self.world, &self.plan.addressed);
        let connection = Connection {
            client: Some(&self.session.client.identity),
            source: self.session.client_address.ip(),
            destination: picked.address,
        };
        let (method, arrived) = (arrived.request.method(), &arrived.request);
        let (uri, headers) = match &self.before {
            Some(sent) => (&sent.uri, &sent.headers),
            None => (arrived.uri(), arrived.headers()),
        };
        let request = sent::policy_request(method, uri, headers);
        match gate.authorize(&connection, Some(&request)) {
            Ok(permit) => {
                record.notes(permit.notes);
                Ok(())
            }
            Err(denial) => {
                record.notes(denial.notes);
                Err(Answer::denied(denial.why))
            }
        }
    }

    /// One endpoint: a connection from the shelf or a new one, and the request on it.
    async fn attempt(&self, picked: &Picked, mut arrived: Arrived) -> Result<Got, Failed> {
        let session = &self.session;
        let version = match &arrived.upgrade {
            // Only HTTP/1.1 has upgrades.
            Some(_) => Version::Http1,
            None => session.upstream_version(arrived.version, self.plan.protocol()),
        };
        let shelf = session.context.upstreams.shelf(self.key(picked, version));
        let dial = || async {
            let stream = session.dial(&self.plan.addressed, picked).await?;
            Sender::connect(&session.context, version, stream, picked.address).await
        };
        let mut lease = match shelf.lease(dial).await {
            Ok(lease) => lease,
            Err(error) => {
                let answer = Answer::unreachable(error.reason(), error.to_string());
                // A destination that has decided is not asked again elsewhere: another would decide alike.
                let decided = answer.reason == Reason::Denied;
                let unsent = (!decided).then(|| Box::new(arrived));
                return Err(Failed { unsent, answer, stale: false });
            }
        };
        if let Some(upgrade) = &arrived.upgrade {
            upgrade.ask(arrived.request.headers_mut());
        }
        match lease.sender.send(std::mem::take(&mut arrived.request)).await {
            Ok(response) => Ok(Got { response, lease, upgrade: arrived.upgrade }),
            Err(failed) => {
                let why = format!("{}: {}", picked.address, failed.error);
                let answer = Answer::unreachable(Reason::PeerReset, why);
                let unsent = failed.unsent.map(|request| {
                    arrived.request = *request;
                    Box::new(arrived)
                });
                Err(Failed { unsent, answer, stale: lease.reused })
            }
        }
    }

    /// Passes the response on, through the rule's response filters.
    fn deliver(
        &self,
        got: Got,
        picked: Picked,
        mut exchange: Box<Exchange>,
        form: Form,
    ) -> Response<ResponseBody> {
        let Got { mut response, lease, upgrade } = got;
        for filters in self.plan.filters() {
            route::filter_response(filters, self.origin.as_ref(), response.headers_mut());
        }
        exchange.answered(response.status(), response.headers(), lease, picked.in_flight);
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return relay(response, exchange);
        }
        match upgrade {
            Some(upgrade) => {
                let (context, hold) = (&self.session.context, self.session.clone());
                upgrade.switch(context, response, exchange, std::future::pending(), hold)
            }
            None => upgrade::unasked().respond(exchange, form),
        }
    }

    fn nobody(&self) -> Answer {
        let (service, port) = &self.plan.backend;
        let why = balance::nobody(service, *port, &self.session.client);
        Answer::no_healthy_upstream(why)
    }

    fn key(&self, picked: &Picked, version: Version) -> Key {
        let client = &self.session.client;
        let server = peers::captured(picked.workload.as_ref());
        Key {
            client_uid: client.uid.clone(),
            client: client.identity.clone(),
            client_address: self.session.client_address.ip(),
            service: self.plan.addressed.key.clone(),
            endpoint: picked.address,
            server: server.map(|server| server.identity.clone()),
            version,
        }
    }
}

/// Streams a response down. Its version is left to the server: that of the downstream connection.
pub(super) fn relay(
    response: Response<Incoming>,
    exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let (mut head, body) = response.into_parts();
    headers::strip_hop_by_hop(&mut head.headers);
    let mut response = Response::new(ResponseBody::streamed(body, exchange));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}
