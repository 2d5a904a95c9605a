//! Gateways of the class `istio-waypoint`. Nothing is deployed for one: it is programmed as soon as it is accepted. One of a
//! revision that is not ours is told that in a condition of our own: its others belong to whoever serves that revision.

use serde_json::{Value, json};

use super::class::Class;
use super::condition::{self, Condition};
use super::unserved::CARRIED_OUT;
use super::{Desired, Stored, Subject, View};
use crate::base::{ObjectKey, ports};
use crate::source::objects::{Gateway, Listener, Service};
use crate::source::{Complaint, Severity, WAYPOINT_CLASS, other_revision_of_gateway};

const ACCEPTED: &str = "Accepted";
const PROGRAMMED: &str = "Programmed";
const RESOLVED_REFS: &str = "ResolvedRefs";
const CONFLICTED: &str = "Conflicted";

/// `None`: the Gateway's status belongs to another controller.
pub(super) fn status(
    view: &View<'_>,
    class: &Class,
    subject: &Subject,
    stored: &Stored,
) -> Option<Desired> {
    let named = stored.spec("gatewayClassName").and_then(Value::as_str);
    if named != Some(WAYPOINT_CLASS) || *class == Class::Taken {
        return None;
    }
    let generation = stored.generation();
    let owned: &[&str] = &[ACCEPTED, PROGRAMMED, CARRIED_OUT];
    let gateway = view.objects.get::<Gateway>(&subject.key).filter(|_| stored.refused.is_none());
    let other = gateway.and_then(|gateway| {
        other_revision_of_gateway(view.objects, view.settings, &subject.key, gateway)
    });
    if other.is_some() {
        let field = |it: &Complaint| format!("{}: {}", it.field, it.reason);
        let told: Vec<String> = view.complaints(subject).map(field).collect();
        let why = condition::joined(told.iter().map(String::as_str));
        let conditions = [Condition::fails(CARRIED_OUT, "OtherRevision", why)];
        let status = json!({ "conditions": condition::list(&conditions, generation) });
        return Some(Desired { status, owned: &[CARRIED_OUT] });
    }
    let Some(gateway) = gateway else {
        let why =
            stored.refused.as_ref().map_or_else(String::new, |it| described(view, subject, it));
        let conditions = [
            Condition::fails(ACCEPTED, "Invalid", why.clone()),
            Condition::fails(PROGRAMMED, "Invalid", why),
        ];
        let status = json!({ "conditions": condition::list(&conditions, generation) });
        return Some(Desired { status, owned });
    };
    let usable = view.translation.mesh.waypoints.iter().any(|it| it.key == subject.key);
    let listeners = gateway.spec.listeners.iter();
    let listeners: Value = listeners.map(|it| listener(stored, it, usable)).collect();
    let status = json!({
        "conditions": condition::list(&conditions(view, subject, gateway, usable), generation),
        "listeners": listeners,
        "addresses": addresses(view, &subject.key),
    });
    Some(Desired { status, owned })
}

fn described(
    view: &View<'_>,
    subject: &Subject,
    why: &crate::source::objects::FieldError,
) -> String {
    let complaint = view.complaints(subject).find(|it| it.severity == Severity::Error);
    let reason = complaint.map_or(why.reason.as_str(), |it| it.reason.as_str());
    if why.field.is_empty() { reason.to_owned() } else { format!("{}: {reason}", why.field) }
}

