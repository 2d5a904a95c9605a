//! The waypoints that objects are bound to, for the statuses.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::{Context, TranslateSettings, authorization_policy};
use super::{Addressed, Resolved, USE_WAYPOINT, Waypoints, named, target};
use crate::base::ObjectKey;
use crate::config::MissingWaypoint;
use crate::model::PolicyTarget;
use crate::source::Objects;
use crate::source::objects::{Kind, label};

/// Which waypoints services and namespaces name, and what becomes of it: the same answers as in a translation, for
/// whoever reports them.
pub struct WaypointBindings<'a> {
    objects: &'a Objects,
    settings: &'a TranslateSettings,
    waypoints: Waypoints,
}

impl<'a> WaypointBindings<'a> {
    pub fn new(objects: &'a Objects, settings: &'a TranslateSettings) -> Self {
        let mut cx = Context { objects, settings, complaints: Vec::new() };
        let mut waypoints = Waypoints::collect(&mut cx);
        if settings.missing_waypoint == MissingWaypoint::Layer4 {
            let policies = authorization_policy::translate(&mut cx, &waypoints);
            waypoints.heed(&cx, policies.models());
        }
        Self { objects, settings, waypoints }
    }

    /// The waypoint of a Service or ServiceEntry; `None` when neither it nor its namespace names one, or it opts out.
    pub fn of_service(
        &self,
        kind: Kind,
        key: &ObjectKey,
        metadata: &ObjectMeta,
    ) -> Option<(ObjectKey, Resolved)> {
        let waypoint = named(self.objects, &key.namespace, Some(metadata))?;
        let own = label(metadata, USE_WAYPOINT).is_some();
        let target = target(kind, key);
        match self.resolve(&waypoint, &key.namespace, Addressed::Service, target.as_ref()) {
            Resolved::OtherTraffic if !own => None,
            resolved => Some((waypoint, resolved)),
        }
    }

    /// The waypoint that a namespace names for its objects. It is bound when it takes any traffic at all.
    pub fn of_namespace(&self, namespace: &str) -> Option<(ObjectKey, Resolved)> {
        let waypoint = named(self.objects, namespace, None::<&ObjectMeta>)?;
        let resolve = |addressed| self.resolve(&waypoint, namespace, addressed, None);
        let resolved = match resolve(Addressed::Service) {
            Resolved::OtherTraffic => resolve(Addressed::Workload),
            resolved => resolved,
        };
        Some((waypoint, resolved))
    }

    fn resolve(
        &self,
        waypoint: &ObjectKey,
        namespace: &str,
        addressed: Addressed,
        target: Option<&PolicyTarget>,
    ) -> Resolved {
        let cx = Context { objects: self.objects, settings: self.settings, complaints: Vec::new() };
        self.waypoints.resolve(&cx, waypoint, namespace, addressed, target)
    }
}
