//! Kinds of Gateway API and Istio that are not carried out: each object says so, so that nobody takes what it says for what
//! happens.

use super::{Context, is_of_other_revision};
use crate::base::ObjectKey;
use crate::source::objects::{CarriedOut, Kind};
use crate::source::{Complaint, Severity, Topic};

/// Objects of one kind that are named one by one; of the others only their number is told.
const NAMED: usize = 20;

/// Complains of all of them.
pub(super) fn complain(cx: &mut Context<'_>) {
    for kind in Kind::all() {
        if let CarriedOut::No { instead, denies } = kind.row().carried_out {
            // Others may reject traffic, and say so of the field that it is for.
            let severity = if denies { Severity::Error } else { Severity::Warning };
            complain_of(cx, kind, severity, instead);
        }
    }
}

fn complain_of(cx: &mut Context<'_>, kind: Kind, severity: Severity, instead: &str) {
    let objects = cx.objects.of_kind(kind);
    let ours = objects.filter(|(_, it)| !is_of_other_revision(cx.settings, *it));
    let keys: Vec<ObjectKey> = ours.map(|(key, _)| key.clone()).collect();
    for key in keys.iter().take(NAMED) {
        cx.complain(severity, kind, key, String::new(), instead.to_owned());
        cx.about(Topic::NotCarriedOut);
    }
    let others = keys.len().saturating_sub(NAMED);
    if others > 0 {
        cx.complaints.push(Complaint {
            origin: None,
            kind: kind.name().into(),
            object: None,
            field: String::new(),
            severity,
            reason: format!("{others} more objects: {instead}"),
            condition: None,
            topic: Some(Topic::NotCarriedOut),
        });
    }
}