fn conditions(
    view: &View<'_>,
    subject: &Subject,
    gateway: &Gateway,
    usable: bool,
) -> [Condition; 2] {
    if usable {
        let good = gateway.spec.listeners.iter().filter(|it| it.is_hbone()).count();
        let accepted = if good == gateway.spec.listeners.len() {
            let message = with_warnings(view, subject, "this Gateway is a waypoint");
            Condition::holds(ACCEPTED, "Accepted", message)
        } else {
            let why =
                "this Gateway is a waypoint; some of its listeners are not served, see theirs";
            Condition::holds(ACCEPTED, "ListenersNotValid", with_warnings(view, subject, why))
        };
        let served = "served on the nodes of its clients and of what is bound to it; nothing is deployed for it";
        return [accepted, Condition::holds(PROGRAMMED, "Programmed", served)];
    }
    let errors: Vec<_> =
        view.complaints(subject).filter(|it| it.severity == Severity::Error).collect();
    let why = condition::joined(errors.iter().map(|it| it.reason.as_str()));
    let listeners = errors.iter().any(|it| it.field.starts_with("spec.listeners"));
    let reason = if listeners { "ListenersNotValid" } else { "Invalid" };
    [Condition::fails(ACCEPTED, reason, why.clone()), Condition::fails(PROGRAMMED, "Invalid", why)]
}

/// With the fields that have no effect; listeners say of themselves that they are not served.
fn with_warnings(view: &View<'_>, subject: &Subject, what: &str) -> String {
    let is_listener = |field: &str| field.starts_with("spec.listeners[") && field.ends_with(']');
    let warnings = view.complaints(subject);
    let warnings: Vec<String> = warnings
        .filter(|it| it.severity == Severity::Warning && !is_listener(&it.field))
        .map(|it| format!("{}: {}", it.field, it.reason))
        .collect();
    match warnings.as_slice() {
        [] => what.to_owned(),
        all => format!("{what}; {}", condition::joined(all.iter().map(String::as_str))),
    }
}

/// No route attaches to a waypoint: in a mesh, routes have Services as parents (GEP-1294).
fn listener(stored: &Stored, listener: &Listener, usable: bool) -> Value {
    let generation = stored.generation();
    let accepted = if listener.protocol != Listener::HBONE {
        let why = format!("a waypoint has listeners of the protocol {} only", Listener::HBONE);
        Condition::fails(ACCEPTED, "UnsupportedProtocol", why)
    } else if listener.port != ports::HBONE {
        let why = format!("a waypoint listens on port {} only", ports::HBONE);
        Condition::fails(ACCEPTED, "PortUnavailable", why)
    } else {
        Condition::holds(ACCEPTED, "Accepted", "")
    };
    let programmed = match accepted.holds && usable {
        true => Condition::holds(PROGRAMMED, "Programmed", ""),
        false => {
            Condition::fails(PROGRAMMED, "Invalid", "the listener or its Gateway is not accepted")
        }
    };
    let kinds = kinds(stored, &listener.name);
    let resolved = if kinds.is_some_and(|kinds| !kinds.is_empty()) {
        let why =
            "allowedRoutes.kinds: no route attaches to a waypoint; routes have Services as parents";
        Condition::fails(RESOLVED_REFS, "InvalidRouteKinds", why)
    } else {
        Condition::holds(RESOLVED_REFS, "ResolvedRefs", "")
    };
    let conflicted = Condition::fails(CONFLICTED, "NoConflicts", "");
    json!({
        "name": listener.name,
        "supportedKinds": [],
        "attachedRoutes": 0,
        "conditions": condition::list(&[accepted, programmed, resolved, conflicted], generation),
    })
}

fn kinds<'a>(stored: &'a Stored, listener: &str) -> Option<&'a Vec<Value>> {
    let listeners = stored.spec("listeners")?.as_array()?;
    let own = listeners.iter().find(|it| it.get("name").and_then(Value::as_str) == Some(listener));
    own?.get("allowedRoutes")?.get("kinds")?.as_array()
}

/// A waypoint has no address. If a Service with the Gateway's name serves HBONE, as Istio creates one, readers that
/// require an address get that.
fn addresses(view: &View<'_>, key: &ObjectKey) -> Value {
    let service = view.objects.get::<Service>(key).and_then(|it| it.spec.as_ref());
    let listening = service.is_some_and(|spec| {
        spec.ports.iter().flatten().any(|port| port.port == i32::from(ports::HBONE))
    });
    if !listening {
        return json!([]);
    }
    let domain = &view.settings.cluster_domain;
    let host = format!("{}.{}.svc.{domain}", key.name, key.namespace);
    json!([{ "type": "Hostname", "value": host }])
}
