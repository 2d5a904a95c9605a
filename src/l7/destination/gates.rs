//! Authorization at the destination: pure over one snapshot. What a request must pass, and the request that is judged.
//!
//! A peer's word selects policies, as dialling a virtual address does, and never grants anything: which service was
//! addressed counts only if the workload serves it, a route only if it leads here, original values only if a route of the
//! addressed service's own namespace leads from them to exactly what arrived. What a consumer's route changed is judged as it
//! arrived, as if the client itself had sent it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Uri};

use crate::base::{Identity, Str};
use crate::filter::{self, Pair};
use crate::gate::{self, Addressed, ArrivalClass, Gate, Permit, Providers, Views, Whose};
use crate::l7::message::headers;
use crate::l7::message::original::Original;
use crate::l7::message::sent::{self, Sent};
use crate::model::{AppProtocol, Backend, HttpRoute, HttpRule, Service, Workload};
use crate::policy::{Connection, Denial, Explained, speaks_for};
use crate::route::{self, Client, Head, Selection, Who};
use crate::tunnel::{Baggage, GuardedConnection};
use crate::world::World;

/// What is known of an inbound connection.
#[derive(Clone)]
pub(in crate::l7) struct Inbound {
    /// As layer 4 knew it; a newer world may know another.
    pub(in crate::l7) workload: Arc<Workload>,
    /// Proven by mutual TLS.
    pub(in crate::l7) client: Option<Identity>,
    pub(in crate::l7) client_address: SocketAddr,
    pub(in crate::l7) destination: SocketAddr,
    /// The service that the tunnel's request named.
    pub(in crate::l7) forwarded_host: Option<Str>,
    /// What the client's proxy says of a client that the mesh does not know; for labels.
    pub(in crate::l7) baggage: Option<Box<Baggage>>,
    /// From a workload of this node, without a tunnel.
    pub(in crate::l7) in_process: bool,
}

impl Inbound {
    pub(in crate::l7) fn of(connection: &GuardedConnection) -> Self {
        Self {
            workload: connection.workload.clone(),
            client: connection.client.clone(),
            client_address: connection.client_address,
            destination: connection.destination,
            forwarded_host: connection.forwarded_host.clone(),
            baggage: connection.baggage.clone(),
            in_process: connection.stream.is_local(),
        }
    }

    pub(in crate::l7) fn class(&self) -> ArrivalClass {
        let port = self.destination.port();
        ArrivalClass::of(port, self.forwarded_host.as_ref(), self.client.as_ref())
    }

    /// What this world demands of the connection.
    pub(in crate::l7) fn gates(&self, world: &World) -> Gates {
        Gates::new(world, self)
    }

    /// As routes match it.
    fn as_client(&self) -> Client<'_> {
        let Some(identity) = &self.client else { return Client::default() };
        let who = Who::Peer(self.client_address.ip(), identity);
        Client { namespace: &identity.namespace, who, selected_by: None }
    }

    fn connection(&self) -> Connection<'_> {
        Connection {
            client: self.client.as_ref(),
            source: self.client_address.ip(),
            destination: self.destination,
            server_name: None,
        }
    }
}

/// All that one connection's requests must pass, from one snapshot.
pub(in crate::l7) struct Gates {
    addressed: Addressed,
    /// The addressed service speaks for the workload.
    speaks: bool,
    gate: Gate,
    /// For requests that a route of the addressed service leads here, where both speak for the workload.
    through_route: Option<Gate>,
}

impl PartialEq for Gates {
    /// Both demand the same of every request.
    fn eq(&self, other: &Self) -> bool {
        let Self { addressed, speaks, gate, through_route } = self;
        addressed.is_same(&other.addressed)
            && *speaks == other.speaks
            && *gate == other.gate
            && *through_route == other.through_route
    }
}

impl Gates {
    fn new(world: &World, inbound: &Inbound) -> Self {
        let workload = world.workload(&inbound.workload.uid).unwrap_or(&inbound.workload);
        let port = inbound.destination.port();
        let host = inbound.forwarded_host.as_deref();
        let addressed = gate::addressed(world, workload, port, host, inbound.client.as_ref());
        let gate = Gate::new(world, workload, port, &addressed);
        let own = |service: &Service| speaks_for(&service.key, None, &workload.key.namespace);
        let speaks = addressed.service().is_some_and(|service| own(service));
        let through_route = match &addressed {
            Addressed::Route { service, ports, .. } if speaks => {
                let (service, ports) = (service.clone(), ports.clone());
                let verified = Addressed::Route { service, ports, verified: true };
                Some(Gate::new(world, workload, port, &verified))
            }
            _ => None,
        };
        Self { addressed, speaks, gate, through_route }
    }

