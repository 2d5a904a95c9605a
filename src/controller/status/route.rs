//! HTTPRoutes and GRPCRoutes, and unsupported kinds of routes: one entry for each parent that is ours (Gateway API,
//! RouteParentStatus; GEP-1294).
//!
//! A parent that does not exist gets no entry: its owner would be unknown. A parent that cannot exist, because its
//! group is missing, gets one.

use serde_json::{Map, Value, json};

use super::class::Class;
use super::condition::{self, Condition};
use super::{CONTROLLER_NAME, Desired, Stored, Subject, View};
use crate::base::ObjectKey;
use crate::source::objects::{
    GATEWAY_GROUP, Gateway, ISTIO_NETWORKING_GROUP, Kind, Service, ServiceEntry,
};
use crate::source::{
    self, Complaint, ConditionReason, ConditionType, Severity, WAYPOINT_CLASS,
    other_revision_of_gateway,
};

const ACCEPTED: &str = "Accepted";
const RESOLVED_REFS: &str = "ResolvedRefs";
const PARTIALLY_INVALID: &str = "PartiallyInvalid";
/// The fields that identify a parent, in the API's order.
const FIELDS: [&str; 6] = ["group", "kind", "namespace", "name", "sectionName", "port"];

/// The object to which a parentRef refers.
enum Parent {
    /// A Service, or a ServiceEntry.
    Frontend,
    Waypoint,
    /// Another controller's, or without one.
    Other,
}

pub(super) fn status(
    view: &View<'_>,
    class: &Class,
    subject: &Subject,
    stored: &Stored,
) -> Desired {
    let refs = stored.spec("parentRefs").and_then(Value::as_array);
    let complaints: Vec<&Complaint> = view.complaints(subject).collect();
    let mut parents: Vec<Value> = Vec::new();
    let unserved = subject.kind.kind().and_then(Kind::instead);
    let unserved = unserved.map(|what| Condition::fails(ACCEPTED, "UnsupportedValue", what));
    for (index, parent) in refs.into_iter().flatten().enumerate() {
        let conditions = match parent_of(view, class, &subject.key, parent) {
            // No other controller will report that it cannot exist.
            Parent::Other if is_impossible(&complaints, index) => {
                conditions(stored, &complaints, index)
            }
            Parent::Other => continue,
            Parent::Frontend if unserved.is_some() => unserved.iter().cloned().collect(),
            Parent::Frontend if is_gone(&complaints, index) => continue,
            Parent::Frontend => conditions(stored, &complaints, index),
            Parent::Waypoint => vec![Condition::fails(
                ACCEPTED,
                "NotAllowedByListeners",
                "no route attaches to a waypoint: name the Service that the route is for as the parent (group \"\", \
                 kind Service)",
            )],
        };
        parents.push(json!({
            "parentRef": reference(parent),
            "controllerName": CONTROLLER_NAME,
            "conditions": condition::list(&conditions, stored.generation()),
        }));
    }
    Desired { status: json!({ "parents": parents }), owned: &[] }
}

fn parent_of(view: &View<'_>, class: &Class, route: &ObjectKey, parent: &Value) -> Parent {
    let text = |field: &str| parent.get(field).and_then(Value::as_str);
    let namespace = text("namespace").unwrap_or(&route.namespace);
    let key = ObjectKey::new(namespace, text("name").unwrap_or_default());
    let exists = match (text("group").unwrap_or(GATEWAY_GROUP), text("kind").unwrap_or("Gateway")) {
        ("" | "core", "Service") => view.objects.get::<Service>(&key).is_some(),
        (ISTIO_NETWORKING_GROUP, "ServiceEntry") => {
            view.objects.get::<ServiceEntry>(&key).is_some()
        }
        (GATEWAY_GROUP, "Gateway") if *class == Class::Ours => {
            let is_ours = |it: &Gateway| {
                it.spec.gateway_class_name == WAYPOINT_CLASS
                    && other_revision_of_gateway(view.objects, view.settings, &key, it).is_none()
            };
            return match view.objects.get::<Gateway>(&key).is_some_and(is_ours) {
                true => Parent::Waypoint,
                false => Parent::Other,
            };
        }
        _ => false,
    };
    if exists { Parent::Frontend } else { Parent::Other }
}

