//! Selects the rule of the HTTPRoutes or GRPCRoutes for a request: the group that holds for the client (GEP-1324), and of that the
//! rule that takes precedence ([`crate::rules`]).

use std::sync::Arc;

use crate::base::ObjectKey;
use crate::model::{Backend, BackendRef, HttpRoute, RouteKind, RouteParent, Service, Workload};
use crate::rules::{Head, Rules};
use crate::world::World;

/// The rule for a request.
#[derive(Clone, Debug)]
pub enum Selection {
    /// The service has no route on this port for this client: the request goes to the service itself.
    NoRoutes,
    /// It has routes, and none matches: 404, or UNIMPLEMENTED.
    NoMatch(RouteKind),
    /// `route.rules[rule]`.
    Rule { route: Arc<HttpRoute>, rule: usize },
}

/// Chooses by the Gateway API's precedence. A client in whose namespace there are consumer routes for this service
/// and port sees only these; other clients see the producer's.
pub fn select(
    world: &World,
    service: &Service,
    port: u16,
    client_namespace: &str,
    head: &Head<'_>,
) -> Selection {
    let Some(rules) = rules(world, &service.key, port, client_namespace) else {
        return Selection::NoRoutes;
    };
    match rules.find(head) {
        Some((route, rule)) => Selection::Rule { route: route.clone(), rule },
        None => Selection::NoMatch(rules.kind()),
    }
}

/// The rules that hold for a client.
fn rules<'a>(
    world: &'a World,
    service: &ObjectKey,
    port: u16,
    client_namespace: &str,
) -> Option<Rules<'a>> {
    let all = world.rules_of(service)?;
    let from = |namespace| all.from(namespace)?.on(port);
    let producer = service.namespace.as_str();
    let consumers = if client_namespace == producer { None } else { from(client_namespace) };
    consumers.or_else(|| from(producer))
}

/// Whether a service leads to `target_port` of `workload` by its port `port`.
pub fn serves(service: &Service, port: u16, workload: &Workload, target_port: u16) -> bool {
    service.endpoints.iter().any(|endpoint| {
        endpoint.workload.as_ref() == Some(&workload.uid)
            && endpoint.target_port(port) == Some(target_port)
    })
}

/// The backends of a rule that can end at `target_port` of `workload`: how the destination verifies that a route
/// brought a request to it.
pub fn leading_to<'a>(
    world: &'a World,
    backends: &'a [Backend],
    workload: &'a Workload,
    target_port: u16,
) -> impl Iterator<Item = &'a Backend> {
    backends.iter().filter(move |backend| match &backend.target {
        BackendRef::Invalid { .. } => false,
        BackendRef::Service { service, port } => {
            backend.weight > 0
                && world
                    .service(service)
                    .is_some_and(|service| serves(service, *port, workload, target_port))
        }
    })
}

/// Whether some of a route's parents is this port of a service.
pub(super) fn is_attached(parents: &[RouteParent], service: &ObjectKey, port: u16) -> bool {
    let is_here = |parent: &RouteParent| {
        parent.service == *service && parent.port.is_none_or(|wanted| wanted == port)
    };
    parents.iter().any(is_here)
}
