//! Where a request goes: pure over one snapshot. The route's rule, the backend whose turn it is, or an answer of our
//! own. Between the two its filters decide ([`request`](super::request)), which may answer and so take no turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode, Uri};

use super::session::Session;
use crate::balance::{self, Caller, Picked};
use crate::base::{Identity, ObjectKey, Str};
use crate::filter::{self, Hedging, HttpFilter, Pair, SessionPersistence, Token};
use crate::l7::exchange::answer::Answer;
use crate::model::{
    AppProtocol, Backend, BackendRef, Binding, HttpRoute, HttpRule, Retry, RouteKind, Service,
    Timeouts, Workload,
};
use crate::policy::lends_the_clients_name;
use crate::reach::Attempts;
use crate::route::{self, Head, Selection};
use crate::traffic::{Balancer, Destination, Hashed};
use crate::world::World;

/// Where a request goes.
pub(in crate::l7) struct Plan {
    /// The service that the client addressed.
    pub(in crate::l7) addressed: Arc<Service>,
    /// The port that it addressed.
    pub(in crate::l7) port: u16,
    /// The rule that holds, when the service has routes.
    pub(in crate::l7) chosen: Option<Chosen>,
    /// The service whose endpoints take the request, and its port.
    pub(in crate::l7) backend: (Arc<Service>, u16),
    aim: Option<Box<Aim>>,
    /// The session that the request belongs to.
    session: Option<Box<Token>>,
}

/// What selects the endpoint beside its load, where there is something.
struct Aim {
    /// Where the backend's policy hashes a property of requests.
    hashed: Option<Hashed>,
    /// The subset that a copy goes to. Of other requests the rule says it.
    subset: Option<Str>,
    /// Of a copy that a rule sends in the client's name to a namespace that is neither's ([`Plan::lent`]).
    lent: Option<Identity>,
}

impl Plan {
    /// To a service or a subset of it, past its routes.
    pub(in crate::l7) fn straight_to(
        service: &Arc<Service>,
        port: u16,
        subset: Option<Str>,
        lent: Option<Identity>,
    ) -> Self {
        let backend = (service.clone(), port);
        let is_aimed = subset.is_some() || lent.is_some();
        let aim = is_aimed.then(|| Box::new(Aim { hashed: None, subset, lent }));
        Self { addressed: service.clone(), port, chosen: None, backend, aim, session: None }
    }

    /// Of the addressed service, for the addressed port. A rule's filter holds instead of one of its type.
    pub(in crate::l7) fn filters_of_service(&self) -> &[HttpFilter] {
        self.addressed.filters_on(self.port)
    }

