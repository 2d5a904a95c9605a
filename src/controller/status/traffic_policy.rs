//! TrafficPolicies: one entry for each target (Gateway API, PolicyAncestorStatus; GEP-713).

use super::condition::{self, Condition};
use super::{Desired, Stored, Subject, View, unserved};
use crate::source::Complaint;

const ACCEPTED: &str = "Accepted";

pub(super) fn status(view: &View<'_>, subject: &Subject, stored: &Stored) -> Desired {
    let complaints: Vec<&Complaint> = view.complaints(subject).collect();
    unserved::of_targets(subject, stored, |index| of_target(&complaints, stored, index))
}

fn of_target(complaints: &[&Complaint], stored: &Stored, index: usize) -> Condition {
    if let Some(error) = &stored.refused {
        let told = complaints.iter().find(|it| it.field == error.field);
        let reason = told.map_or(error.reason.as_str(), |it| it.reason.as_str());
        return Condition::fails(ACCEPTED, "Invalid", with_field(&error.field, reason));
    }
    let here = complaints.iter().filter_map(|it| Some((it, it.condition?)));
    let here: Vec<_> = here.filter(|(_, of)| of.parent == Some(index)).collect();
    if let Some((_, first)) = here.first() {
        let message = condition::joined(here.iter().map(|(it, _)| it.reason.as_str()));
        return Condition::fails(ACCEPTED, first.reason.name(), message);
    }
    let warnings: Vec<String> = complaints
        .iter()
        .filter(|it| it.condition.is_none())
        .map(|it| with_field(&it.field, &it.reason))
        .collect();
    let mut message = "the policy is in force".to_owned();
    if !warnings.is_empty() {
        message += "; ";
        message += &condition::joined(warnings.iter().map(String::as_str));
    }
    Condition::holds(ACCEPTED, "Accepted", message)
}

fn with_field(field: &str, reason: &str) -> String {
    if field.is_empty() { reason.to_owned() } else { format!("{field}: {reason}") }
}
