//! A ValidatingAdmissionPolicy that turns objects with unknown fields away. Definitions alone cannot do both: without
//! pruning, the API server does not look for unknown fields.

use serde_json::{Value, json};

use super::Definition;
use super::shape::Shape;

/// Of the policy and of its binding.
const NAME: &str = "unknown-fields.isthmus.io";

/// The policy and its binding.
pub fn manifests(definitions: &[Definition]) -> [Value; 2] {
    let mut rules: Vec<Value> = Vec::new();
    let mut validations: Vec<Value> = Vec::new();
    for definition in definitions {
        rules.push(json!({
            "apiGroups": [definition.kind.group()],
            "apiVersions": ["*"],
            "resources": [definition.kind.plural()],
            "operations": ["CREATE", "UPDATE"],
        }));
        let kind = definition.kind.name();
        let mut levels = Vec::new();
        collect(&definition.spec, "object.spec", "spec", &[], &mut levels);
        for level in levels {
            let message = format!(
                "{kind}: {} has a field that is not known; known are {}",
                level.path, level.fields
            );
            let expression = format!("object.kind != '{kind}' || {}", level.expression);
            validations.push(json!({ "expression": expression, "message": message }));
        }
    }
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": NAME, "labels": { "app.kubernetes.io/part-of": "isthmus" } },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": rules },
            "validations": validations,
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": NAME, "labels": { "app.kubernetes.io/part-of": "isthmus" } },
        "spec": { "policyName": NAME, "validationActions": ["Deny"] },
    });
    [policy, binding]
}

/// One level of a spec: all objects at one path.
struct Level {
    path: String,
    /// Holds where every one has known fields only (CEL).
    expression: String,
    fields: String,
}

/// `place` is how CEL reaches the value, `around` what leads there: each is a text with `{}` for what comes after.
fn collect(shape: &Shape, place: &str, path: &str, around: &[String], levels: &mut Vec<Level>) {
    match shape {
        Shape::Object(fields) => {
            let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
            let key = format!("k{}", around.len());
            let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
            let inner = format!("{place}.all({key}, {key} in [{}])", quoted.join(", "));
            let expression = around.iter().rev().fold(inner, |inner, it| it.replace("{}", &inner));
            let fields_text = names.join(", ");
            levels.push(Level { path: path.to_owned(), expression, fields: fields_text });
            for field in fields {
                let below = format!("{place}.{}", field.name);
                let mut around = around.to_vec();
                around.push(format!("(!has({below}) || {{}})"));
                let path = format!("{path}.{}", field.name);
                collect(&field.shape, &below, &path, &around, levels);
            }
        }
        Shape::List(items) => {
            let item = format!("v{}", around.len());
            let mut around = around.to_vec();
            around.push(format!("{place}.all({item}, {{}})"));
            collect(items, &item, &format!("{path}[]"), &around, levels);
        }
        Shape::Map(values) => {
            let key = format!("v{}", around.len());
            let mut around = around.to_vec();
            around.push(format!("{place}.all({key}, {{}})"));
            collect(values, &format!("{place}[{key}]"), &format!("{path}[]"), &around, levels);
        }
        Shape::Choice(_)
        | Shape::Text
        | Shape::Flag
        | Shape::Unsigned(_)
        | Shape::Number
        | Shape::IntOrString
        | Shape::Any => {}
    }
}