fn is_gone(complaints: &[&Complaint], index: usize) -> bool {
    let gone = |it: source::Condition| {
        it.parent == Some(index) && it.reason == ConditionReason::ParentNotFound
    };
    complaints.iter().filter_map(|it| it.condition).any(gone)
}

/// The parent's group has no kind of this name.
fn is_impossible(complaints: &[&Complaint], index: usize) -> bool {
    let impossible = |it: source::Condition| {
        it.parent == Some(index)
            && (it.kind, it.reason) == (ConditionType::Accepted, ConditionReason::InvalidKind)
    };
    complaints.iter().filter_map(|it| it.condition).any(impossible)
}

fn conditions(stored: &Stored, complaints: &[&Complaint], index: usize) -> Vec<Condition> {
    if let Some(error) = &stored.refused
        && complaints.iter().all(|it| it.condition.is_none())
    {
        let told = complaints.iter().find(|it| it.field == error.field);
        let reason = told.map_or(error.reason.as_str(), |it| it.reason.as_str());
        let message = with_field(&error.field, reason);
        return vec![Condition::fails(ACCEPTED, "UnsupportedValue", message)];
    }
    let find = |kind| of_type(kind, complaints, index, stored.refused.is_some());
    let accepted = || Condition::holds(ACCEPTED, "Accepted", in_force(complaints, index));
    let resolved = || Condition::holds(RESOLVED_REFS, "ResolvedRefs", "all backends can be used");
    let mut conditions = vec![find(ConditionType::Accepted).unwrap_or_else(accepted)];
    if conditions[0].holds || stored.refused.is_none() {
        conditions.push(find(ConditionType::ResolvedRefs).unwrap_or_else(resolved));
    }
    conditions.extend(find(ConditionType::PartiallyInvalid));
    conditions
}

/// With the parts that have no effect there.
fn in_force(complaints: &[&Complaint], index: usize) -> String {
    let place = format!("spec.parentRefs[{index}]");
    let here = |it: &&&Complaint| {
        let of_other_parent = it.field.starts_with("spec.parentRefs[") && it.field != place;
        it.condition.is_none() && it.severity == Severity::Warning && !of_other_parent
    };
    let warnings: Vec<String> =
        complaints.iter().filter(here).map(|it| with_field(&it.field, &it.reason)).collect();
    let warnings = condition::joined(warnings.iter().map(String::as_str));
    let does = "the route is in force";
    if warnings.is_empty() { does.to_owned() } else { format!("{does}; {warnings}") }
}

/// All complaints about one condition of a parent. The first gives the reason.
fn of_type(
    kind: ConditionType,
    complaints: &[&Complaint],
    index: usize,
    refused: bool,
) -> Option<Condition> {
    let mine: Vec<(&Complaint, ConditionReason)> = complaints
        .iter()
        .filter_map(|it| Some((*it, it.condition?)))
        .filter(|(_, of)| of.kind == kind && of.parent.is_none_or(|parent| parent == index))
        .map(|(complaint, of)| (complaint, of.reason))
        .collect();
    let (_, reason) = *mine.first()?;
    let messages: Vec<String> =
        mine.iter().map(|(complaint, _)| with_field(&complaint.field, &complaint.reason)).collect();
    let message = condition::joined(messages.iter().map(String::as_str));
    Some(match kind {
        ConditionType::Accepted => Condition::fails(ACCEPTED, reason.name(), message),
        ConditionType::ResolvedRefs => Condition::fails(RESOLVED_REFS, reason.name(), message),
        // The API requires how the message begins: with the outcome of the rules.
        ConditionType::PartiallyInvalid => {
            let became = if refused { "Fall Back" } else { "Dropped Rule" };
            Condition::holds(PARTIALLY_INVALID, reason.name(), format!("{became}: {message}"))
        }
        // Policies have it.
        ConditionType::Programmed => return None,
    })
}

fn with_field(field: &str, reason: &str) -> String {
    if field.is_empty() { reason.to_owned() } else { format!("{field}: {reason}") }
}

/// The parentRef as in the route, without fields that the status does not have.
fn reference(parent: &Value) -> Value {
    let known = FIELDS.iter().filter_map(|field| Some(((*field).to_owned(), parent.get(field)?)));
    let mut known: Map<String, Value> = known.map(|(name, value)| (name, value.clone())).collect();
    known.retain(|_, value| !value.is_null());
    Value::Object(known)
}
