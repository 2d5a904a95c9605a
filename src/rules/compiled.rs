//! The rules of a VirtualService, compiled once for all services that it is for.

use std::collections::HashMap;
use std::sync::Arc;

use super::paths::Paths;
use super::precedence::Order;
use crate::model::{HttpMatch, HttpRoute};

/// One VirtualService.
#[derive(Debug)]
pub(super) struct Compiled {
    /// Only this one.
    pub(super) route: [Arc<HttpRoute>; 1],
    pub(super) order: Order,
    pub(super) paths: Paths,
    /// Some match looks at labels of the client.
    pub(super) looks_at_labels: bool,
}

/// What was compiled while a world is built, by the address of the route.
#[derive(Default)]
pub struct Compilations(HashMap<usize, Arc<Compiled>>);

impl Compilations {
    pub(super) fn of(&mut self, route: &Arc<HttpRoute>) -> Arc<Compiled> {
        let address = Arc::as_ptr(route).addr();
        self.0.entry(address).or_insert_with(|| Arc::new(Compiled::of(route))).clone()
    }

    /// Keeps what was compiled before.
    pub(super) fn keep(&mut self, compiled: &Arc<Compiled>) {
        let [route] = &compiled.route;
        self.0.insert(Arc::as_ptr(route).addr(), compiled.clone());
    }
}

impl Compiled {
    fn of(route: &Arc<HttpRoute>) -> Self {
        let routes = [route.clone()];
        let order = Order::of(&routes);
        let ranked = order.ranks().filter_map(|(rank, place)| Some((rank, place.of(&routes)?)));
        let paths = Paths::of(ranked.collect());
        let by_labels =
            |it: &HttpMatch| it.more.as_ref().is_some_and(|it| it.source_labels.is_some());
        let mut matches = route.rules.iter().flat_map(|rule| &rule.matches);
        let looks_at_labels = matches.any(by_labels);
        Self { route: routes, order, paths, looks_at_labels }
    }

    /// Whether it holds on a port for clients of a namespace. All of its parents have the same port.
    pub(super) fn is_for(&self, port: u16, client: &str) -> bool {
        let [route] = &self.route;
        let of = route.parents.first().and_then(|parent| parent.port);
        of.is_none_or(|of| of == port)
            && route.holds.as_ref().is_none_or(|holds| holds.is_for(client))
    }

    /// The order in which those of one service and namespace hold: the most specific host, then the oldest.
    pub(super) fn seniority(&self) -> impl Ord + use<> {
        let [route] = &self.route;
        let specific = route.holds.as_ref().map_or(0, |holds| holds.specific);
        let age = if route.created == 0 { i64::MAX } else { route.created };
        (std::cmp::Reverse(specific), age, route.key.clone())
    }
}
