//! Who else has a service: an older VirtualService of the namespace with the same host, or a route of Gateway API. Which one holds is
//! decided for each request; here their authors are told.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::One;
use super::hosts::Found;
use crate::base::{ObjectKey, Str};
use crate::model::{HttpRoute, RouteKind, Service};
use crate::source::objects::Kind;
use crate::source::translate::route::{Attached, Translated};
use crate::source::{Severity, Topic};

/// What VirtualServices that are older have: by namespace and service, who holds on which ports.
#[derive(Default)]
pub(super) struct Held<'a>(BTreeMap<(Str, ObjectKey), Vec<Holder<'a>>>);

struct Holder<'a> {
    key: &'a ObjectKey,
    specific: u32,
    exported: Option<Vec<Str>>,
    ports: BTreeSet<u16>,
}

/// Routes of Gateway API, by their namespace and a service that is their parent.
pub(super) struct Routes<'a>(BTreeMap<(Str, ObjectKey), Vec<&'a Attached>>);

impl<'a> Held<'a> {
    /// Complains of hosts that others have, and remembers those of this one.
    pub(super) fn complain(
        &mut self,
        one: &mut One<'a, '_, '_>,
        found: &Found<'_>,
        routes: &[HttpRoute],
    ) {
        let (mut taken, mut free) = (BTreeMap::<usize, &ObjectKey>::new(), BTreeSet::new());
        let held = Ports::of(routes);
        for (service, specific) in &found.services {
            let ports = held.of_service(service);
            let Some(host) = found.host(&service.key).filter(|_| !ports.is_empty()) else {
                continue;
            };
            let exported = routes.first().and_then(|it| it.holds.as_ref()?.exported.clone());
            let id = (one.key.namespace.clone(), service.key.clone());
            let holders = self.0.entry(id).or_default();
            let beats = |it: &&Holder<'_>| {
                it.specific >= *specific
                    && it.ports.is_superset(&ports)
                    && covers(&it.exported, &exported)
            };
            match holders.iter().find(beats) {
                Some(holder) => _ = taken.insert(host, holder.key),
                None => _ = free.insert(host),
            }
            holders.push(Holder { key: one.key, specific: *specific, exported, ports });
        }
        let all = free.is_empty() && !taken.is_empty();
        for (host, holder) in taken.into_iter().filter(|(host, _)| !free.contains(host)) {
            let reason = format!(
                "the VirtualService {holder} has the host too, is older (of equally old ones the first by name) or has it more \
                 specifically, and holds: in the mesh, VirtualServices of one host are not merged (as in Istio)"
            );
            let field = if all { String::new() } else { format!("spec.hosts[{host}]") };
            one.warn(field, reason);
            one.cx.about(Topic::Outdone);
        }
    }
}

impl<'a> Routes<'a> {
    pub(super) fn of(all: impl Iterator<Item = &'a Attached>) -> Self {
        let mut by_service: BTreeMap<(Str, ObjectKey), Vec<&Attached>> = BTreeMap::new();
        for attached in all {
            let namespace = &route_key(attached).namespace;
            for parent in attached.route.parents() {
                let id = (namespace.clone(), parent.service.clone());
                by_service.entry(id).or_default().push(attached);
            }
        }
        Self(by_service)
    }

    /// Tells both sides: of one namespace, routes of Gateway API hold.
    pub(super) fn complain(
        &self,
        one: &mut One<'_, '_, '_>,
        found: &Found<'_>,
        routes: &[HttpRoute],
    ) {
        let held = Ports::of(routes);
        for (service, _) in &found.services {
            let id = (one.key.namespace.clone(), service.key.clone());
            let Some(rivals) = self.0.get(&id) else { continue };
            let ports = held.of_service(service);
            let Some(host) = found.host(&service.key).filter(|_| !ports.is_empty()) else {
                continue;
            };
            for rival in rivals {
                let of_service = rival
                    .route
                    .parents()
                    .iter()
                    .zip(&rival.indexes)
                    .filter(|it| it.0.service == service.key);
                for (parent, index) in of_service {
                    let common =
                        ports.iter().filter(|port| parent.port.is_none_or(|it| it == **port));
                    let common: Vec<String> = common.map(u16::to_string).collect();
                    if common.is_empty() {
                        continue;
                    }
                    let common = common.join(", ");
                    let (kind, key) = (route_kind(rival), route_key(rival));
                    let reason = format!(
                        "the {kind} {key} is attached to port {common} of {service} and holds there: routes of Gateway API come \
                         before VirtualServices of the same namespace"
                    );
                    one.warn(format!("spec.hosts[{host}]"), reason);
                    one.cx.about(Topic::Outdone);
                    let reason = format!(
                        "the {} is for port {common} of {service} too; this route holds there, since routes of Gateway API come \
                         before VirtualServices of the same namespace",
                        one.described()
                    );
                    let field = format!("spec.parentRefs[{index}]");
                    one.cx.complain(Severity::Warning, kind, key, field, reason);
                    one.cx.about(Topic::Outdone);
                }
            }
        }
    }
}

/// The ports of services that the routes of a VirtualService are for; `None`: all.
struct Ports<'a>(HashMap<&'a ObjectKey, Vec<Option<u16>>>);

impl<'a> Ports<'a> {
    fn of(routes: &'a [HttpRoute]) -> Self {
        let mut ports: HashMap<&ObjectKey, Vec<Option<u16>>> = HashMap::new();
        for parent in routes.iter().flat_map(|route| &route.parents) {
            ports.entry(&parent.service).or_default().push(parent.port);
        }
        Self(ports)
    }

    fn of_service(&self, service: &Service) -> BTreeSet<u16> {
        let held = self.0.get(&service.key).map_or(&[][..], Vec::as_slice);
        let is_held = |port: &u16| held.iter().any(|it| it.is_none_or(|it| it == *port));
        service.ports.iter().map(|port| port.port).filter(is_held).collect()
    }
}

/// Whether whoever sees the second sees the first.
fn covers(one: &Option<Vec<Str>>, other: &Option<Vec<Str>>) -> bool {
    match (one, other) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(one), Some(other)) => other.iter().all(|namespace| one.contains(namespace)),
    }
}

fn route_kind(attached: &Attached) -> Kind {
    match &attached.route {
        Translated::Http(route) => match route.kind {
            RouteKind::Grpc => Kind::GRPCRoute,
            RouteKind::Http | RouteKind::Virtual => Kind::HTTPRoute,
        },
        Translated::Stream(route) => match route.kind {
            crate::model::StreamKind::Tcp | crate::model::StreamKind::Virtual => Kind::TCPRoute,
            crate::model::StreamKind::Tls => Kind::TLSRoute,
        },
    }
}

fn route_key(attached: &Attached) -> &ObjectKey {
    match &attached.route {
        Translated::Http(route) => &route.key,
        Translated::Stream(route) => &route.key,
    }
}