    /// The addressed service, as far as its name counts here.
    pub(in crate::l7) fn service(&self) -> Option<&Arc<Service>> {
        self.addressed.service()
    }

    /// The client's half has parsed and recorded what it sends: the addressed service has a waypoint.
    pub(in crate::l7) fn was_routed(&self) -> bool {
        self.service().is_some_and(|service| service.waypoint.waypoint().is_some())
    }

    /// What the port is said to speak, by who speaks for the workload.
    pub(in crate::l7) fn protocol(&self) -> AppProtocol {
        match &self.addressed {
            Addressed::Service(served) if self.speaks => {
                served.service.port(served.service_port).map(|port| port.protocol)
            }
            _ => None,
        }
        .unwrap_or_default()
    }

    /// A connection that is not HTTP.
    /// `server_name`: as in [`Connection`].
    pub(in crate::l7) fn authorize_bytes(
        &self,
        inbound: &Inbound,
        server_name: Option<&str>,
    ) -> Result<Permit, Denial> {
        let permit = self.gate.decide(&Connection { server_name, ..inbound.connection() }, None)?;
        let mut filtered = permit.filtered.iter().flat_map(|it| it.iter());
        if let Some(asked) = filtered.find(|it| it.authorizes) {
            let service = &asked.service;
            let why = format!(
                "an HTTPRoute of Service {service} has requests authorized (ExternalAuth), and this is not HTTP; \
                 give ports of other protocols the appProtocol tcp"
            );
            return Err(Denial { notes: permit.notes, ..Denial::new(why) });
        }
        if permit.names_client {
            let why = "only HTTP may pass where a waypoint names clients (x-forwarded-client-cert), so that nobody else does; \
                       give ports of other protocols the appProtocol tcp";
            return Err(Denial { notes: permit.notes, ..Denial::new(why) });
        }
        Ok(permit)
    }

    /// A request in canonical form, judged as the client sent it where a producer's route changed it, and otherwise as it
    /// arrived. `original` is what the peer says of that. The request is as it was before providers changed it.
    pub(in crate::l7) fn authorize<B>(
        &self,
        world: &World,
        inbound: &Inbound,
        request: &Request<B>,
        original: Option<&HeaderValue>,
        providers: Providers<'_>,
    ) -> Result<Permitted, Denial> {
        let (gate, verified) = self.chosen(world, inbound, request, original);
        let permit = with_views(request, verified.as_ref(), providers, |views| {
            gate.decide_views(&inbound.connection(), Some(views))
        })?;
        Ok(Permitted { permit, sent: verified })
    }

    /// What policies say of such a request, before providers are asked: for people.
    pub(in crate::l7) fn explain<B>(
        &self,
        world: &World,
        inbound: &Inbound,
        request: &Request<B>,
        original: Option<&HeaderValue>,
    ) -> Vec<(Whose, Vec<Explained>)> {
        let (gate, verified) = self.chosen(world, inbound, request, original);
        with_views(request, verified.as_ref(), Providers::NotAsked, |views| {
            gate.explain(&inbound.connection(), Some(views))
        })
    }

    /// The same of a connection that is not HTTP.
    pub(in crate::l7) fn explain_bytes(
        &self,
        inbound: &Inbound,
        server_name: Option<&str>,
    ) -> Vec<(Whose, Vec<Explained>)> {
        self.gate.explain(&Connection { server_name, ..inbound.connection() }, None)
    }

