//! Where a request goes: pure over one snapshot. The route's rule, the backend whose turn it is, or an answer of our
//! own.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;

use super::respond::Answer;
use crate::balance::{self, Caller, Picked};
use crate::base::{ObjectKey, Str};
use crate::model::{BackendRef, Binding, HttpRoute, HttpRule, Service};
use crate::route::{self, Head, Selection};
use crate::world::World;

/// Where a request goes.
pub(super) struct Plan {
    /// The service that the client addressed.
    pub(super) addressed: Arc<Service>,
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
}

impl From<Answer> for Refusal {
    fn from(answer: Answer) -> Self {
        Self { answer, chosen: None }
    }
}

impl Plan {
    pub(super) fn rule(&self) -> Option<&HttpRule> {
        self.chosen.as_ref().and_then(Chosen::rule)
    }

    /// An endpoint of the backend that was not tried yet.
    pub(super) fn endpoint(
        &self,
        world: &World,
        caller: Caller<'_>,
        like: SocketAddr,
        tried: &[SocketAddr],
    ) -> Option<Picked> {
        let (service, port) = &self.backend;
        balance::pick(world, service, *port, caller, like, tried)
            .filter(|picked| !tried.contains(&picked.address))
    }
}

/// One rule of a route.
pub(super) struct Chosen {
    route: Arc<HttpRoute>,
    index: usize,
}

impl Chosen {
    fn rule(&self) -> Option<&HttpRule> {
        self.route.rules.get(self.index)
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
            Ok(Plan { backend: (addressed.clone(), port), chosen: None, addressed })
        }
        Selection::NoMatch => {
            let why = format!("no rule of the routes of Service {service} matches");
            Err(Answer::no_route(why).into())
        }
        Selection::Rule { route, rule } => {
            let chosen = Chosen { route, index: rule };
            match backend(world, &chosen) {
                Ok(backend) => Ok(Plan { backend, chosen: Some(chosen), addressed }),
                Err(answer) => Err(Refusal { answer, chosen: Some(chosen) }),
            }
        }
    }
}

fn backend(world: &World, chosen: &Chosen) -> Result<(Arc<Service>, u16), Answer> {
    let name = &chosen.route.key;
    let Some(backend) = chosen.rule().and_then(route::next_backend) else {
        let why = format!("HTTPRoute {name}: the rule has no backend with a weight");
        return Err(Answer::no_backend(StatusCode::INTERNAL_SERVER_ERROR, why));
    };
    match &backend.target {
        BackendRef::Invalid { status, why } => {
            Err(Answer::no_backend(*status, format!("HTTPRoute {name}: {why}")))
        }
        BackendRef::Service { service, port } => match world.service(service) {
            Some(found) => Ok((found.clone(), *port)),
            None => {
                let why = format!("HTTPRoute {name}: Service {service} does not exist");
                Err(Answer::no_backend(StatusCode::INTERNAL_SERVER_ERROR, why))
            }
        },
    }
}
