//! XMesh (GEP-3949): an object that lists the features of this mesh, created if there is none.

use serde_json::{Value, json};

use super::condition::{self, Condition};
use super::{
    CONTROLLER_NAME, Desired, Desires, Stored, Subject, SubjectKind, Taken, View, features,
};
use crate::base::ObjectKey;

const ACCEPTED: &str = "Accepted";
/// The name of the one that Isthmus creates.
const NAME: &str = "isthmus";

pub(super) fn desire(view: &View<'_>, desires: &mut Desires) {
    if !view.served.contains(&SubjectKind::XMesh) {
        return;
    }
    let mut any = false;
    for (subject, stored) in view.stored {
        if subject.kind == SubjectKind::XMesh && controller_name(stored) == CONTROLLER_NAME {
            any = true;
            desires.statuses.insert(subject.clone(), status(stored));
        }
    }
    let default = Subject::new(SubjectKind::XMesh, ObjectKey::new("", NAME));
    match view.stored.get(&default) {
        _ if any => {}
        Some(other) => {
            let owner = controller_name(other);
            let message = format!(
                "this mesh belongs to {owner:?}, so Isthmus has none to say in what it supports; rename it, and \
                 Isthmus makes its own"
            );
            let reason = "MeshOwnedByAnother";
            desires.taken.push(Taken { subject: default, reason, message });
        }
        None => desires.missing.push((
            default,
            json!({
                "apiVersion": "gateway.networking.x-k8s.io/v1alpha1",
                "kind": "XMesh",
                "metadata": { "name": NAME },
                "spec": { "controllerName": CONTROLLER_NAME },
            }),
        )),
    }
}

fn controller_name(stored: &Stored) -> &str {
    stored.spec("controllerName").and_then(Value::as_str).unwrap_or_default()
}

fn status(stored: &Stored) -> Desired {
    let accepted = match stored.spec("parametersRef").filter(|it| !it.is_null()) {
        Some(_) => {
            let why = "spec.parametersRef: Isthmus takes no parameters of a mesh; its settings \
                       are those of its agents";
            Condition::fails(ACCEPTED, "InvalidParameters", why)
        }
        None => Condition::holds(ACCEPTED, "Accepted", "this is the mesh of Isthmus"),
    };
    let status = json!({
        "conditions": condition::list(&[accepted], stored.generation()),
        "supportedFeatures": features::list(),
    });
    Desired { status, owned: &[ACCEPTED] }
}
