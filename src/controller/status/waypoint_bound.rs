//! `istio.io/WaypointBound` of Services and ServiceEntries, as istiod writes it, and of namespaces that name a waypoint
//! for all their objects; and `istio.io/WaypointMissing` of entries that need one.

use std::sync::Arc;

use serde_json::json;

use super::condition::{self, Condition};
use super::{Desired, Stored, Subject, SubjectKind, View};
use crate::base::ObjectKey;
use crate::model;
use crate::source::objects::{Kind, Namespace, Service, ServiceEntry};
use crate::source::{Resolved, Severity, WaypointBindings};

const BOUND: &str = "istio.io/WaypointBound";
/// Of a ServiceEntry with `DYNAMIC_DNS`, whose names a waypoint would resolve.
const MISSING: &str = "istio.io/WaypointMissing";
/// In the field of what is told of a second waypoint.
const CANARY: &str = "istio.io/use-waypoint-canary";
/// Fields of a ServiceEntry whose error means that none of its traffic goes through its waypoint.
const CLOSING: [&str; 4] = ["spec.resolution", "spec.addresses", "spec.endpoints", "spec.location"];

/// No condition if no waypoint is named.
pub(super) fn status(
    view: &View<'_>,
    bindings: &WaypointBindings<'_>,
    subject: &Subject,
    stored: &Stored,
) -> Option<Desired> {
    let key = &subject.key;
    let (bound, generation) = match subject.kind {
        SubjectKind::Of(Kind::Namespace) => {
            view.objects.get::<Namespace>(key)?;
            (bindings.of_namespace(&key.name).map(condition), None)
        }
        SubjectKind::Of(Kind::ServiceEntry) => {
            (of_entry(view, bindings, subject, stored), stored.generation())
        }
        _ => {
            let service = view.objects.get::<Service>(key)?;
            let spec = service.spec.as_ref()?;
            // An entry that names another host has no traffic of its own: that host is resolved instead.
            let takes_traffic = spec.type_.as_deref() != Some("ExternalName");
            let named =
                takes_traffic.then(|| bindings.of_service(Kind::Service, key, &service.metadata));
            (named.flatten().map(condition), None)
        }
    };
    let missing = missing(view, subject, bound.as_ref());
    let mut conditions: Vec<Condition> = bound.into_iter().collect();
    for condition in conditions.iter_mut().filter(|it| it.holds) {
        // As istiod says it.
        let canaries = view.complaints(subject).filter(|it| it.field.contains(CANARY));
        canaries.for_each(|it| {
            condition.message += ". Canary waypoint not attached: ";
            condition.message += &it.reason;
        });
    }
    conditions.extend(missing);
    let status = json!({ "conditions": condition::list(&conditions, generation) });
    Some(Desired { status, owned: &[BOUND, MISSING] })
}

/// As istiod says it.
fn missing(view: &View<'_>, subject: &Subject, bound: Option<&Condition>) -> Option<Condition> {
    let is_said = bound.is_some_and(|it| it.holds || it.reason == "Invalid");
    if subject.kind != SubjectKind::Of(Kind::ServiceEntry) || is_said {
        return None;
    }
    let entry = view.objects.get::<ServiceEntry>(&subject.key)?;
    let is_dynamic = entry.spec.resolution.as_deref() == Some("DYNAMIC_DNS");
    let message = "ServiceEntry will not apply until it is bound to a valid waypoint; what is addressed to it is refused.";
    is_dynamic.then(|| Condition::holds(MISSING, "NoWaypointForWildcardService", message))
}

/// An unsupported entry is bound to nothing, whatever its labels name.
fn of_entry(
    view: &View<'_>,
    bindings: &WaypointBindings<'_>,
    subject: &Subject,
    stored: &Stored,
) -> Option<Condition> {
    let key = &subject.key;
    let Some(entry) = view.objects.get::<ServiceEntry>(key) else {
        let why = stored.refused.as_ref().map(|error| format!("{}: {}", error.field, error.reason));
        return Some(Condition::fails(BOUND, "Invalid", why.unwrap_or_default()));
    };
    let bound = condition(bindings.of_service(Kind::ServiceEntry, key, &entry.metadata)?);
    let fault = view
        .complaints(subject)
        .find(|it| it.severity == Severity::Error && CLOSING.contains(&it.field.as_str()));
    let is_host = |service: &Arc<model::Service>| {
        service.entry.as_ref() == Some(&key.name) && service.key.namespace == key.namespace
    };
    match fault {
        Some(fault) => {
            let why = format!("{}: {}", fault.field, fault.reason);
            Some(Condition::fails(BOUND, "Invalid", why))
        }
        None if bound.holds && !view.translation.mesh.services.iter().any(is_host) => {
            let about = view.complaints(subject).filter(|it| it.field.starts_with("spec.hosts"));
            let why = condition::joined(about.map(|it| it.reason.as_str()));
            Some(Condition::fails(BOUND, "Invalid", format!("no host is in force: {why}")))
        }
        None => Some(bound),
    }
}

fn condition((waypoint, resolved): (ObjectKey, Resolved)) -> Condition {
    let refused = |why: &str| format!("{why}; traffic that should go through it is refused");
    match resolved {
        Resolved::Bound => {
            let message = format!("Successfully attached to waypoint {waypoint}");
            Condition::holds(BOUND, "WaypointAccepted", message)
        }
        Resolved::Missing(why) => Condition::fails(BOUND, "WaypointIsMissing", why),
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