    /// Of the rule and the backend that hold; empty where there is none.
    pub(in crate::l7) fn filters(&self) -> Pair<'_> {
        let rule = self.chosen.as_ref().and_then(Chosen::rule);
        let backend = self.chosen.as_ref().and_then(Chosen::backend);
        [
            rule.map_or(&[], |rule| &rule.filters[..]),
            backend.map_or(&[], |backend| &backend.filters[..]),
        ]
    }

    /// How requests are hedged: as the rule's policy says, or the service's.
    pub(in crate::l7) fn hedging(&self) -> Option<&Hedging> {
        let [of_rule, _] = self.filters();
        let all = of_rule.iter().chain(self.filters_of_service());
        all.filter_map(|filter| match filter {
            HttpFilter::Hedging(hedging) => Some(hedging),
            _ => None,
        })
        .next()
    }

    pub(in crate::l7) fn timeouts(&self, world: &World) -> Timeouts {
        let rule = self.chosen.as_ref().and_then(Chosen::rule);
        let mut timeouts = rule.map(|rule| rule.timeouts).unwrap_or_default();
        if let (None, Some(default)) =
            (rule.and_then(|rule| rule.retry.as_ref()), &world.mesh.retry)
        {
            timeouts.per_try = timeouts.per_try.or(default.each);
        }
        timeouts
    }

    /// The rule's, or the mesh's for rules that say nothing.
    pub(in crate::l7) fn retry<'a>(&'a self, world: &'a World) -> Option<&'a Retry> {
        let rule = self.chosen.as_ref().and_then(Chosen::rule);
        let default = || world.mesh.retry.as_ref().map(|default| &default.retry);
        rule.and_then(|rule| rule.retry.as_ref()).or_else(default)
    }

    /// What the backend's port is said to speak, by the route and by the service.
    pub(in crate::l7) fn protocol(&self) -> AppProtocol {
        if self.chosen.as_ref().is_some_and(|chosen| chosen.route.kind == RouteKind::Grpc) {
            return AppProtocol::Http2;
        }
        let (service, port) = &self.backend;
        service.port(*port).map(|port| port.protocol).unwrap_or_default()
    }

    /// An endpoint of the backend to send the request to again: none of `avoided`, where there is another.
    pub(in crate::l7) fn endpoint_again(
        &self,
        world: &World,
        session: &Session,
        avoided: &[SocketAddr],
    ) -> Option<Picked> {
        let (service, port) = &self.backend;
        balance::pick(world, service, *port, self.caller(session), session.dialled, avoided)
    }

    /// An endpoint of the backend that was not tried yet.
    pub(in crate::l7) fn endpoint(
        &self,
        world: &World,
        session: &Session,
        attempts: &Attempts,
    ) -> Option<Picked> {
        let (service, port) = &self.backend;
        attempts.next(world, self.caller(session), (service, *port), session.dialled)
    }

    pub(in crate::l7) fn hashed(&self) -> Option<&Hashed> {
        self.aim.as_ref()?.hashed.as_ref()
    }

    /// The account of the waypoint whose rule leads the client's request to something of `namespace`, where the rule's authors and the
    /// client are of others: there it goes in the client's name, and so must not reach what the waypoint's own name would not.
    pub(in crate::l7) fn lent(
        &self,
        world: &World,
        client: &Workload,
        namespace: &str,
    ) -> Option<Identity> {
        if let Some(lent) = self.aim.as_ref().and_then(|aim| aim.lent.as_ref()) {
            return Some(lent.clone());
        }
        self.lent_to(world, client, namespace)
    }

    /// The same for a copy.
    pub(in crate::l7) fn lent_to(
        &self,
        world: &World,
        client: &Workload,
        namespace: &str,
    ) -> Option<Identity> {
        let chosen = self.chosen.as_ref()?;
        let led = std::iter::once(chosen.route()).chain(chosen.delegate());
        let root = &world.names.root_namespace;
        if !lends_the_clients_name(led, &client.key.namespace, namespace, root) {
            return None;
        }
        let waypoint = world.waypoint(self.addressed.waypoint.waypoint()?)?;
        Some(waypoint.identity.clone())
    }

    /// The subset of the backend that takes the request; `None`: all of it.
    pub(super) fn subset(&self) -> Option<&str> {
        let own = self.aim.as_ref().and_then(|aim| aim.subset.as_deref());
        let backend = || self.chosen.as_ref().and_then(Chosen::backend);
        own.or_else(|| backend()?.subset.as_deref())
    }

    /// What holds for this client's requests to the backend.
    pub(in crate::l7) fn destination(&self, session: &Session) -> Option<&Arc<Destination>> {
        destination((&self.backend.0, self.backend.1), self.subset(), session)
    }

    pub(in crate::l7) fn caller<'a>(&'a self, session: &'a Session) -> Caller<'a> {
        let hash = self.hashed().map(|hashed| hashed.key);
        let subset = self.subset();
        let subset = subset.and_then(|name| self.backend.0.subset(&session.client, name));
        let of_session = self.session.as_ref().map(|token| token.endpoint);
        Caller { hash, session: of_session, subset, ..session.downstream().caller() }
    }

    /// Tells the client of its session at the endpoint that answered, where sessions persist.
    pub(in crate::l7) fn tell_session(&self, picked: &Picked, headers: &mut HeaderMap) {
        let [of_rule, _] = self.filters();
        let Some(persistence) = persistence(of_rule, self.filters_of_service()) else { return };
        let (service, port) = &self.backend;
        let endpoint = balance::session_of(service, *port, picked.address);
        let before = self.session.as_ref().map(|token| **token);
        let told = endpoint.and_then(|it| persistence.told(before, it, SystemTime::now()));
        let Some((name, value)) = told else { return };
        if name == SET_COOKIE {
            headers.append(name, value);
        } else {
            headers.insert(name, value);
        }
    }
}

fn destination<'a>(
    (service, port): (&'a Service, u16),
    subset: Option<&str>,
    session: &Session,
) -> Option<&'a Arc<Destination>> {
    match subset {
        None => service.destination(&session.client, port),
        Some(name) => service.subset(&session.client, name)?.on(port),
    }
}

