//! Where a request goes: pure over one snapshot. The route's rule, the backend whose turn it is, or an answer of our
//! own.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;

use super::outbound::Outbound;
use super::respond::Answer;
use super::sent::Filters;
use crate::balance::{self, Picked};
use crate::base::{ObjectKey, PolicyNote, Str};
use crate::model::{
    AppProtocol, Backend, BackendRef, Binding, HttpFilter, HttpRoute, HttpRule, Retry, RouteKind,
    Service, Timeouts,
};
use crate::reach::Attempts;
use crate::route::{self, Head, Selection};
use crate::world::World;

/// Where a request goes.
pub(super) struct Plan {
    /// The service that the client addressed.
    pub(super) addressed: Arc<Service>,
    /// The port that it addressed.
    pub(super) port: u16,
    /// The rule that holds, when the service has routes.
    pub(super) chosen: Option<Chosen>,
    /// The service whose endpoints take the request, and its port.
    pub(super) backend: (Arc<Service>, u16),
}

/// A request that goes nowhere.
pub(super) struct Refusal {
    pub(super) answer: Answer,
    /// The rule that led there.
    pub(super) chosen: Option<Chosen>,
    /// What policies that decide nothing have to say.
    pub(super) notes: Vec<PolicyNote>,
}

impl From<Answer> for Refusal {
    fn from(answer: Answer) -> Self {
        Self { answer, chosen: None, notes: Vec::new() }
    }
}

impl Plan {
    /// Of the rule and the backend that hold; empty where there is none.
    pub(super) fn filters(&self) -> Filters<'_> {
        let rule = self.chosen.as_ref().and_then(Chosen::rule);
        let backend = self.chosen.as_ref().and_then(Chosen::backend);
        [
            rule.map_or(&[], |rule| &rule.filters[..]),
            backend.map_or(&[], |backend| &backend.filters[..]),
        ]
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        let rule = self.chosen.as_ref().and_then(Chosen::rule);
        rule.map(|rule| rule.timeouts).unwrap_or_default()
    }

    pub(super) fn retry(&self) -> Option<&Retry> {
        self.chosen.as_ref().and_then(Chosen::rule)?.retry.as_ref()
    }

    /// What the backend's port is said to speak, by the route and by the service.
    pub(super) fn protocol(&self) -> AppProtocol {
        if self.chosen.as_ref().is_some_and(|chosen| chosen.route.kind == RouteKind::Grpc) {
            return AppProtocol::Http2;
        }
        let (service, port) = &self.backend;
        service.port(*port).map(|port| port.protocol).unwrap_or_default()
    }

    /// An endpoint of the backend to send the request to again: another one than `last`, where there is one.
    pub(super) fn endpoint_again(
        &self,
        world: &World,
        session: &Outbound,
        last: &[SocketAddr],
    ) -> Option<Picked> {
        let (service, port) = &self.backend;
        let caller = session.downstream().caller();
        balance::pick(world, service, *port, caller, session.dialled, last)
    }

    /// An endpoint of the backend that was not tried yet.
    pub(super) fn endpoint(
        &self,
        world: &World,
        session: &Outbound,
        attempts: &Attempts,
    ) -> Option<Picked> {
        let (service, port) = &self.backend;
        attempts.next(world, &session.downstream(), (service, *port), session.dialled)
    }
}

/// One rule of a route, and the backend whose turn it is.
pub(super) struct Chosen {
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

    pub(super) fn route(&self) -> &ObjectKey {
        &self.route.key
    }

    /// For the access log: `namespace/name`, and the rule's name or its number.
    pub(super) fn name(&self) -> Str {
        match self.rule().map(|rule| rule.name.as_str()).filter(|name| !name.is_empty()) {
            Some(name) => arcstr::format!("{}.{name}", self.route.key),
            None => arcstr::format!("{}.{}", self.route.key, self.index),
        }
    }
}

/// Decides for one request.
pub(super) fn plan(
    world: &World,
    service: &ObjectKey,
    port: u16,
    client_namespace: &str,
    head: &Head<'_>,
) -> Result<Plan, Refusal> {
    let Some(addressed) = world.service(service) else {
        let why = format!("Service {service} does not exist any more");
        return Err(Answer::no_healthy_upstream(why).into());
    };
    let selection = match &addressed.waypoint {
        Binding::Unusable { waypoint, why } => {
            let why = format!("waypoint {waypoint}: {why}");
            return Err(Answer::waypoint_unusable(why).into());
        }
        // The service left its waypoint while this connection lasts: its routes do not hold any more.
        Binding::None => Selection::NoRoutes,
        Binding::Waypoint(_) => route::select(world, addressed, port, client_namespace, head),
    };
    let addressed = addressed.clone();
    match selection {
        Selection::NoRoutes => {
            Ok(Plan { backend: (addressed.clone(), port), port, chosen: None, addressed })
        }
        Selection::NoMatch(kind) => {
            let why = format!("no rule of the {kind}s of Service {service} matches");
            Err(Answer::no_route(why).into())
        }
        Selection::Rule { route, rule } => {
            let mut chosen = Chosen { route, index: rule, backend: None };
            match backend(world, &mut chosen, head, port) {
                Ok(backend) => Ok(Plan { backend, port, chosen: Some(chosen), addressed }),
                Err(answer) => Err(Refusal { answer, chosen: Some(chosen), notes: Vec::new() }),
            }
        }
    }
}

/// The backend whose turn it is, unless a filter answers instead.
fn backend(
    world: &World,
    chosen: &mut Chosen,
    head: &Head<'_>,
    port: u16,
) -> Result<(Arc<Service>, u16), Answer> {
    let own = |filters: &[HttpFilter]| match route::own_answer(filters, head, port) {
        Some(own) => Err(Answer::own(own)),
        None => Ok(()),
    };
    own(chosen.rule().map_or(&[], |rule| &rule.filters))?;
    chosen.backend = chosen.rule().and_then(route::next_backend);
    let (kind, name) = (chosen.route.kind, &chosen.route.key);
    let Some(backend) = chosen.backend() else {
        let status = match kind {
            RouteKind::Http => StatusCode::INTERNAL_SERVER_ERROR,
            RouteKind::Grpc => StatusCode::SERVICE_UNAVAILABLE,
        };
        let why = format!("{kind} {name}: the rule has no backend with a weight");
        return Err(Answer::no_backend(status, why));
    };
    own(&backend.filters)?;
    match &backend.target {
        BackendRef::Invalid { status, why } => {
            Err(Answer::no_backend(*status, format!("{kind} {name}: {why}")))
        }
        BackendRef::Service { service, port } => match world.service(service) {
            Some(found) => Ok((found.clone(), *port)),
            None => {
                let why = format!("{kind} {name}: Service {service} does not exist");
                Err(Answer::no_backend(StatusCode::INTERNAL_SERVER_ERROR, why))
            }
        },
    }
}
