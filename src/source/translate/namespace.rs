//! Labels of Namespaces, which apply to all workloads and services in them.

use super::waypoint::label_field;
use super::{Context, labels};
use crate::base::{ObjectKey, nearest};
use crate::source::objects::{Kind, Namespace, Typed, label};

/// `ambient` enrols a namespace or pod, `none` keeps a pod out.
pub(super) const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";

/// Complains of labels without a meaning.
pub(super) fn check_all(cx: &mut Context<'_>) {
    let objects = cx.objects;
    for (key, namespace) in objects.all::<Namespace>() {
        if let Some(mode) = label(&namespace.metadata, DATAPLANE_MODE) {
            check_mode::<Namespace>(cx, key, mode);
        }
        labels::check(cx, Kind::Namespace, key, &namespace.metadata);
    }
}

/// Complains of a value of the label [`DATAPLANE_MODE`] without an effect.
pub(super) fn check_mode<T: Typed>(cx: &mut Context<'_>, key: &ObjectKey, mode: &str) {
    if !matches!(mode, "ambient" | "none") {
        let mut reason = format!("{mode:?} is neither \"ambient\" nor \"none\", and has no effect");
        if let Some(meant) = nearest(&mode.trim().to_lowercase(), ["ambient", "none"].into_iter()) {
            reason += &format!("; is {meant:?} meant?");
        }
        cx.warn::<T>(key, label_field(DATAPLANE_MODE), reason);
    }
}