/// One rule of a route, and the backend whose turn it is.
pub(in crate::l7) struct Chosen {
    route: Arc<HttpRoute>,
    index: usize,
    backend: Option<usize>,
}

impl Chosen {
    fn rule(&self) -> Option<&HttpRule> {
        self.route.rules.get(self.index)
    }

    fn backend(&self) -> Option<&Backend> {
        self.rule()?.backends.get(self.backend?)
    }

    pub(in crate::l7) fn route(&self) -> &ObjectKey {
        &self.route.key
    }

    /// The route itself.
    pub(in crate::l7) fn http_route(&self) -> &Arc<HttpRoute> {
        &self.route
    }

    /// The rule's place in it.
    pub(in crate::l7) fn rule_index(&self) -> usize {
        self.index
    }

    /// Whom the route has left the rule to.
    pub(in crate::l7) fn delegate(&self) -> Option<&ObjectKey> {
        self.rule()?.delegate.as_ref()
    }

    /// For messages: the route's kind and key.
    fn described(&self) -> String {
        format!("{} {}", self.route.kind, self.route.key)
    }

    /// For the access log: `namespace/name`, and the rule's name or its number.
    pub(in crate::l7) fn name(&self) -> Str {
        match self.rule().map(|rule| rule.name.as_str()).filter(|name| !name.is_empty()) {
            Some(name) => arcstr::format!("{}.{name}", self.route.key),
            None => arcstr::format!("{}.{}", self.route.key, self.index),
        }
    }
}

/// What a request leads to before a backend is chosen: the service that it addresses, and the rule that holds.
pub(in crate::l7) struct Route {
    pub(in crate::l7) addressed: Arc<Service>,
    port: u16,
    pub(in crate::l7) chosen: Option<Chosen>,
    session: Option<Box<Token>>,
}

/// What persists sessions: the rule's, or else the service's.
fn persistence<'a>(
    of_rule: &'a [HttpFilter],
    of_service: &'a [HttpFilter],
) -> Option<&'a SessionPersistence> {
    if of_rule.is_empty() && of_service.is_empty() {
        return None;
    }
    filter::session_persistence(of_rule.iter().chain(of_service))
}

/// The key of a request, where the backend's policy hashes one of its properties.
pub(in crate::l7) fn hash(
    backend: (&Service, u16),
    subset: Option<&str>,
    session: &Session,
    uri: &Uri,
    headers: &HeaderMap,
) -> Option<Hashed> {
    let destination = destination(backend, subset, session)?;
    let Some(Balancer::Hash(key)) = destination.balancer() else { return None };
    key.of(uri, headers, session.client_address.ip())
}

/// Chooses the rule for one request.
pub(in crate::l7) fn route(
    world: &World,
    service: &ObjectKey,
    dialled: SocketAddr,
    client_namespace: &str,
    head: &Head<'_>,
) -> Result<Route, Answer> {
    let port = dialled.port();
    let meant = |it: &&Arc<Service>| it.is_meant(Some(dialled.ip()), client_namespace);
    let Some(addressed) = world.service(service).filter(meant) else {
        let why = format!(
            "Service {service} does not exist any more, is not for clients of {client_namespace}, or has not {dialled}"
        );
        return Err(Answer::no_healthy_upstream(why));
    };
    let selection = match &addressed.waypoint {
        Binding::Unusable { waypoint, why } => {
            let why = format!("waypoint {waypoint}: {why}");
            return Err(Answer::waypoint_unusable(why));
        }
        // The service left its waypoint while this connection lasts: its routes do not hold any more.
        Binding::None => Selection::NoRoutes,
        Binding::Waypoint(_) => route::select(world, addressed, port, client_namespace, head),
    };
    let chosen = match selection {
        Selection::NoRoutes => None,
        Selection::NoMatch(kind) => {
            let why = format!("no rule of the {kind}s of Service {service} matches");
            return Err(Answer::no_route(why));
        }
        Selection::Rule { route, rule } => Some(Chosen { route, index: rule, backend: None }),
    };
    Ok(Route { addressed: addressed.clone(), port, chosen, session: None })
}

impl Route {
    /// The filters of the rule.
    pub(in crate::l7) fn filters(&self) -> &[HttpFilter] {
        self.chosen.as_ref().and_then(Chosen::rule).map_or(&[], |rule| &rule.filters)
    }