    /// The gate that judges a request, and what the client sent, where a producer's route is known to have changed it.
    fn chosen<B>(
        &self,
        world: &World,
        inbound: &Inbound,
        request: &Request<B>,
        original: Option<&HeaderValue>,
    ) -> (&Gate, Option<Sent>) {
        let path = Path { world, inbound, request };
        let verified = self.service().and_then(|service| path.verified(service, original?));
        let (sent_uri, sent_headers) = as_sent(request, verified.as_ref());
        let head = sent::head(request.method(), sent_uri, sent_headers, inbound.as_client());
        let gate = match (&self.addressed, &self.through_route) {
            (Addressed::Route { service, .. }, Some(through_route))
                if path.leads(service, &head, |route, rule, backend| {
                    let filters = [&rule.filters[..], &backend.filters];
                    path.lifts(service, route, rule)
                        && (verified.is_some() || path.is_past(filters))
                }) =>
            {
                through_route
            }
            _ => &self.gate,
        };
        (gate, verified)
    }
}

fn as_sent<'a, B>(request: &'a Request<B>, verified: Option<&'a Sent>) -> (&'a Uri, &'a HeaderMap) {
    match verified {
        Some(sent) => (&sent.uri, &sent.headers),
        None => (request.uri(), request.headers()),
    }
}

/// Shows a request as it was sent and as it arrived.
fn with_views<B, R>(
    request: &Request<B>,
    verified: Option<&Sent>,
    providers: Providers<'_>,
    look: impl FnOnce(Views<'_>) -> R,
) -> R {
    let (method, (sent_uri, sent_headers)) = (request.method(), as_sent(request, verified));
    let sent = sent::policy_request(method, sent_uri, sent_headers);
    let arrived = sent::policy_request(method, request.uri(), request.headers());
    look(Views { arrived: &arrived, sent: &sent, providers })
}

/// A request that is permitted.
pub(in crate::l7) struct Permitted {
    pub(in crate::l7) permit: Permit,
    /// What the client sent, where a producer's route changed it.
    pub(in crate::l7) sent: Option<Sent>,
}

/// A request, and the ways that could have led it here.
struct Path<'a, B> {
    world: &'a World,
    inbound: &'a Inbound,
    request: &'a Request<B>,
}

impl<B> Path<'_, B> {
    /// What the client sent, when a producer's route really leads from it to what arrived.
    fn verified(&self, service: &Arc<Service>, original: &HeaderValue) -> Option<Sent> {
        // Where there is no waypoint, no route applies and nothing was rewritten.
        service.waypoint.waypoint()?;
        let arrived = self.request;
        let mut sent = Original::decode(original)?.restore(arrived.uri(), arrived.headers())?;
        headers::strip_internal(&mut sent.headers);
        let client = self.inbound.as_client();
        let head = sent::head(arrived.method(), &sent.uri, &sent.headers, client);
        let leads = self.leads(service, &head, |route, rule, backend| {
            speaks_for(&service.key, route.authors(rule), &service.key.namespace)
                && sent.becomes([&rule.filters, &backend.filters], arrived)
        });
        leads.then_some(sent)
    }

    /// Whether what arrived is what the filters make of it. A peer that left them out did not come by the route.
    fn is_past(&self, filters: Pair<'_>) -> bool {
        if !filters.iter().any(|filters| filter::changes(filters)) {
            return true;
        }
        let arrived = Sent::of(self.request);
        arrived.filtered(filters) == arrived
    }

    /// Whether being routed here by a rule stands in for the policies of the services that guard this workload.
    fn lifts(&self, service: &Service, route: &HttpRoute, rule: &HttpRule) -> bool {
        speaks_for(&service.key, route.authors(rule), &self.inbound.workload.key.namespace)
    }

    /// Whether a rule of the service, on any of its ports (the tunnel does not say which was dialled), takes the request,
    /// leads to this workload by a backend, and is `fit`.
    fn leads(
        &self,
        service: &Service,
        head: &Head<'_>,
        fit: impl Fn(&HttpRoute, &HttpRule, &Backend) -> bool,
    ) -> bool {
        let Some(client) = &self.inbound.client else { return false };
        let (workload, target) = (&self.inbound.workload, self.inbound.destination.port());
        service.ports.iter().any(|port| {
            let selected = route::select(self.world, service, port.port, &client.namespace, head);
            let Selection::Rule { route, rule } = selected else { return false };
            route.rules.get(rule).is_some_and(|rule| {
                route::leading_to(self.world, &rule.backends, &client.namespace, workload, target)
                    .any(|backend| fit(&route, rule, backend))
            })
        })
    }
}
