//! Unsupported objects, or ones whose only effect is to reject traffic: each reports that, and the consequence.
//!
//! The condition's type is Isthmus's own, so that a control plane that does support such objects, for its sidecars or
//! gateways in the same cluster, keeps its own conditions.

use serde_json::json;

use super::condition::{self, Condition};
use super::{Desired, Stored, Subject, View, ancestors};
use crate::source::Complaint;
use crate::source::objects::Kind;

pub(super) const CARRIED_OUT: &str = "isthmus.io/CarriedOut";
const ACCEPTED: &str = "Accepted";

/// For Istio's kinds.
pub(super) fn status(view: &View<'_>, subject: &Subject, stored: &Stored) -> Desired {
    let condition = Condition::fails(CARRIED_OUT, "NotSupported", told(view, subject, stored));
    let status = json!({ "conditions": condition::list(&[condition], stored.generation()) });
    Desired { status, owned: &[CARRIED_OUT] }
}

/// For a BackendTLSPolicy, which has an entry for each target (Gateway API, PolicyAncestorStatus).
pub(super) fn ancestors(view: &View<'_>, subject: &Subject, stored: &Stored) -> Desired {
    let condition = Condition::fails(ACCEPTED, "Invalid", told(view, subject, stored));
    ancestors::of_targets(subject, stored, |_| true, |_| vec![condition.clone()])
}

/// The object's complaints; objects beyond those that are named individually get the text for their kind.
fn told(view: &View<'_>, subject: &Subject, stored: &Stored) -> String {
    if let Some(error) = &stored.refused {
        return format!("{}: {}", error.field, error.reason);
    }
    let with_field = |it: &Complaint| match it.field.is_empty() {
        true => it.reason.clone(),
        false => format!("{}: {}", it.field, it.reason),
    };
    let mut messages: Vec<String> = view.complaints(subject).map(with_field).collect();
    messages.extend(subject.kind.kind().and_then(Kind::instead).map(str::to_owned));
    condition::joined(messages.iter().map(String::as_str))
}
