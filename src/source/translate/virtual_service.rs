//! VirtualServices (Istio): their rules for services of the mesh.
//!
//! They compile to the same routes as HTTPRoutes and TCPRoutes do, of a kind of their own whose first match holds. One becomes several routes
//! where its rules differ by the port that is addressed, or its hosts are not equally specific; which of several VirtualServices
//! holds for a client is decided there ([`Holds`]). Rules for gateways are none of ours.
//!
//! They look at each other, and at services and routes of all namespaces, so they are translated together, when one of these
//! changed.

mod delegate;
mod destination;
mod hosts;
mod http;
mod matches;
mod rivals;
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::changes::Changes;
use super::route::Routes;
use super::services::Reshaped;
use super::sources::Sources;
use super::{Context, by_host, is_of_other_revision, labels, same};
use crate::base::{ObjectKey, Str, work};
use crate::model::{
    self, AppProtocol, Holds, HttpRoute, HttpRule, RouteKind, RouteParent, ServicePort, StreamKind,
    StreamRoute, StreamRules,
};
use crate::source::objects::{Kind, VirtualService, VirtualServiceSpec, created};
use crate::source::{Complaint, Severity};
use delegate::Delegates;
use destination::Services;
use hosts::Found;
use http::Rules;
use rivals::Held;
use streams::Streams;

/// The gateway that stands for the mesh.
const MESH: &str = "mesh";
/// VirtualServices of one namespace with hosts that have a star: each costs every service that it covers, which may be all of the mesh.
const MOST_WIDE: usize = 64;
/// Rules that one becomes, a match and a port each.
const MOST_RULES: usize = 16_384;

/// Kept from translation to translation.
#[derive(Default)]
pub(super) struct VirtualServices {
    models: Vec<Arc<HttpRoute>>,
    streams: Vec<Arc<StreamRoute>>,
    complaints: Vec<Complaint>,
    /// MeshConfig's, for those without `exportTo`.
    default_export: Vec<String>,
}

/// One that is read, and where it complains.
struct One<'a, 'c, 'b> {
    cx: &'c mut Context<'b>,
    key: &'a ObjectKey,
    spec: &'a VirtualServiceSpec,
    services: &'a Services<'a>,
    sources: &'a Sources,
}

impl VirtualServices {
    /// In the order of their keys.
    pub(super) fn models(&self) -> &[Arc<HttpRoute>] {
        &self.models
    }

    /// For connections.
    pub(super) fn streams(&self) -> &[Arc<StreamRoute>] {
        &self.streams
    }

    pub(super) fn complaints(&self) -> &[Complaint] {
        &self.complaints
    }

    /// Translates them if something changed that one of them looks at. `routes` are those of Gateway API.
    pub(super) fn update(
        &mut self,
        cx: &mut Context<'_>,
        sources: &Sources,
        (changes, reshaped, entries_changed): (&Changes, &[Reshaped], bool),
        services: &[Arc<model::Service>],
        routes: &Routes,
    ) {
        let mesh = cx.mesh_config();
        let default = mesh.map_or(&[][..], |mesh| &mesh.default_virtual_service_export_to);
        let concerned = changes.virtual_services
            || self.default_export != default
            || changes.all_routes
            || !changes.routes.is_empty()
            || !reshaped.is_empty()
            || entries_changed;
        let any = cx.objects.all::<VirtualService>().next().is_some();
        if !concerned || (!any && self.are_none()) {
            return;
        }
        self.default_export = default.to_vec();
        let objects = cx.objects;
        let mut all: Vec<_> = objects.all::<VirtualService>().collect();
        // The oldest first; one of unknown age counts as the youngest, and of equally old ones the first by key holds.
        all.sort_by_key(|(key, object)| match created(&object.metadata) {
            0 => (i64::MAX, *key),
            created => (created, *key),
        });
        let services = Services::of(services);
        let routes = rivals::Routes::of(routes.attached());
        let mut delegates = Delegates::of(objects, cx.settings);
        let (mut models, mut streams) = (Vec::new(), Vec::new());
        let (mut held, mut wide) = (Held::default(), BTreeMap::new());
        for (key, object) in all {
            if is_of_other_revision(cx.settings, object) {
                continue;
            }
            work::did("virtual services translated");
            labels::check(cx, Kind::VirtualService, key, object);
            let mut one = One { cx, key, spec: &object.spec.0, services: &services, sources };
            if one.is_wide() && !one.has_room(wide.entry(&key.namespace).or_default()) {
                continue;
            }
            let found = one.hosts();
            streams.extend(one.streams(&found, created(&object.metadata)));
            let routes_of = one.routes(&mut delegates, &found, created(&object.metadata));
            held.complain(&mut one, &found, &routes_of);
            routes.complain(&mut one, &found, &routes_of);
            models.extend(routes_of);
        }
        warn_of_unused(cx, &delegates);
        models.sort_by(|one, other| one.key.cmp(&other.key));
        self.share(models);
        streams.sort_by(|one: &StreamRoute, other| one.key.cmp(&other.key));
        self.share_streams(streams);
        self.complaints = std::mem::take(&mut cx.complaints);
    }

