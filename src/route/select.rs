//! Selects the rule of the HTTPRoutes, GRPCRoutes or VirtualServices for a request: the group that holds for the client (GEP-1324),
//! and of that the rule that takes precedence ([`crate::rules`]).

use std::sync::Arc;

use crate::base::ObjectKey;
use crate::model::{
    Backend, BackendRef, Endpoint, HttpRoute, RouteKind, RouteParent, Service, Workload,
};
use crate::rules::{Candidate, Client, Head, Rules, Who};
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
/// and port sees only these; other clients see the producer's. Where neither is, VirtualServices of the root namespace hold.
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
    let found = match rules.looks_at_labels() {
        false => rules.find(head),
        true => rules.find(&with_labels(world, head)),
    };
    match found {
        Some((route, rule)) => Selection::Rule { route: route.clone(), rule },
        None => Selection::NoMatch(rules.kind()),
    }
}

/// The matches among which [`select`] chooses, in the order of precedence, each with what it lacks: for people. The first that lacks
/// nothing is the one that it chooses.
pub fn candidates(
    world: &World,
    service: &Service,
    port: u16,
    client_namespace: &str,
    head: &Head<'_>,
) -> Vec<Candidate> {
    let Some(rules) = rules(world, &service.key, port, client_namespace) else { return Vec::new() };
    let mut candidates = rules.candidates(&with_labels(world, head));
    candidates.retain(|it| {
        it.route.kind == RouteKind::Virtual || is_attached(&it.route.parents, &service.key, port)
    });
    candidates
}

/// The rules that hold for a client.
fn rules<'a>(
    world: &'a World,
    service: &ObjectKey,
    port: u16,
    client_namespace: &str,
) -> Option<Rules<'a>> {
    let all = world.rules_of(service)?;
    let from = |namespace| all.from(namespace)?.on(port, client_namespace);
    let producer = service.namespace.as_str();
    let consumers = if client_namespace == producer { None } else { from(client_namespace) };
    consumers.or_else(|| from(producer)).or_else(|| {
        let root = world.names.root_namespace.as_str();
        let is_other = root != producer && root != client_namespace;
        all.from(root).filter(|_| is_other)?.virtual_on(port, client_namespace)
    })
}

/// The client as it is in this snapshot. One that is known by its address alone counts if it has that workload's identity.
fn with_labels<'a>(world: &'a World, head: &Head<'a>) -> Head<'a> {
    let workload = match head.client.who {
        Who::Unknown => None,
        Who::Workload(uid) => world.workload(uid),
        Who::Peer(address, identity) => {
            world.workload_at(address).filter(|it| it.identity == *identity)
        }
    };
    let selected_by = workload.map(|workload| &workload.selected_by);
    Head { client: Client { selected_by, ..head.client }, ..*head }
}

/// Whether a service leads to `target_port` of `workload` by its port `port`.
pub fn serves(service: &Service, port: u16, workload: &Workload, target_port: u16) -> bool {
    ways(service, port, workload, target_port).next().is_some()
}

/// The endpoints by which it does.
fn ways<'a>(
    service: &'a Service,
    port: u16,
    workload: &'a Workload,
    target_port: u16,
) -> impl Iterator<Item = &'a Endpoint> {
    service.endpoints.iter().filter(move |endpoint| {
        endpoint.workload.as_ref() == Some(&workload.uid)
            && endpoint.target_port(port) == Some(target_port)
    })
}

/// The backends of a rule that can end at `target_port` of `workload`: how the destination verifies that a route
/// brought a request to it.
pub fn leading_to<'a>(
    world: &'a World,
    backends: &'a [Backend],
    client_namespace: &'a str,
    workload: &'a Workload,
    target_port: u16,
) -> impl Iterator<Item = &'a Backend> {
    backends.iter().filter(move |backend| match &backend.target {
        BackendRef::Invalid { .. } => false,
        BackendRef::Service { service, port } => {
            backend.weight > 0
                && world.service(service).is_some_and(|service| match &backend.subset {
                    None => serves(service, *port, workload, target_port),
                    Some(name) => {
                        let mut seen = service.traffic.subsets_named(client_namespace, name);
                        seen.any(|subset| {
                            let mut ways = ways(service, *port, workload, target_port);
                            ways.any(|it| subset.has(&it.subsets))
                        })
                    }
                })
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
