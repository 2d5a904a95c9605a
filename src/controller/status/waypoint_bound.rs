//! `istio.io/WaypointBound` of Services and ServiceEntries, as istiod writes it, and of namespaces that name a waypoint
//! for all that is in them.

use serde_json::json;

use super::condition::{self, Condition};
use super::{Desired, Subject, SubjectKind, View};
use crate::base::ObjectKey;
use crate::source::objects::{Namespace, Service, ServiceEntry};
use crate::source::{Resolved, WaypointBindings};

const BOUND: &str = "istio.io/WaypointBound";

/// No condition where no waypoint is named.
pub(super) fn status(
    view: &View<'_>,
    bindings: &WaypointBindings<'_>,
    subject: &Subject,
) -> Option<Desired> {
    let key = &subject.key;
    let (named, generation) = match subject.kind {
        SubjectKind::Namespace => {
            view.objects.get::<Namespace>(key)?;
            (bindings.of_namespace(&key.name), None)
        }
        SubjectKind::ServiceEntry => {
            let entry = view.objects.get::<ServiceEntry>(key)?;
            (bindings.of_service(key, &entry.metadata), entry.metadata.generation)
        }
        _ => {
            let service = view.objects.get::<Service>(key)?;
            // Names another host, which is asked for instead.
            if service.spec.as_ref()?.type_.as_deref() == Some("ExternalName") {
                return None;
            }
            (bindings.of_service(key, &service.metadata), None)
        }
    };
    let bound = named.map(|(waypoint, resolved)| condition(&waypoint, resolved));
    let conditions: Vec<Condition> = bound.into_iter().collect();
    let status = json!({ "conditions": condition::list(&conditions, generation) });
    Some(Desired { status, owned: &[BOUND] })
}

fn condition(waypoint: &ObjectKey, resolved: Resolved) -> Condition {
    let refused = |why: &str| format!("{why}; traffic that should go through it is refused");
    match resolved {
        Resolved::Bound => {
            let message = format!("Successfully attached to waypoint {waypoint}");
            Condition::holds(BOUND, "WaypointAccepted", message)
        }
        Resolved::NotReady(why) => Condition::fails(BOUND, "WaypointIsNotReady", refused(&why)),
        Resolved::Denied(why) => Condition::fails(BOUND, "AttachmentDenied", refused(&why)),
        Resolved::OtherTraffic => {
            let why = format!(
                "the waypoint {waypoint} does not take this kind of traffic, so there is no waypoint; check the label \
                 istio.io/waypoint-for of that Gateway"
            );
            Condition::fails(BOUND, "UnsupportedTrafficType", why)
        }
    }
}