    fn are_none(&self) -> bool {
        self.models.is_empty() && self.streams.is_empty() && self.complaints.is_empty()
    }

    fn share_streams(&mut self, streams: Vec<StreamRoute>) {
        let mut before: BTreeMap<ObjectKey, Vec<Arc<StreamRoute>>> = BTreeMap::new();
        for known in std::mem::take(&mut self.streams) {
            before.entry(known.key.clone()).or_default().push(known);
        }
        for route in streams {
            let route = Arc::new(route);
            let known = before.get_mut(&route.key).and_then(|known| {
                let place = known.iter().position(|it| same(it, &route))?;
                Some(known.swap_remove(place))
            });
            self.streams.push(known.unwrap_or(route));
        }
    }

    /// What says the same goes on where it was; the filters of another keep their state.
    fn share(&mut self, models: Vec<HttpRoute>) {
        let mut before: BTreeMap<ObjectKey, Vec<Arc<HttpRoute>>> = BTreeMap::new();
        for model in std::mem::take(&mut self.models) {
            before.entry(model.key.clone()).or_default().push(model);
        }
        for mut model in models {
            let known = before.get_mut(&model.key);
            let is_place_of = |it: &Arc<HttpRoute>| {
                let port = |route: &HttpRoute| route.parents.first().map(|parent| parent.port);
                it.holds == model.holds && port(it) == port(&model)
            };
            let place = known.as_ref().and_then(|known| known.iter().position(is_place_of));
            let known = known.zip(place).map(|(known, place)| known.swap_remove(place));
            if let Some(known) = known {
                let new = Arc::new(model);
                if same(&known, &new) {
                    self.models.push(known);
                    continue;
                }
                model = Arc::unwrap_or_clone(new);
                model.inherit(&known);
            }
            self.models.push(Arc::new(model));
        }
    }
}

fn warn_of_unused(cx: &mut Context<'_>, delegates: &Delegates<'_>) {
    for (key, spec) in delegates.unused() {
        let reason = "is empty, and no VirtualService delegates to this one, so it has no effect";
        if !spec.http.is_empty() || !spec.tls.is_empty() || !spec.tcp.is_empty() {
            cx.warn::<VirtualService>(key, "spec.hosts", reason);
        }
    }
}

impl<'a> One<'a, '_, '_> {
    fn is_wide(&self) -> bool {
        self.spec.hosts.iter().any(|host| host.starts_with('*'))
    }

    /// Whether there is room for another one with wide hosts beside `taken` older ones of the namespace; if there is not, that is told.
    fn has_room(&mut self, taken: &mut usize) -> bool {
        if *taken >= MOST_WIDE {
            let reason = format!(
                "{MOST_WIDE} VirtualServices of {} that are older have hosts with a star, which is the most: nothing of this one is in \
                 force",
                self.key.namespace
            );
            self.error("spec.hosts", reason);
            return false;
        }
        *taken += 1;
        true
    }

    /// Whether so many matches on so many ports are not too many, which is told.
    fn are_few(&mut self, field: &str, matches: usize, ports: usize) -> bool {
        let count = matches.saturating_mul(ports);
        if count > MOST_RULES {
            let reason = format!(
                "there are {count} rules with each match by itself, on each port of the hosts where that counts, and {MOST_RULES} \
                 is the most: none is in force. Give destinations a port, or fewer hosts"
            );
            self.error(field, reason);
        }
        count <= MOST_RULES
    }

