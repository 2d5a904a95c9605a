//! The routes of one namespace on one service.

use std::sync::Arc;

use super::bucket::Search;
use super::compiled::{Compilations, Compiled};
use super::matching::{self, Head, Known};
use super::paths::Paths;
use super::precedence::Order;
use crate::base::{FastMap, ObjectKey};
use crate::model::{HttpMatch, HttpRoute, RouteKind, RouteParent};

/// The routes of one namespace with one service as a parent.
#[derive(Debug)]
pub struct Group {
    /// What it was compiled from.
    of: Vec<Arc<HttpRoute>>,
    /// Without VirtualServices.
    routes: Vec<Arc<HttpRoute>>,
    order: Order,
    http: Ports,
    grpc: Ports,
    /// In the order in which they hold.
    virtuals: Vec<Arc<Compiled>>,
}

/// The matches of one kind of routes. Each match is filed once for each port that its route names, so that the index grows with
/// what routes say, and not with the ports of the service.
#[derive(Debug, Default)]
struct Ports {
    /// Of routes that hold on every port; `None` where there is no such route.
    every: Option<Paths>,
    named: FastMap<u16, Paths>,
}

/// Matches with their ranks, in the order of precedence.
type Ranked<'a> = Vec<(u32, &'a HttpMatch)>;

/// The rules that hold on one port: those of one kind of routes.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    routes: &'a [Arc<HttpRoute>],
    order: &'a Order,
    kind: RouteKind,
    paths: [Option<&'a Paths>; 2],
    looks_at_labels: bool,
}

impl Group {
    pub(super) fn of(
        service: &ObjectKey,
        all: &[Arc<HttpRoute>],
        compilations: &mut Compilations,
    ) -> Self {
        let is_virtual = |route: &&Arc<HttpRoute>| route.kind == RouteKind::Virtual;
        let routes: Vec<_> = all.iter().filter(|it| !is_virtual(it)).cloned().collect();
        let order = Order::of(&routes);
        let of = |kind| Ports::of(service, &routes, &order, kind);
        let (http, grpc) = (of(RouteKind::Http), of(RouteKind::Grpc));
        let virtuals = all.iter().filter(is_virtual).map(|route| compilations.of(route));
        let mut virtuals: Vec<_> = virtuals.collect();
        virtuals.sort_by_cached_key(|compiled| compiled.seniority());
        Self { of: all.to_vec(), routes, order, http, grpc, virtuals }
    }

    /// Whether it was compiled from these.
    pub(super) fn is_of(&self, routes: &[Arc<HttpRoute>]) -> bool {
        let same = |(one, other): (&Arc<_>, &Arc<_>)| Arc::ptr_eq(one, other);
        self.of.len() == routes.len() && self.of.iter().zip(routes).all(same)
    }

    pub(super) fn keep(&self, compilations: &mut Compilations) {
        self.virtuals.iter().for_each(|compiled| compilations.keep(compiled));
    }

    /// Those of the most specific kind that has a route on the port (GEP-1426); `None` where no route is attached to it for clients
    /// of this namespace.
    pub fn on(&self, port: u16, client: &str) -> Option<Rules<'_>> {
        let (kind, paths) = match (self.grpc.on(port), self.http.on(port)) {
            (Some(paths), _) => (RouteKind::Grpc, paths),
            (None, Some(paths)) => (RouteKind::Http, paths),
            (None, None) => return self.virtual_on(port, client),
        };
        let Self { routes, order, .. } = self;
        Some(Rules { routes, order, kind, paths, looks_at_labels: false })
    }

    /// The VirtualService that holds on the port for clients of this namespace, where no other kind of route does.
    pub fn virtual_on(&self, port: u16, client: &str) -> Option<Rules<'_>> {
        let held = self.virtuals.iter().find(|it| it.is_for(port, client))?;
        let Compiled { route, order, paths, looks_at_labels } = &**held;
        Some(Rules {
            routes: route,
            order,
            kind: RouteKind::Virtual,
            paths: [Some(paths), None],
            looks_at_labels: *looks_at_labels,
        })
    }
}

impl Ports {
    fn of(service: &ObjectKey, routes: &[Arc<HttpRoute>], order: &Order, kind: RouteKind) -> Self {
        let mut every: Option<Ranked<'_>> = None;
        let mut named: FastMap<u16, Ranked<'_>> = FastMap::default();
        // Routes first: one without rules is attached as well, and takes no request.
        let attached: Vec<Option<Vec<u16>>> =
            routes.iter().map(|route| ports(&route.parents, service)).collect();
        for (_, ports) in routes.iter().zip(&attached).filter(|(route, _)| route.kind == kind) {
            match ports {
                None => _ = every.get_or_insert_default(),
                Some(ports) => ports.iter().for_each(|port| _ = named.entry(*port).or_default()),
            }
        }
        for (rank, place) in order.ranks() {
            let Some(matched) = place.of(routes) else { continue };
            let at = place.route as usize;
            match (routes.get(at), attached.get(at)) {
                (Some(route), Some(ports)) if route.kind == kind => match ports {
                    None => every.get_or_insert_default().push((rank, matched)),
                    Some(ports) => ports
                        .iter()
                        .for_each(|port| named.entry(*port).or_default().push((rank, matched))),
                },
                _ => {}
            }
        }
        let named = named.into_iter().map(|(port, matches)| (port, Paths::of(matches)));
        Self { every: every.map(Paths::of), named: named.collect() }
    }

    fn on(&self, port: u16) -> Option<[Option<&Paths>; 2]> {
        let named = if self.named.is_empty() { None } else { self.named.get(&port) };
        let paths = [self.every.as_ref(), named];
        paths.iter().any(Option::is_some).then_some(paths)
    }
}

/// The ports of a service that a route names, each once; `None`: all of them.
fn ports(parents: &[RouteParent], service: &ObjectKey) -> Option<Vec<u16>> {
    let here = parents.iter().filter(|parent| parent.service == *service);
    let mut ports: Vec<u16> = here.map(|parent| parent.port).collect::<Option<_>>()?;
    ports.sort_unstable();
    ports.dedup();
    Some(ports)
}

impl<'a> Rules<'a> {
    pub fn kind(&self) -> RouteKind {
        self.kind
    }

    /// All matches of routes of the kind that holds, with their places, in the order of precedence.
    pub(super) fn matches(
        &self,
    ) -> impl Iterator<Item = (&'a Arc<HttpRoute>, usize, usize, &'a HttpMatch)> {
        let Self { routes, order, kind, .. } = *self;
        order.ranks().filter_map(move |(_, place)| {
            let route = routes.get(place.route as usize).filter(|route| route.kind == kind)?;
            Some((route, place.rule as usize, place.matched(), place.of(routes)?))
        })
    }

    /// Whether a match needs [`Client::selected_by`](super::Client).
    pub fn looks_at_labels(&self) -> bool {
        self.looks_at_labels
    }

    /// The route, and the place of the rule in it, whose match takes precedence among those that the request fulfils.
    pub fn find(&self, head: &Head<'_>) -> Option<(&'a Arc<HttpRoute>, usize)> {
        let Self { routes, order, .. } = *self;
        let fulfils = |rank, known: &Known<'_>| {
            let matched = order.at(rank).and_then(|place| place.of(routes));
            matched.is_some_and(|matched| matching::matches(matched, head, known))
        };
        let mut search = Search::new(head, fulfils);
        self.paths.iter().flatten().for_each(|paths| paths.search(&mut search));
        let place = order.at(search.best)?;
        Some((routes.get(place.route as usize)?, place.rule as usize))
    }
}
