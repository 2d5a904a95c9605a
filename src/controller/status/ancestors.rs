//! Policies that are attached to targets: one entry for each target (Gateway API, PolicyAncestorStatus; GEP-713), from the
//! complaints of the translation: `Accepted`, and for an accepted one `Programmed`: whether the policy takes effect there.

use serde_json::{Value, json};

use super::condition::{self, Condition};
use super::{CONTROLLER_NAME, Desired, Stored, Subject, View};
use crate::base::ObjectKey;
use crate::source::objects::{Gateway, Kind};
use crate::source::{Complaint, Condition as Told, ConditionType, WAYPOINT_CLASS};

const ACCEPTED: &str = "Accepted";
const PROGRAMMED: &str = "Programmed";
const RESOLVED_REFS: &str = "ResolvedRefs";
/// The fields that identify a target of a policy, in the API's order.
const FIELDS: [&str; 4] = ["group", "kind", "name", "sectionName"];

pub(super) fn status(view: &View<'_>, subject: &Subject, stored: &Stored) -> Desired {
    let complaints: Vec<&Complaint> = view.complaints(subject).collect();
    let refers = subject.kind.kind() == Some(Kind::XTelemetryPolicy);
    let ours = |target: &Value| !refers || is_ours(view, subject, target);
    of_targets(subject, stored, ours, |index| {
        let mut conditions = of_target(&complaints, stored, index);
        if refers && conditions.iter().any(|it| it.kind == ACCEPTED && it.holds) {
            put_references(&mut conditions, &complaints);
        }
        conditions
    })
}

/// Whether the objects that the policy names exist (GEP-4768). Without them it has no effect.
fn put_references(conditions: &mut Vec<Condition>, complaints: &[&Complaint]) {
    let of_references =
        |it: &&&Complaint| it.condition.is_some_and(|of| of.kind == ConditionType::ResolvedRefs);
    let Some(complaint) = complaints.iter().find(of_references) else {
        let resolved = "all references are resolved";
        conditions.push(Condition::holds(RESOLVED_REFS, "ResolvedRefs", resolved));
        return;
    };
    let reason = complaint.condition.map_or("Invalid", |it| it.reason.name());
    let message = with_field(&complaint.field, &complaint.reason);
    conditions.retain(|it| it.kind != PROGRAMMED);
    conditions.push(Condition::fails(PROGRAMMED, reason, message.clone()));
    conditions.push(Condition::fails(RESOLVED_REFS, reason, message));
}

/// Policies that other controllers carry out too have entries of ours for our own Gateways only.
fn is_ours(view: &View<'_>, subject: &Subject, target: &Value) -> bool {
    let text = |field: &str| target.get(field).and_then(Value::as_str).unwrap_or_default();
    let key = ObjectKey::new(subject.key.namespace.clone(), text("name"));
    let gateway = view.objects.get::<Gateway>(&key);
    text("kind") == "Gateway"
        && gateway.is_some_and(|it| it.spec.gateway_class_name == WAYPOINT_CLASS)
}

/// One entry for each target of a policy that is ours to tell of, by its index.
pub(super) fn of_targets(
    subject: &Subject,
    stored: &Stored,
    ours: impl Fn(&Value) -> bool,
    conditions: impl Fn(usize) -> Vec<Condition>,
) -> Desired {
    let targets = stored.spec("targetRefs").and_then(Value::as_array);
    let mut ancestors: Vec<Value> = Vec::new();
    for (index, target) in targets.into_iter().flatten().enumerate() {
        if !ours(target) {
            continue;
        }
        let conditions = condition::list(&conditions(index), stored.generation());
        let fields = FIELDS.iter().filter_map(|field| {
            let value = target.get(field).filter(|value| !value.is_null())?;
            Some(((*field).to_owned(), value.clone()))
        });
        let mut reference: serde_json::Map<String, Value> = fields.collect();
        reference.insert("namespace".to_owned(), (&*subject.key.namespace).into());
        ancestors.push(json!({
            "ancestorRef": reference,
            "controllerName": CONTROLLER_NAME,
            "conditions": conditions,
        }));
    }
    Desired { status: json!({ "ancestors": ancestors }), owned: &[] }
}

fn of_target(complaints: &[&Complaint], stored: &Stored, index: usize) -> Vec<Condition> {
    if let Some(error) = &stored.refused {
        let told = complaints.iter().find(|it| it.field == error.field);
        let reason = told.map_or(error.reason.as_str(), |it| it.reason.as_str());
        return vec![Condition::fails(ACCEPTED, "Invalid", with_field(&error.field, reason))];
    }
    let found = |kind| of_type(kind, complaints, index);
    let resolved = found(ConditionType::ResolvedRefs)
        .map(|(reason, _, message)| Condition::fails(RESOLVED_REFS, reason, message));
    if let Some((reason, _, message)) = found(ConditionType::Accepted) {
        let accepted = Condition::fails(ACCEPTED, reason, message);
        return [accepted].into_iter().chain(resolved).collect();
    }
    let warnings: Vec<String> = complaints
        .iter()
        .filter(|it| it.condition.is_none())
        .map(|it| with_field(&it.field, &it.reason))
        .collect();
    let mut message = "the policy is valid".to_owned();
    if !warnings.is_empty() {
        message += "; ";
        message += &condition::joined(warnings.iter().map(String::as_str));
    }
    let programmed = match found(ConditionType::Programmed) {
        None => Condition::holds(PROGRAMMED, "Programmed", "the policy is in force"),
        Some((reason, true, message)) => Condition::holds(PROGRAMMED, reason, message),
        Some((reason, false, message)) => Condition::fails(PROGRAMMED, reason, message),
    };
    let resolved = resolved.or_else(|| {
        let has_references = stored.spec("validation").is_some();
        has_references.then(|| {
            Condition::holds(RESOLVED_REFS, "ResolvedRefs", "all references lead to certificates")
        })
    });
    let conditions = [Condition::holds(ACCEPTED, "Accepted", message), programmed];
    conditions.into_iter().chain(resolved).collect()
}

/// Reason, status and message of a condition of the target, where something is complained of.
fn of_type(
    kind: ConditionType,
    complaints: &[&Complaint],
    index: usize,
) -> Option<(&'static str, bool, String)> {
    let here = complaints.iter().filter_map(|it| Some((it, it.condition?)));
    let is_here = |of: &Told| of.parent.is_none_or(|parent| parent == index);
    let here: Vec<_> = here.filter(|(_, of)| of.kind == kind && is_here(of)).collect();
    let (_, first) = here.first()?;
    let message = condition::joined(here.iter().map(|(it, _)| it.reason.as_str()));
    Some((first.reason.name(), first.status(), message))
}

fn with_field(field: &str, reason: &str) -> String {
    if field.is_empty() { reason.to_owned() } else { format!("{field}: {reason}") }
}