    /// The routes that its rules become.
    fn routes(
        &mut self,
        delegates: &mut Delegates<'a>,
        found: &Found<'_>,
        created: i64,
    ) -> Vec<HttpRoute> {
        if found.services.is_empty() || self.spec.http.is_empty() {
            return Vec::new();
        }
        let written = delegates.rules(self);
        let rules = Rules::read(self, &written);
        let ports = if rules.differ_by_port() { found.ports() } else { 1 };
        if !self.are_few("spec.http", rules.len(), ports) {
            return Vec::new();
        }
        let to = self.spec.export_to.iter().map(String::as_str);
        let exported = by_host::exported(self.cx, Kind::VirtualService, self.key, to);
        // By port, where it counts, and by how specific the host is.
        let mut parents: BTreeMap<(Option<u16>, u32), Vec<RouteParent>> = BTreeMap::new();
        for (service, specific) in &found.services {
            let ports = match rules.differ_by_port() {
                false => vec![None],
                true => service.ports.iter().map(|port| Some(port.port)).collect(),
            };
            for port in ports {
                let parent = RouteParent { service: service.key.clone(), port };
                parents.entry((port, *specific)).or_default().push(parent);
            }
        }
        let mut compiled: BTreeMap<Option<u16>, Vec<HttpRule>> = BTreeMap::new();
        let ports: BTreeSet<Option<u16>> = parents.keys().map(|(port, _)| *port).collect();
        for port in ports {
            compiled.insert(port, rules.on(self, port));
        }
        let routes = parents.into_iter().filter_map(|((port, specific), parents)| {
            // Where no rule is for a port, the service itself takes what is addressed to it (as in Istio).
            let rules = compiled.get(&port).filter(|rules| !rules.is_empty())?.clone();
            let holds = Some(Box::new(Holds { exported: exported.clone(), specific }));
            let (kind, key) = (RouteKind::Virtual, self.key.clone());
            Some(HttpRoute { kind, key, created, parents, rules, holds })
        });
        routes.collect()
    }

    /// The same of rules for connections: for ports that are not said to speak HTTP.
    fn streams(&mut self, found: &Found<'_>, created: i64) -> Vec<StreamRoute> {
        let spec = self.spec;
        if found.services.is_empty() || (spec.tls.is_empty() && spec.tcp.is_empty()) {
            return Vec::new();
        }
        let rules = Streams::read(self);
        if !self.are_few("spec.tcp", rules.len(), found.ports()) {
            return Vec::new();
        }
        let to = self.spec.export_to.iter().map(String::as_str);
        let exported = by_host::exported(self.cx, Kind::VirtualService, self.key, to);
        let mut parents: BTreeMap<(u16, u32), Vec<RouteParent>> = BTreeMap::new();
        for (service, specific) in &found.services {
            let is_bytes =
                |it: &&ServicePort| matches!(it.protocol, AppProtocol::Tcp | AppProtocol::Detect);
            for port in service.ports.iter().filter(is_bytes).map(|port| port.port) {
                let parent = RouteParent { service: service.key.clone(), port: Some(port) };
                parents.entry((port, *specific)).or_default().push(parent);
            }
        }
        let routes = parents.into_iter().filter_map(|((port, specific), parents)| {
            let rules = rules.on(self, Some(port));
            let holds = Holds { exported: exported.clone(), specific };
            (!rules.is_empty()).then(|| StreamRoute {
                kind: StreamKind::Virtual,
                key: self.key.clone(),
                created,
                parents,
                names: Vec::new(),
                backends: Vec::new(),
                turn: Arc::default(),
                rules: Some(Box::new(StreamRules { holds, rules })),
            })
        });
        routes.collect()
    }

    fn warn(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.cx.warn::<VirtualService>(self.key, field, reason);
    }

    fn error(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.cx.error::<VirtualService>(self.key, field, reason);
    }

    fn complain(&mut self, severity: Severity, field: String, reason: String) {
        self.cx.complain(severity, Kind::VirtualService, self.key, field, reason);
    }

    /// For messages.
    fn described(&self) -> Str {
        arcstr::format!("VirtualService {}", self.key)
    }
}

#[cfg(test)]
pub(crate) mod tests;
