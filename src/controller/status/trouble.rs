//! The problems that deserve an Event: errors that reject, deny or omit something, and warnings of objects whose status does not
//! tell them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Desires, Subject, SubjectKind, View};
use crate::base::ObjectKey;
use crate::controller::events::{Regarding, Trouble};
use crate::source::objects::{Kind, Status};
use crate::source::{Complaint, LAYER4_ALONE, Severity};

/// The object is invalid, and not in force as written.
const REFUSED: &str = "Refused";
/// The object's kind is not supported, except for the traffic that it rejects.
const NOT_SUPPORTED: &str = "NotSupported";
/// A waypoint does not exist, and its traffic continues at layer 4: nothing is rejected, but nobody may assume that it
/// is guarded.
const MISSING: &str = "WaypointMissing";
/// For complaints that no condition covers.
const INVALID: &str = "Invalid";
/// The object is in force, and a part of it has another effect than it seems to, or none.
const MISCONFIGURED: &str = "Misconfigured";

/// All current problems, each once: errors in several fields of an object are one.
pub(super) fn troubles(view: &View<'_>, desires: &Desires) -> Vec<Trouble> {
    let mut found: BTreeMap<(Subject, &str), Vec<String>> = BTreeMap::new();
    for complaint in &view.translation.complaints {
        let Some(subject) = subject(complaint) else { continue };
        let is_told = complaint.severity == Severity::Error
            || is_of_missing_waypoint(complaint)
            || complaint.severity == Severity::Warning && is_event(subject.kind, &complaint.field);
        if !is_told {
            continue;
        }
        let refused = view.stored.get(&subject).is_some_and(|stored| stored.refused.is_some());
        let reason = if refused { REFUSED } else { reason(complaint) };
        let notes = found.entry((subject, reason)).or_default();
        notes.push(match complaint.field.is_empty() {
            true => complaint.reason.clone(),
            false => format!("{}: {}", complaint.field, complaint.reason),
        });
    }
    for taken in &desires.taken {
        let notes = found.entry((taken.subject.clone(), taken.reason)).or_default();
        notes.push(taken.message.clone());
    }
    let trouble = |((subject, reason), notes): ((Subject, &str), Vec<String>)| {
        let regarding = regarding(view, subject)?;
        Some(Trouble { regarding, reason: reason.to_owned(), note: notes.join("; ") })
    };
    found.into_iter().filter_map(trouble).collect()
}

fn subject(complaint: &Complaint) -> Option<Subject> {
    let kind = SubjectKind::read().find(|kind| kind.name() == complaint.kind)?;
    let key: &ObjectKey = complaint.object.as_ref()?;
    Some(Subject::new(kind, key.clone()))
}

fn reason(complaint: &Complaint) -> &'static str {
    match complaint.condition {
        Some(condition) => condition.reason.name(),
        None if is_of_missing_waypoint(complaint) => MISSING,
        None if complaint.severity == Severity::Warning => MISCONFIGURED,
        None if is_unserved(&complaint.kind) => NOT_SUPPORTED,
        None if complaint.field.contains("istio.io/use-waypoint") => "WaypointUnusable",
        None => INVALID,
    }
}

fn is_of_missing_waypoint(complaint: &Complaint) -> bool {
    complaint.field.contains("istio.io/use-waypoint") && complaint.reason.contains(LAYER4_ALONE)
}

/// Whether an Event tells the warning: no condition of such objects lists any, as they have none, or one about their waypoint.
/// The controller reads neither pods nor EndpointSlices, so that it does not repeat what is said of endpoints.
fn is_event(kind: SubjectKind, field: &str) -> bool {
    match kind.kind() {
        Some(Kind::ServiceEntry | Kind::ConfigMap) => true,
        Some(Kind::Namespace) => field.starts_with("metadata."),
        Some(Kind::Service) => field.starts_with("metadata.") || field == "spec.clusterIP",
        _ => false,
    }
}

fn is_unserved(kind: &str) -> bool {
    let kind = Kind::named(kind);
    kind.is_some_and(|kind| kind.is_unserved() || kind.row().status == Status::NotCarriedOut)
}

/// `None` if the object is gone: there is nobody to tell.
fn regarding(view: &View<'_>, subject: Subject) -> Option<Regarding> {
    let stored = view.stored.get(&subject)?;
    let api_version = stored.object.get("apiVersion").and_then(Value::as_str);
    Some(Regarding {
        api_version: api_version.unwrap_or_default().to_owned(),
        kind: subject.kind.name().to_owned(),
        key: subject.key,
        uid: stored.uid().to_owned(),
    })
}
