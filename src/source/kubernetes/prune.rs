//! What of an object is left before it is read: the parts that the mesh reads, so that changes of all else (statuses
//! that others write, heartbeats, bookkeeping of the API server) are no changes here.

use serde_json::{Map, Value};

use crate::source::objects::Kind;

/// Of `metadata`, for every kind.
const METADATA: [&str; 8] = [
    "annotations",
    "creationTimestamp",
    "deletionTimestamp",
    "generation",
    "labels",
    "name",
    "namespace",
    "uid",
];
/// A copy of the object as `kubectl apply` sent it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The domain whose annotations on pods mean something here. Our own say where a pod of a directory is (its node, its
/// network namespace): in a cluster the scheduler and the runtime know, and whoever may make pods must not be able to send
/// the agent into a namespace of the node's or of somebody else's.
const DOMAIN: &str = "istio.io/";

pub(super) fn prune(kind: Kind, value: &mut Value) {
    let Value::Object(fields) = value else { return };
    if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
        prune_metadata(kind, metadata);
    }
    match kind {
        Kind::Pod => prune_pod(fields),
        // Nothing but labels is read.
        Kind::Node | Kind::Namespace => fields.retain(|name, _| name == "metadata"),
        _ => _ = fields.swap_remove("status"),
    }
}

fn prune_metadata(kind: Kind, metadata: &mut Map<String, Value>) {
    let owners = match kind {
        Kind::Pod => metadata.swap_remove("ownerReferences"),
        _ => None,
    };
    metadata.retain(|name, _| METADATA.contains(&name.as_str()));
    if let Some(Value::Array(mut owners)) = owners {
        owners.retain(|owner| owner.get("controller") == Some(&Value::Bool(true)));
        metadata.insert("ownerReferences".into(), Value::Array(owners));
    }
    if matches!(kind, Kind::Node | Kind::EndpointSlice) {
        metadata.swap_remove("annotations");
    }
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.retain(|name, _| match kind {
            Kind::Pod => name.contains(DOMAIN),
            _ => name != LAST_APPLIED,
        });
    }
}

fn prune_pod(pod: &mut Map<String, Value>) {
    let Some(Value::Object(status)) = pod.get_mut("status") else { return };
    status.retain(|name, _| ["conditions", "phase", "podIP", "podIPs"].contains(&name.as_str()));
    if let Some(Value::Array(conditions)) = status.get_mut("conditions") {
        conditions
            .retain(|condition| condition.get("type").and_then(Value::as_str) == Some("Ready"));
        for condition in conditions {
            // Not when it was probed or changed last.
            if let Value::Object(condition) = condition {
                condition.retain(|name, _| name == "type" || name == "status");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_reads_is_no_change() {
        let pod = |probed: &str, image: &str, ready: &str| {
            json!({
                "metadata": {
                    "name": "p", "namespace": "a", "resourceVersion": probed, "managedFields": [probed],
                    "annotations": {"cni.example/status": probed, "ambient.istio.io/dns-capture": "true"},
                    "ownerReferences": [
                        {"kind": "X", "name": "other"},
                        {"kind": "ReplicaSet", "name": "rs", "controller": true},
                    ],
                },
                "status": {
                    "phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [{"image": image}],
                    "conditions": [
                        {"type": "Ready", "status": ready, "lastProbeTime": probed},
                        {"type": "PodScheduled", "status": "True"},
                    ],
                },
            })
        };
        let pruned = |mut value: Value| {
            prune(Kind::Pod, &mut value);
            value
        };
        let one = pruned(pod("1", "a", "True"));
        assert_eq!(one, pruned(pod("2", "b", "True")));
        assert_ne!(one, pruned(pod("1", "a", "False")));
        assert_eq!(one["metadata"]["annotations"], json!({"ambient.istio.io/dns-capture": "true"}));
        assert_eq!(one["metadata"]["ownerReferences"][0]["name"], "rs");
    }

    #[test]
    fn a_pod_does_not_say_where_it_is() {
        let mut pod = json!({"metadata": {"name": "p", "annotations": {
            "isthmus.io/network-namespace": "/proc/1/ns/net", "isthmus.io/node": "other",
        }}});
        prune(Kind::Pod, &mut pod);
        assert_eq!(pod["metadata"]["annotations"], json!({}));
    }

    #[test]
    fn statuses_go_and_specs_stay() {
        let mut route = json!({
            "metadata": {"name": "r", "annotations": {LAST_APPLIED: "{}", "mine": "kept"}},
            "spec": {"hostnames": []}, "status": {"parents": []}, "odd": 1,
        });
        prune(Kind::HTTPRoute, &mut route);
        let kept = json!({
            "metadata": {"name": "r", "annotations": {"mine": "kept"}}, "spec": {"hostnames": []}, "odd": 1,
        });
        assert_eq!(route, kept);
    }
}
