//! A value as the API server would have it once `kubectl` has sent it.
//!
//! Nulls: of a field that is not nullable, which none of those that are read here is, a null is as good as nothing
//! (Kubernetes, CustomResourceDefinitions, "Defaulting and Nullable"; Go has it so for the core's kinds). Where a map of texts
//! has one, it is the empty text. Null items of lists stay, and are errors.
//!
//! Truth: `kubectl` reads YAML 1.1, to which `yes` and `off` are booleans. A text such as a label's or a namespace's is taken as
//! it was meant; where a boolean is wanted, these words are one.

use serde_json::{Map, Value};

/// Where booleans are wanted, among what is read.
const BOOLEANS: [&str; 9] = [
    "allocateLoadBalancerNodePorts",
    "allowCredentials",
    "blockOwnerDeletion",
    "controller",
    "hostNetwork",
    "publishNotReadyAddresses",
    "ready",
    "serving",
    "terminating",
];
/// Maps whose keys are anybody's.
const TEXTS: [&str; 4] = ["labels", "annotations", "matchLabels", "selector"];

/// Changes what an object says to what it means.
pub(super) fn normalise(object: &mut Value) {
    // The two kinds of Go's maps of texts: those of every object, and the selector of a Service.
    for path in ["/metadata/labels", "/metadata/annotations"] {
        fill_nulls(object.pointer_mut(path));
    }
    let is = |field: &str, text: &str| object.get(field).and_then(Value::as_str) == Some(text);
    if is("apiVersion", "v1") && is("kind", "Service") {
        fill_nulls(object.pointer_mut("/spec/selector"));
    }
    prune(object);
    tell_truth(object);
}

fn fill_nulls(map: Option<&mut Value>) {
    let values = map.and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut);
    for value in values.filter(|value| value.is_null()) {
        *value = Value::String(String::new());
    }
}

/// The depth is bounded by that of a document.
fn prune(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(prune);
        }
        _ => {}
    }
}

fn tell_truth(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(tell_truth),
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut().filter(|(name, _)| !is_one_of(&TEXTS, name)) {
                let word = value.as_str().filter(|_| is_one_of(&BOOLEANS, name));
                match word.and_then(truth) {
                    Some(truth) => *value = truth.into(),
                    None => tell_truth(value),
                }
            }
        }
        _ => {}
    }
}

fn is_one_of(names: &[&str], name: &str) -> bool {
    names.contains(&name)
}

/// YAML 1.1 in the forms that Go's parser knows.
fn truth(word: &str) -> Option<bool> {
    match word {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nulls_are_absent_or_empty() {
        let mut route = json!({
            "metadata": {"name": "r", "creationTimestamp": null, "labels": {"a": null}, "annotations": null},
            "spec": {"hostnames": null, "rules": [{"matches": null, "timeouts": {"request": null}}, null]},
        });
        normalise(&mut route);
        let expected = json!({
            "metadata": {"name": "r", "labels": {"a": ""}},
            "spec": {"rules": [{"timeouts": {}}, null]},
        });
        assert_eq!(route, expected);
        let mut policy = json!({"spec": {"selector": {"matchLabels": {"app": null, "b": "c"}}}});
        normalise(&mut policy);
        assert_eq!(policy, json!({"spec": {"selector": {"matchLabels": {"b": "c"}}}}));
        let mut service =
            json!({"apiVersion": "v1", "kind": "Service", "spec": {"selector": {"app": null}}});
        normalise(&mut service);
        assert_eq!(service["spec"], json!({"selector": {"app": ""}}));
    }

    #[test]
    fn words_are_truth_only_where_that_is_wanted() {
        let mut pod = json!({"metadata": {"labels": {"ready": "yes"}}, "spec": {"hostNetwork": "yes", "hostname": "no"}});
        normalise(&mut pod);
        let spec = json!({"hostNetwork": true, "hostname": "no"});
        assert_eq!(pod, json!({"metadata": {"labels": {"ready": "yes"}}, "spec": spec}));
    }
}
