//! The GatewayClass `istio-waypoint`: created if it is missing, left alone if another controller owns it.

use serde_json::{Value, json};

use super::condition::{self, Condition};
use super::{
    CONTROLLER_NAME, Desired, Desires, Stored, Subject, SubjectKind, Taken, View, features,
};
use crate::base::ObjectKey;
use crate::source::WAYPOINT_CLASS;
use crate::source::objects::Kind;

const ACCEPTED: &str = "Accepted";

/// The owner of the waypoint class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Ours, or without an owner yet.
    Ours,
    /// Another controller's, and so are the statuses of its Gateways.
    Taken,
}

/// The desired statuses of classes, and the owner of the waypoint class.
pub(super) fn desire(view: &View<'_>, desires: &mut Desires) -> Class {
    let waypoint =
        Subject::new(SubjectKind::Of(Kind::GatewayClass), ObjectKey::new("", WAYPOINT_CLASS));
    for (subject, stored) in view.stored {
        if subject.kind == SubjectKind::Of(Kind::GatewayClass) && is_ours(stored) {
            desires.statuses.insert(subject.clone(), status(subject == &waypoint, stored));
        }
    }
    match view.stored.get(&waypoint) {
        Some(stored) if is_ours(stored) => Class::Ours,
        Some(stored) => {
            let owner = controller_name(stored);
            let message = format!(
                "this class belongs to {owner:?}: Isthmus serves its Gateways as waypoints, but writes no statuses of \
                 it and of them; if that controller is gone, delete the class, and Isthmus makes it anew"
            );
            let reason = "ClassOwnedByAnother";
            desires.taken.push(Taken { subject: waypoint, reason, message });
            Class::Taken
        }
        None => {
            if view.served.contains(&SubjectKind::Of(Kind::GatewayClass)) {
                desires.missing.push((
                    waypoint,
                    json!({
                        "apiVersion": "gateway.networking.k8s.io/v1",
                        "kind": "GatewayClass",
                        "metadata": { "name": WAYPOINT_CLASS },
                        "spec": {
                            "controllerName": CONTROLLER_NAME,
                            "description": "Waypoints, served by Isthmus on every node",
                        },
                    }),
                ));
            }
            Class::Ours
        }
    }
}

fn is_ours(stored: &Stored) -> bool {
    controller_name(stored) == CONTROLLER_NAME
}

fn controller_name(stored: &Stored) -> &str {
    stored.spec("controllerName").and_then(Value::as_str).unwrap_or_default()
}

fn status(is_waypoint: bool, stored: &Stored) -> Desired {
    let accepted = if !is_waypoint {
        let why = format!("Isthmus serves the class {WAYPOINT_CLASS:?} only");
        Condition::fails(ACCEPTED, "Unsupported", why)
    } else if stored.spec("parametersRef").is_some_and(|it| !it.is_null()) {
        let why = "spec.parametersRef: Isthmus takes no parameters of a class; its settings are \
                   those of its agents";
        Condition::fails(ACCEPTED, "InvalidParameters", why)
    } else {
        Condition::holds(ACCEPTED, "Accepted", "Gateways of this class are waypoints of Isthmus")
    };
    let mut status = json!({ "conditions": condition::list(&[accepted], stored.generation()) });
    if is_waypoint {
        status["supportedFeatures"] = features::list();
    }
    Desired { status, owned: &[ACCEPTED] }
}
