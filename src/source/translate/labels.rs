//! Labels and annotations of Istio that are read and not carried out, that stand where they mean nothing, or that nobody
//! knows: each is said aloud, once an object. The table says of every name what it means here.

mod table;

use super::Context;
use super::waypoint::{USE_WAYPOINT, USE_WAYPOINT_NAMESPACE, label_field};
use crate::base::{ObjectKey, nearest};
use crate::source::Severity;
use crate::source::objects::{Affects, CarriedOut, Kind, Labelled, Row, label};
use table::{Known, Meaning, Place, TABLE};

/// Domains whose names are all known: another one is a mistake.
const DOMAINS: [&str; 8] = [
    "istio.io",
    "ambient.istio.io",
    "networking.istio.io",
    "gateway.istio.io",
    "service.istio.io",
    "topology.istio.io",
    "gateway.networking.k8s.io",
    "isthmus.io",
];

/// Whether [`check_all`] looks at a kind. Of a cluster's many objects each is checked when it is translated; EndpointSlices, Nodes
/// and kinds that are not carried out are not checked.
pub(super) fn is_checked_as_a_whole(kind: Kind) -> bool {
    let Row { carried_out, affects, .. } = kind.row();
    match affects {
        Affects::Nothing
        | Affects::Frame
        | Affects::Gateway
        | Affects::ServiceEntry
        | Affects::WorkloadEntry => matches!(carried_out, CarriedOut::Yes),
        Affects::Namespace
        | Affects::Node
        | Affects::Pod
        | Affects::Service
        | Affects::EndpointSlice
        | Affects::Route
        | Affects::VirtualService => false,
    }
}

/// Complains of the labels and annotations of all objects of these kinds.
pub(super) fn check_all(cx: &mut Context<'_>) {
    let objects = cx.objects;
    for kind in Kind::all().filter(|kind| is_checked_as_a_whole(*kind)) {
        for (key, object) in objects.of_kind(kind) {
            check(cx, kind, key, object);
        }
    }
}

/// Complains of the labels and annotations of one object.
pub(super) fn check(cx: &mut Context<'_>, kind: Kind, key: &ObjectKey, of: &impl Labelled) {
    for (place, names) in [(Place::Label, of.labels()), (Place::Annotation, of.annotations())] {
        for (name, value) in names.into_iter().flatten() {
            if let Some((severity, reason)) = judge(kind, place, name, value) {
                cx.complain(severity, kind, key, place.field(name), reason);
            }
        }
    }
    let has = |name: &str| label(of, name).is_some();
    if has(USE_WAYPOINT_NAMESPACE) && !has(USE_WAYPOINT) {
        let reason = format!("has no effect without the label {USE_WAYPOINT} on the same object");
        let field = label_field(USE_WAYPOINT_NAMESPACE);
        cx.complain(Severity::Warning, kind, key, field, reason);
    }
}

impl Place {
    /// As the path of a field.
    fn field(self, name: &str) -> String {
        match self {
            Place::Label => label_field(name),
            Place::Annotation => format!("metadata.annotations[{name:?}]"),
        }
    }
}

/// What is wrong with a label or annotation; most are nobody's business here.
fn judge(kind: Kind, place: Place, name: &str, value: &str) -> Option<(Severity, String)> {
    let domain = name.split_once('/').map_or(name, |(domain, _)| domain);
    if !domain.ends_with("istio.io") && !DOMAINS.contains(&domain) && !name.starts_with("istio") {
        return None;
    }
    let warning = |reason: String| Some((Severity::Warning, reason));
    let mut rows = TABLE.iter().filter(|known| known.name == name).peekable();
    if rows.peek().is_none() {
        let unknown = DOMAINS.contains(&domain) && name.contains('/');
        return unknown.then(|| (Severity::Warning, unknown_name(name)));
    }
    let Some(known) = rows.clone().find(|known| known.place == place) else {
        let other = place.other();
        let is_silent = rows.all(|known| matches!(known.meaning, Meaning::Silent));
        let reason = format!("is {other}, and has no effect as {place}; write it as {other}");
        return if is_silent { None } else { warning(reason) };
    };
    match known.meaning {
        Meaning::Silent => None,
        _ if !known.on.contains(&kind) => warning(misplaced(known, kind)),
        Meaning::Any => None,
        Meaning::OneOf(values) if values.contains(&value) => None,
        Meaning::OneOf(values) => warning(unknown_value(value, values)),
        Meaning::Not { harmless, instead } => {
            let reason = || format!("is not carried out by Isthmus: {instead}");
            if harmless.contains(&value) { None } else { warning(reason()) }
        }
    }
}

fn unknown_name(name: &str) -> String {
    match nearest(name, TABLE.iter().map(|known| known.name)) {
        Some(meant) => format!("is not known, and has no effect; is {meant:?} meant?"),
        None => "is not known, and has no effect; check its spelling".to_owned(),
    }
}

fn unknown_value(value: &str, values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    let reason = format!("{value:?} is none of {}, and has no effect", quoted.join(", "));
    match nearest(&value.trim().to_lowercase(), values.iter().copied()) {
        Some(meant) => format!("{reason}; is {meant:?} meant?"),
        None => reason,
    }
}

fn misplaced(known: &Known, kind: Kind) -> String {
    let kinds: Vec<&str> = known.on.iter().map(|kind| kind.name()).collect();
    format!("has no effect on objects of kind {kind}, only of {}", kinds.join(", "))
}

#[cfg(test)]
mod tests;
