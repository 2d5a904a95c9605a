//! TrafficPolicies: which filter holds for which Service and which rule of a route (GEP-713, a hierarchy of targets).
//!
//! Of several policies that say the same the most specific holds: for a rule of a route, for the route, for a port of the
//! Service or ServiceEntry, for all of it, for a listener of the waypoint that it is bound to, for the waypoint, for the
//! waypoint's class. For one target only the oldest policy with a filter holds; the others say in their status that they
//! conflict.

mod claims;
mod target;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Attach, Context};
use crate::base::ObjectKey;
use crate::filter::{self, HttpFilter};
use crate::model::{HttpRoute, HttpRule, Mesh, RouteKind, Service};
use claims::{Claims, OfService};
use target::Known;

/// The previous translation's results, which keep the state of the filters.
#[derive(Default)]
pub(super) struct Attachments {
    services: BTreeMap<ObjectKey, With<Service>>,
    routes: BTreeMap<(RouteKind, ObjectKey), With<HttpRoute>>,
    /// What each policy says: all of its targets share the state of its filters, those that come later too.
    policies: BTreeMap<ObjectKey, Vec<HttpFilter>>,
}

/// An object without and with the filters of policies.
struct With<T> {
    plain: Arc<T>,
    filtered: Arc<T>,
}

impl Attach for Attachments {
    fn attach(&mut self, cx: &mut Context<'_>, mesh: &mut Mesh) {
        let Mesh { waypoints, services, routes, .. } = mesh;
        let mut claims = Claims::of(cx, &mut self.policies);
        if claims.are_none() && self.services.is_empty() && self.routes.is_empty() {
            return;
        }
        let before = std::mem::take(&mut self.services);
        for service in &mut *services {
            let given = claims.of_service(cx, service, waypoints);
            if !given.filters.is_empty() || !given.ports.is_empty() {
                let with = With::service(before.get(&service.key), service, given);
                *service = with.filtered.clone();
                self.services.insert(service.key.clone(), with);
            }
        }
        let before = std::mem::take(&mut self.routes);
        for route in routes {
            let filters: Vec<Vec<HttpFilter>> =
                route.rules.iter().map(|rule| claims.of_rule(route, rule)).collect();
            if filters.iter().any(|filters| !filters.is_empty()) {
                let id = (route.kind, route.key.clone());
                let with = With::route(before.get(&id), route, filters);
                *route = with.filtered.clone();
                self.routes.insert(id, with);
            }
        }
        claims.complain_of_unreached(cx, &Known { waypoints, services });
        claims.complain_of_ignored(cx);
        claims.tell_of_overridden(cx);
    }
}

impl With<Service> {
    fn service(before: Option<&Self>, plain: &Arc<Service>, given: OfService) -> Self {
        let OfService { mut filters, mut ports } = given;
        if let Some(before) = before {
            filter::inherit(&mut filters, &before.filtered.filters);
            for of in &mut ports {
                filter::inherit(&mut of.filters, before.filtered.filters_on(of.port));
            }
        }
        for of in &mut ports {
            let general = filters.iter().filter(|it| !filter::has_type_of(&of.filters, it));
            let general: Vec<_> = general.cloned().collect();
            of.filters.extend(general);
        }
        if let Some(Self { plain: before, filtered }) = before
            && Arc::ptr_eq(before, plain)
            && (&filtered.filters, &filtered.port_filters) == (&filters, &ports)
        {
            return Self { plain: plain.clone(), filtered: filtered.clone() };
        }
        let service = Service { filters, port_filters: ports, ..Service::clone(plain) };
        Self { plain: plain.clone(), filtered: Arc::new(service) }
    }
}

impl With<HttpRoute> {
    fn route(before: Option<&Self>, plain: &Arc<HttpRoute>, filters: Vec<Vec<HttpFilter>>) -> Self {
        let mut filtered = HttpRoute::clone(plain);
        for (rule, filters) in filtered.rules.iter_mut().zip(filters) {
            rule.filters.extend(filters);
        }
        if let Some(before) = before {
            let same = |(one, two): (&HttpRule, &HttpRule)| one.filters == two.filters;
            let rules = filtered.rules.iter().zip(&before.filtered.rules);
            if Arc::ptr_eq(&before.plain, plain) && rules.clone().all(same) {
                return Self { plain: plain.clone(), filtered: before.filtered.clone() };
            }
            filtered.inherit(&before.filtered);
        }
        Self { plain: plain.clone(), filtered: Arc::new(filtered) }
    }
}
