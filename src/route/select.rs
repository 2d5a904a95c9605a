//! Selects the rule of the HTTPRoutes or GRPCRoutes for a request: groups (GEP-1324), matches, precedence.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Head, matching};
use crate::base::ObjectKey;
use crate::model::{
    Backend, BackendRef, HttpMatch, HttpRoute, PathMatch, RouteKind, RouteParent, Service,
    TextMatch, Workload,
};
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

/// A match that the request fulfils.
struct Candidate<'a> {
    route: &'a Arc<HttpRoute>,
    rule: usize,
    matched: &'a HttpMatch,
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
    let attached = |namespace| {
        let routes = world.routes_from(namespace, &service.key).iter();
        routes.filter(move |route| is_attached(&route.parents, &service.key, port))
    };
    let producer = service.key.namespace.as_str();
    let consumer = client_namespace != producer && attached(client_namespace).next().is_some();
    let group = || attached(if consumer { client_namespace } else { producer });
    let Some(kind) = group().map(|route| route.kind).max_by_key(|kind| *kind == RouteKind::Grpc)
    else {
        return Selection::NoRoutes;
    };
    let best = group()
        .filter(|route| route.kind == kind)
        .flat_map(|route| candidates(route, head))
        .reduce(|best, other| if other.precedes(&best) { other } else { best });
    match best {
        Some(best) => Selection::Rule { route: best.route.clone(), rule: best.rule },
        None => Selection::NoMatch(kind),
    }
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

fn candidates<'a>(
    route: &'a Arc<HttpRoute>,
    head: &'a Head<'a>,
) -> impl Iterator<Item = Candidate<'a>> {
    route.rules.iter().enumerate().flat_map(move |(rule, content)| {
        content
            .matches
            .iter()
            .filter(move |matched| matching::matches(matched, head))
            .map(move |matched| Candidate { route, rule, matched })
    })
}

impl Candidate<'_> {
    /// Exact path, longest prefix, method, number of headers, number of query parameters, oldest, name; a
    /// remaining tie goes to the first rule of the route, which was found first. The API does not rank regular expressions; they come after exact paths and prefixes, longest first, as in Istio. Of a GRPCRoute: the
    /// longest service, the longest method, number of headers, and so on.
    fn precedes(&self, other: &Self) -> bool {
        let rank = path_rank(&self.matched.path)
            .cmp(&path_rank(&other.matched.path))
            .then(self.matched.method.is_some().cmp(&other.matched.method.is_some()))
            .then(self.matched.headers.len().cmp(&other.matched.headers.len()))
            .then(self.matched.query.len().cmp(&other.matched.query.len()))
            .then(age(other.route.created).cmp(&age(self.route.created)))
            .then_with(|| other.route.key.cmp(&self.route.key));
        rank == Ordering::Greater
    }
}

/// Kind, then length. Matches of gRPC never stand beside others.
fn path_rank(path: &PathMatch) -> (u8, usize, usize) {
    match path {
        PathMatch::Exact(text) => (2, text.len(), 0),
        PathMatch::Prefix(text) => (1, text.trim_end_matches('/').len(), 0),
        PathMatch::Regex(regex) => (0, regex.as_str().len(), 0),
        PathMatch::Grpc { service, method } => (0, length(service), length(method)),
    }
}

fn length(text: &Option<TextMatch>) -> usize {
    text.as_ref().map_or(0, TextMatch::written_length)
}

/// A route of unknown age counts as the youngest: it was not created by an API server.
fn age(created: i64) -> i64 {
    if created == 0 { i64::MAX } else { created }
}
