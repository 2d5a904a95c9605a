//! Unsupported objects, or ones whose only effect is to reject traffic: each reports that, and the consequence.
//!
//! The condition's type is Isthmus's own, so that a control plane that does support such objects, for its sidecars or
//! gateways in the same cluster, keeps its own conditions.

use serde_json::{Value, json};

use super::condition::{self, Condition};
use super::{CONTROLLER_NAME, Desired, Stored, Subject, SubjectKind, View};
use crate::source::{Complaint, what_follows};

const CARRIED_OUT: &str = "isthmus.io/CarriedOut";
const ACCEPTED: &str = "Accepted";
/// The fields that identify a target of a policy, in the API's order.
const FIELDS: [&str; 4] = ["group", "kind", "name", "sectionName"];

/// For Istio's kinds.
pub(super) fn status(view: &View<'_>, subject: &Subject, stored: &Stored) -> Desired {
    let condition = Condition::fails(CARRIED_OUT, "NotSupported", told(view, subject, stored));
    let status = json!({ "conditions": condition::list(&[condition], stored.generation()) });
    Desired { status, owned: &[CARRIED_OUT] }
}

/// For a BackendTLSPolicy, which has an entry for each target (Gateway API, PolicyAncestorStatus).
pub(super) fn ancestors(view: &View<'_>, subject: &Subject, stored: &Stored) -> Desired {
    let condition = Condition::fails(ACCEPTED, "Invalid", told(view, subject, stored));
    of_targets(subject, stored, |_| vec![condition.clone()])
}

/// One entry for each target of a policy, by its index.
pub(super) fn of_targets(
    subject: &Subject,
    stored: &Stored,
    conditions: impl Fn(usize) -> Vec<Condition>,
) -> Desired {
    let targets = stored.spec("targetRefs").and_then(Value::as_array);
    let mut ancestors: Vec<Value> = Vec::new();
    for (index, target) in targets.into_iter().flatten().enumerate() {
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
    if subject.kind != SubjectKind::RequestAuthentication {
        messages.extend(subject.kind.kind().map(|kind| what_follows(kind).to_owned()));
    }
    condition::joined(messages.iter().map(String::as_str))
}
