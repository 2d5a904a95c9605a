//! Routes from translation to translation: a route is translated when it changed, or a service that it looks at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::changes::Changes;
use super::super::services::{self, Reshaped};
use super::super::{
    Context, grpc_route, http_route, is_of_other_revision, labels, same, tcp_route, tls_route,
};
use super::parents::{Attached, Translated};
use super::services::{LookedAt, Others, Services};
use super::{RouteParts, StreamParts, conflicts, streams};
use crate::base::{ObjectKey, Str, work};
use crate::model::{HttpRoute as Model, Service, StreamRoute};
use crate::source::objects::{GrpcRoute, HttpRoute, Kind, Labelled, TcpRoute, TlsRoute, Typed};
use crate::source::{Complaint, Objects};

/// The kinds of routes.
const KINDS: [Kind; 4] = [HttpRoute::KIND, GrpcRoute::KIND, TcpRoute::KIND, TlsRoute::KIND];

/// Kept from translation to translation.
#[derive(Default)]
pub(in crate::source::translate) struct Routes {
    /// In the order of the kinds, each in the order of their keys.
    known: BTreeMap<(Kind, ObjectKey), Known>,
    /// Of routes of all kinds in one namespace.
    conflicts: BTreeMap<Str, Vec<Complaint>>,
}

struct Known {
    /// `None` for a route that is attached to nothing of ours.
    attached: Option<Attached>,
    looked_at: LookedAt,
    complaints: Vec<Complaint>,
}

/// A route as written, of requests or of connections.
enum Written<'a> {
    Requests(RouteParts<'a>),
    Connections(StreamParts<'a>),
}

impl Routes {
    /// HTTPRoutes before GRPCRoutes, each in the order of their keys.
    pub(in crate::source::translate) fn models(&self) -> Vec<Arc<Model>> {
        let of_requests = |it: &Translated| match it {
            Translated::Http(route) => Some(route.clone()),
            Translated::Stream(_) => None,
        };
        self.attached().filter_map(|it| of_requests(&it.route)).collect()
    }

    /// TCPRoutes and TLSRoutes, each in the order of their keys.
    pub(in crate::source::translate) fn streams(&self) -> Vec<Arc<StreamRoute>> {
        let of_connections = |it: &Translated| match it {
            Translated::Http(_) => None,
            Translated::Stream(route) => Some(route.clone()),
        };
        self.attached().filter_map(|it| of_connections(&it.route)).collect()
    }

    pub(in crate::source::translate) fn attached(&self) -> impl Iterator<Item = &Attached> {
        self.known.values().filter_map(|known| known.attached.as_ref())
    }

    pub(in crate::source::translate) fn complaints(&self) -> impl Iterator<Item = &Complaint> {
        let own = self.known.values().flat_map(|known| &known.complaints);
        own.chain(self.conflicts.values().flatten())
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
            let of = |kind: Kind| {
                let known = self.known.range((kind, ObjectKey::new(namespace.clone(), ""))..);
                let namespace = namespace.clone();
                let own = known
                    .take_while(move |((of, key), _)| *of == kind && key.namespace == namespace);
                own.filter_map(|(_, known)| known.attached.clone())
            };
            let routes: Vec<Attached> = KINDS.into_iter().flat_map(of).collect();
            conflicts::complain(cx, &Services::new(kubernetes, entries), &routes);
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
        if changes.all_routes {
            let all = |kind: Kind| objects.of_kind(kind).map(move |(key, _)| (kind, key.clone()));
            concerned.extend(KINDS.into_iter().flat_map(all));
            concerned.extend(self.known.keys().cloned());
        } else if entries_changed || changes.gateways || !reshaped.is_empty() {
            let services: BTreeSet<&ObjectKey> = reshaped.iter().map(|it| &it.key).collect();
            let others = Others { entries: entries_changed, gateways: changes.gateways };
            let looking =
                self.known.iter().filter(|(_, known)| known.looked_at.concern(&services, others));
            concerned.extend(looking.map(|(id, _)| id.clone()));
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
        let Some(written) = written(cx, cx.objects, kind, &key) else {
            self.known.remove(&(kind, key));
            return;
        };
        work::did("routes translated");
        let mut attached = match &written {
            Written::Requests(parts) => super::translate_one(cx, &services, parts),
            Written::Connections(parts) => streams::translate_one(cx, &services, parts),
        };
        let id = (kind, key.clone());
        let before = self.known.get(&id).and_then(|known| known.attached.as_ref());
        if let (Some(new), Some(before)) = (&mut attached, before) {
            go_on(&mut new.route, &before.route);
        }
        let complaints = std::mem::take(&mut cx.complaints);
        self.known.insert(id, Known { attached, looked_at: services.looked_at(), complaints });
    }
}

/// The very same route goes on where it was with the splitting of its traffic; the filters of another keep their state.
fn go_on(new: &mut Translated, before: &Translated) {
    match (new, before) {
        (Translated::Http(new), Translated::Http(before)) => {
            if same(before, new) {
                *new = before.clone();
            } else if let Some(new) = Arc::get_mut(new) {
                new.inherit(before);
            }
        }
        (Translated::Stream(new), Translated::Stream(before)) if same(before, new) => {
            *new = before.clone();
        }
        _ => {}
    }
}

/// The route, unless it is another revision's. Complains of its labels.
fn written<'a>(
    cx: &mut Context<'_>,
    objects: &'a Objects,
    kind: Kind,
    key: &'a ObjectKey,
) -> Option<Written<'a>> {
    Some(if kind == HttpRoute::KIND {
        Written::Requests(http_route::parts(key, own(cx, key, objects.get::<HttpRoute>(key))?))
    } else if kind == GrpcRoute::KIND {
        Written::Requests(grpc_route::parts(key, own(cx, key, objects.get::<GrpcRoute>(key))?))
    } else if kind == TcpRoute::KIND {
        Written::Connections(tcp_route::parts(key, own(cx, key, objects.get::<TcpRoute>(key))?))
    } else {
        Written::Connections(tls_route::parts(key, own(cx, key, objects.get::<TlsRoute>(key))?))
    })
}

fn own<'a, T: Typed + Labelled>(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    route: Option<&'a T>,
) -> Option<&'a T> {
    let route = route.filter(|route| !is_of_other_revision(cx.settings, *route))?;
    labels::check(cx, T::KIND, key, route);
    Some(route)
}
