//! Which of several matches that a request fulfils holds.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::model::{HttpMatch, HttpRoute, PathMatch, RouteKind, TextMatch};

/// A match of a route, by its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) route: u32,
    pub(super) rule: u32,
    matched: u32,
}

/// All matches of some routes, in the order in which they take precedence.
#[derive(Debug, Default)]
pub(super) struct Order(Vec<Place>);

impl Order {
    /// Exact path, longest prefix, method, number of headers, number of query parameters, oldest, name; a remaining tie
    /// goes to the first rule of the route. The API does not rank regular expressions; they come after exact paths and
    /// prefixes, longest first, as in Istio. Of a GRPCRoute: the longest service, the longest method, number of headers,
    /// and so on.
    ///
    /// Matches of a VirtualService come in the order of their list (Istio, "Precedence").
    pub(super) fn of(routes: &[Arc<HttpRoute>]) -> Self {
        let mut all = Vec::new();
        for (route, at) in routes.iter().zip(0u32..) {
            for (rule, of_route) in route.rules.iter().zip(0u32..) {
                let matches = rule.matches.iter().zip(0u32..);
                all.extend(matches.map(|(matched, number)| {
                    let rank = match route.kind {
                        RouteKind::Http | RouteKind::Grpc => Some(Reverse(rank(matched))),
                        // The first in its list, whatever it matches.
                        RouteKind::Virtual => None,
                    };
                    let rank = (rank, age(route.created), &route.key);
                    (rank, Place { route: at, rule: of_route, matched: number })
                }));
            }
        }
        // Stable: of what is left, the first comes first.
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self(all.into_iter().map(|(_, place)| place).collect())
    }

    /// Places with their ranks: the first is 0.
    pub(super) fn ranks(&self) -> impl Iterator<Item = (u32, Place)> {
        (0u32..).zip(self.0.iter().copied())
    }

    pub(super) fn at(&self, rank: u32) -> Option<Place> {
        self.0.get(rank as usize).copied()
    }
}

impl Place {
    /// The match's place in its rule.
    pub(super) fn matched(self) -> usize {
        self.matched as usize
    }

    pub(super) fn of(self, routes: &[Arc<HttpRoute>]) -> Option<&HttpMatch> {
        let rule = routes.get(self.route as usize)?.rules.get(self.rule as usize)?;
        rule.matches.get(self.matched as usize)
    }
}

/// A match, by its places in the routes, the rules of its route and the matches of its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matched {
    pub route: usize,
    pub rule: usize,
    pub number: usize,
}

/// All matches of routes of one kind, in the order in which they take precedence.
pub fn by_precedence(routes: &[Arc<HttpRoute>]) -> Vec<Matched> {
    let place = |it: Place| Matched {
        route: it.route as usize,
        rule: it.rule as usize,
        number: it.matched as usize,
    };
    Order::of(routes).0.into_iter().map(place).collect()
}

/// The greater one takes precedence.
fn rank(matched: &HttpMatch) -> impl Ord + use<> {
    let HttpMatch { path, headers, query, method, more: _ } = matched;
    (path_rank(path), method.is_some(), headers.len(), query.len())
}

/// Kind, then length. Matches of gRPC never stand beside others.
fn path_rank(path: &PathMatch) -> (u8, usize, usize) {
    match path {
        PathMatch::Exact(text) => (2, text.len(), 0),
        PathMatch::Prefix(text) => (1, text.trim_end_matches('/').len(), 0),
        PathMatch::Regex(regex) => (0, regex.as_str().len(), 0),
        // Only matches of VirtualServices, which have no rank.
        PathMatch::Starts(_) | PathMatch::ExactAnyCase(_) | PathMatch::StartsAnyCase(_) => {
            (0, 0, 0)
        }
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
