//! Routes from translation to translation: a route is translated when it changed, or a service that it looks at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::changes::Changes;
use super::super::services::{self, Reshaped};
use super::super::{Context, grpc_route, http_route, is_of_other_revision, labels, same};
use super::parents::Attached;
use super::services::{LookedAt, Others, Services};
use super::{RouteParts, conflicts};
use crate::base::{ObjectKey, Str, work};
use crate::model::{HttpRoute as Model, Service};
use crate::source::objects::{GrpcRoute, HttpRoute, Kind, Typed};
use crate::source::{Complaint, Objects};

/// Kept from translation to translation.
#[derive(Default)]
pub(in crate::source::translate) struct Routes {
    http: BTreeMap<ObjectKey, Known>,
    grpc: BTreeMap<ObjectKey, Known>,
    /// Of routes of both kinds in one namespace.
    conflicts: BTreeMap<Str, Vec<Complaint>>,
}

struct Known {
    /// `None` for a route that is attached to nothing of ours.
    attached: Option<Attached>,
    looked_at: LookedAt,
    complaints: Vec<Complaint>,
}

impl Routes {
    /// HTTPRoutes before GRPCRoutes, each in the order of their keys.
    pub(in crate::source::translate) fn models(&self) -> Vec<Arc<Model>> {
        let all = self.http.values().chain(self.grpc.values());
        all.filter_map(|known| Some(known.attached.as_ref()?.route.clone())).collect()
    }

    pub(in crate::source::translate) fn complaints(&self) -> impl Iterator<Item = &Complaint> {
        let all = self.http.values().chain(self.grpc.values());
        all.flat_map(|known| &known.complaints).chain(self.conflicts.values().flatten())
    }

    pub(in crate::source::translate) fn update(
        &mut self,
        cx: &mut Context<'_>,
        changes: &Changes,
        reshaped: &[Reshaped],
        kubernetes: &services::Services,
        (entries, entries_changed): (&[Arc<Service>], bool),
    ) {
        let concerned = self.concerned(cx.objects, changes, reshaped, entries_changed);
        let namespaces: BTreeSet<Str> =
            concerned.iter().map(|(_, key)| key.namespace.clone()).collect();
        for (kind, key) in concerned {
            let services = Services::new(kubernetes, entries);
            self.translate(cx, services, kind, key);
        }
        for namespace in namespaces {
            let of = |kind: &'_ BTreeMap<ObjectKey, Known>| {
                let known = kind.range(ObjectKey::new(namespace.clone(), "")..);
                let own = known.take_while(|(key, _)| key.namespace == namespace);
                own.filter_map(|(_, known)| known.attached.clone()).collect::<Vec<_>>()
            };
            conflicts::complain(cx, &of(&self.http), &of(&self.grpc));
            self.conflicts.insert(namespace, std::mem::take(&mut cx.complaints));
        }
    }

    fn concerned(
        &self,
        objects: &Objects,
        changes: &Changes,
        reshaped: &[Reshaped],
        entries_changed: bool,
    ) -> BTreeSet<(Kind, ObjectKey)> {
        let mut concerned = changes.routes.clone();
        let known = self.http.iter().map(|it| (HttpRoute::KIND, it));
        let known = known.chain(self.grpc.iter().map(|it| (GrpcRoute::KIND, it)));
        if changes.all_routes {
            let http = objects.all::<HttpRoute>().map(|(key, _)| (HttpRoute::KIND, key.clone()));
            let grpc = objects.all::<GrpcRoute>().map(|(key, _)| (GrpcRoute::KIND, key.clone()));
            concerned.extend(http.chain(grpc));
            concerned.extend(known.map(|(kind, (key, _))| (kind, key.clone())));
        } else if entries_changed || changes.gateways || !reshaped.is_empty() {
            let services: BTreeSet<&ObjectKey> = reshaped.iter().map(|it| &it.key).collect();
            let others = Others { entries: entries_changed, gateways: changes.gateways };
            let looking =
                known.filter(|(_, (_, known))| known.looked_at.concern(&services, others));
            concerned.extend(looking.map(|(kind, (key, _))| (kind, key.clone())));
        }
        concerned
    }

    fn translate(
        &mut self,
        cx: &mut Context<'_>,
        services: Services<'_>,
        kind: Kind,
        key: ObjectKey,
    ) {
        let (objects, settings) = (cx.objects, cx.settings);
        let is_ours = |metadata| !is_of_other_revision(settings, metadata);
        let (parts, routes): (Option<RouteParts<'_>>, _) = if kind == HttpRoute::KIND {
            let route = objects.get::<HttpRoute>(&key).filter(|it| is_ours(&it.metadata));
            if let Some(route) = route {
                labels::check(cx, Kind::HTTPRoute, &key, &route.metadata);
            }
            (route.map(|route| http_route::parts(&key, route)), &mut self.http)
        } else {
            let route = objects.get::<GrpcRoute>(&key).filter(|it| is_ours(&it.metadata));
            if let Some(route) = route {
                labels::check(cx, Kind::GRPCRoute, &key, &route.metadata);
            }
            (route.map(|route| grpc_route::parts(&key, route)), &mut self.grpc)
        };
        let Some(parts) = parts else {
            routes.remove(&key);
            return;
        };
        work::did("routes translated");
        let mut attached = super::translate_one(cx, &services, &parts);
        let before = routes.get(&key).and_then(|known| known.attached.as_ref());
        if let (Some(new), Some(before)) = (&mut attached, before) {
            if same(&before.route, &new.route) {
                // The very same goes on where it was with the splitting of its traffic.
                new.route = before.route.clone();
            } else if let Some(route) = Arc::get_mut(&mut new.route) {
                route.inherit(&before.route);
            }
        }
        let complaints = std::mem::take(&mut cx.complaints);
        let known = Known { attached, looked_at: services.looked_at(), complaints };
        routes.insert(key, known);
    }
}
