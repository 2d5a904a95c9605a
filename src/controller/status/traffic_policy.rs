//! TrafficPolicies: one entry for each target (Gateway API, PolicyAncestorStatus; GEP-713), with `Accepted`, and for an
//! accepted one with `Programmed`: whether the policy takes effect there.

use super::condition::{self, Condition};
use super::{Desired, Stored, Subject, View, unserved};
use crate::source::{Complaint, ConditionType};

const ACCEPTED: &str = "Accepted";
const PROGRAMMED: &str = "Programmed";

pub(super) fn status(view: &View<'_>, subject: &Subject, stored: &Stored) -> Desired {
    let complaints: Vec<&Complaint> = view.complaints(subject).collect();
    unserved::of_targets(subject, stored, |index| of_target(&complaints, stored, index))
}

fn of_target(complaints: &[&Complaint], stored: &Stored, index: usize) -> Vec<Condition> {
    if let Some(error) = &stored.refused {
        let told = complaints.iter().find(|it| it.field == error.field);
        let reason = told.map_or(error.reason.as_str(), |it| it.reason.as_str());
        return vec![Condition::fails(ACCEPTED, "Invalid", with_field(&error.field, reason))];
    }
    let found = |kind| of_type(kind, complaints, index);
    if let Some((reason, _, message)) = found(ConditionType::Accepted) {
        return vec![Condition::fails(ACCEPTED, reason, message)];
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
    vec![Condition::holds(ACCEPTED, "Accepted", message), programmed]
}

/// Reason, status and message of a condition of the target, where something is complained of.
fn of_type(
    kind: ConditionType,
    complaints: &[&Complaint],
    index: usize,
) -> Option<(&'static str, bool, String)> {
    let here = complaints.iter().filter_map(|it| Some((it, it.condition?)));
    let here: Vec<_> = here.filter(|(_, of)| of.kind == kind && of.parent == Some(index)).collect();
    let (_, first) = here.first()?;
    let message = condition::joined(here.iter().map(|(it, _)| it.reason.as_str()));
    Some((first.reason.name(), first.status(), message))
}

fn with_field(field: &str, reason: &str) -> String {
    if field.is_empty() { reason.to_owned() } else { format!("{field}: {reason}") }
}