    /// Of the backend whose turn it is.
    pub(in crate::l7) fn backend_filters(&self) -> &[HttpFilter] {
        self.chosen.as_ref().and_then(Chosen::backend).map_or(&[], |backend| &backend.filters)
    }

    /// Notes the session that a request with these headers belongs to.
    pub(in crate::l7) fn begin_session(&mut self, headers: &HeaderMap) {
        let of_service = self.addressed.filters_on(self.port);
        let persistence = persistence(self.filters(), of_service);
        let token = persistence.and_then(|it| it.session(headers, SystemTime::now()));
        self.session = token.map(Box::new);
    }

    /// Takes the backend of the request's session, which takes no turn; else the one whose turn it is.
    pub(in crate::l7) fn take_turn(
        &mut self,
        world: &World,
        client: &Workload,
    ) -> Result<(), Answer> {
        let session = self.session.as_ref().map(|token| token.endpoint);
        let Some(chosen) = &mut self.chosen else { return Ok(()) };
        let rule = chosen.rule();
        let of_session = rule.and_then(|rule| backend_of_session(world, client, rule, session?));
        chosen.backend = of_session.or_else(|| rule.and_then(route::next_backend));
        if chosen.backend.is_some() {
            return Ok(());
        }
        let status = match chosen.route.kind {
            RouteKind::Http => StatusCode::INTERNAL_SERVER_ERROR,
            RouteKind::Grpc | RouteKind::Virtual => StatusCode::SERVICE_UNAVAILABLE,
        };
        let why = format!("{}: the rule has no backend with a weight", chosen.described());
        Err(Answer::no_backend(status, why))
    }

    /// The service of the backend whose turn it is; without a rule the one that was addressed.
    pub(in crate::l7) fn backend(
        &self,
        world: &World,
        session: &Session,
    ) -> Result<(Arc<Service>, u16), Answer> {
        let Some(chosen) = &self.chosen else { return Ok((self.addressed.clone(), self.port)) };
        let unknown = |service: &Service, name: &str| {
            let namespace = &session.client.key.namespace;
            let why = format!(
                "{}: no DestinationRule that holds for clients of {namespace} names a subset {name:?} of {service}",
                chosen.described()
            );
            Err(Answer::no_backend(StatusCode::SERVICE_UNAVAILABLE, why))
        };
        match chosen.backend().map(|backend| &backend.target) {
            Some(BackendRef::Service { service, port }) => match world.service(service) {
                Some(found) => match self.subset() {
                    Some(name) if found.subset(&session.client, name).is_none() => {
                        unknown(found, name)
                    }
                    _ => Ok((found.clone(), *port)),
                },
                None => {
                    let why = format!("{}: Service {service} does not exist", chosen.described());
                    Err(Answer::no_backend(StatusCode::INTERNAL_SERVER_ERROR, why))
                }
            },
            Some(BackendRef::Invalid { status, why }) => {
                Err(Answer::no_backend(*status, format!("{}: {why}", chosen.described())))
            }
            None => Err(Answer::no_backend(StatusCode::INTERNAL_SERVER_ERROR, chosen.described())),
        }
    }

    /// The subset of the backend whose turn it is.
    pub(in crate::l7) fn subset(&self) -> Option<&Str> {
        self.chosen.as_ref().and_then(Chosen::backend)?.subset.as_ref()
    }

    pub(in crate::l7) fn lead_to(
        self,
        backend: (Arc<Service>, u16),
        hashed: Option<Hashed>,
    ) -> Plan {
        let aim =
            hashed.map(|hashed| Box::new(Aim { hashed: Some(hashed), subset: None, lent: None }));
        let Self { addressed, port, chosen, session } = self;
        Plan { addressed, port, chosen, backend, aim, session }
    }
}

/// The backend that has the endpoint of a session, also if it has no weight any more: what began stays where it is (GEP-1619).
fn backend_of_session(
    world: &World,
    client: &Workload,
    rule: &HttpRule,
    session: u64,
) -> Option<usize> {
    if rule.backends.len() < 2 {
        return None;
    }
    let has_it = |backend: &Backend| {
        let BackendRef::Service { service, .. } = &backend.target else { return None };
        let service = world.service(service)?;
        // Several backends may be subsets of one Service.
        let subset = match &backend.subset {
            None => None,
            Some(name) => Some(service.subset(client, name)?),
        };
        Some(balance::has_session(service, subset, session))
    };
    rule.backends.iter().position(|backend| has_it(backend) == Some(true))
}
