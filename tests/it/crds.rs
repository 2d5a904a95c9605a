//! `config/crds`: the definitions of Istio's kinds that we read, for clusters without Istio. They are made from our own
//! types: a field that the reader takes is in them, and none else. `UPDATE_DOCS=1 cargo test --test it crds` writes
//! them again.
//!
//! No level prunes fields that it does not know. Pruned, a misspelt field of a policy would be gone before anybody
//! could see it, and the policy would be a weaker one. Kept, an admission policy turns the object away, whatever the
//! client; and where that is missing, our reader refuses the object, which then denies, and says so in its status.

mod admission;
mod shape;

use std::fs;
use std::path::PathBuf;

use isthmus::source::objects::{self, CarriedOut, Kind, OfSpec, Status};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shape::{Shape, shape_of};

/// Set to anything, it makes this test write what it would compare.
const UPDATE: &str = "UPDATE_DOCS";

/// A kind of the table that `config/crds` defines.
struct Definition {
    kind: Kind,
    row: objects::Definition,
    spec: Shape,
}

fn definitions() -> Vec<Definition> {
    let defined = Kind::all().filter_map(|kind| {
        let (row, spec) = (kind.row().definition, kind.with_spec(ShapeOf));
        assert_eq!(
            row.is_some(),
            spec.is_some(),
            "{kind}: the row names the type of a spec that it defines"
        );
        Some(Definition { kind, row: row?, spec: spec? })
    });
    defined.collect()
}

struct ShapeOf;

impl OfSpec for ShapeOf {
    type Answer = Shape;

    fn of<S: DeserializeOwned>(self) -> Shape {
        shape_of::<S>()
    }
}

#[test]
fn definitions_say_what_the_reader_reads() {
    for definition in definitions() {
        let name = format!("{}.{}", definition.kind.plural(), definition.kind.group());
        is_current(&format!("{name}.yaml"), &[manifest(&name, &definition)]);
    }
}

/// A user without Istio could not apply the others.
#[test]
fn istio_s_kinds_that_are_carried_out_are_defined() {
    let without: Vec<_> = Kind::all()
        .filter(|kind| kind.group().ends_with("istio.io") && kind.row().definition.is_none())
        .filter(|kind| matches!(kind.row().carried_out, CarriedOut::Yes))
        .collect();
    assert!(without.is_empty(), "config/crds does not define {without:?}");
}

#[test]
fn the_admission_policy_knows_what_the_reader_reads() {
    is_current("unknown-fields.yaml", &admission::manifests(&definitions()));
}

/// Compares, or replaces, a file.
fn is_current(name: &str, objects: &[Value]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/crds").join(name);
    let mut text = "# Made from the types in src/source/objects by tests/it/crds.rs. Do not apply it where Istio has \
                    brought its own.\n"
        .to_owned();
    let documents = objects.iter().map(|it| serde_saphyr::to_string(it).expect("YAML"));
    text += &documents.collect::<Vec<_>>().join("---\n");
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &text).expect("the file can be written");
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == text,
        "{} is not current; run `{UPDATE}=1 cargo test --test it crds`",
        path.display()
    );
}

#[test]
fn no_level_of_a_spec_prunes() {
    for definition in definitions() {
        let mut levels = vec![schema(&definition.spec)];
        let mut objects = 0;
        while let Some(level) = levels.pop() {
            if level.get("properties").is_some() {
                objects += 1;
                assert_eq!(level["x-kubernetes-preserve-unknown-fields"], true, "{level}");
            }
            for (key, below) in level.as_object().into_iter().flatten() {
                match key.as_str() {
                    "properties" => {
                        levels.extend(below.as_object().expect("properties").values().cloned());
                    }
                    "items" | "additionalProperties" => levels.push(below.clone()),
                    _ => {}
                }
            }
        }
        assert!(objects > 0, "{}", definition.kind);
    }
}

fn manifest(name: &str, definition: &Definition) -> Value {
    let versions: Vec<Value> = definition
        .kind
        .versions()
        .iter()
        .enumerate()
        .map(|(index, version)| self::version(definition, version, index == 0))
        .collect();
    let group = definition.kind.group();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": name,
            "labels": { "app.kubernetes.io/part-of": "isthmus" },
            // Without the definition, all policies would be gone.
            "annotations": { "helm.sh/resource-policy": "keep" },
        },
        "spec": {
            "group": group,
            "names": {
                "kind": definition.kind.name(),
                "listKind": format!("{}List", definition.kind.name()),
                "plural": definition.kind.plural(),
                "singular": definition.kind.name().to_lowercase(),
                "shortNames": [definition.row.short],
                "categories": categories(group),
            },
            "scope": if definition.kind.is_namespaced() { "Namespaced" } else { "Cluster" },
            "versions": versions,
        },
    })
}

/// As Istio's own have them.
fn categories(group: &str) -> Vec<String> {
    let whole = group.replace('.', "-");
    match whole.ends_with("-istio-io") {
        true => vec!["istio-io".to_owned(), whole],
        false => vec![whole],
    }
}

fn version(definition: &Definition, version: &str, storage: bool) -> Value {
    let column = |(name, path, description): &(&str, &str, &str)| json!({ "name": name, "type": "string", "jsonPath": path, "description": description });
    let mut columns: Vec<Value> = definition.row.columns.iter().map(column).collect();
    columns.push(json!({
        "name": "Age",
        "type": "date",
        "jsonPath": ".metadata.creationTimestamp",
        "description": "When the object was made.",
    }));
    let mut spec = schema(&definition.spec);
    spec["description"] = definition.row.description.into();
    json!({
        "name": version,
        "served": true,
        "storage": storage,
        "subresources": { "status": {} },
        "additionalPrinterColumns": columns,
        "schema": { "openAPIV3Schema": {
            "type": "object",
            "required": ["spec"],
            "properties": { "spec": spec, "status": status(definition.kind) },
        } },
    })
}

/// Istio's own: the list of conditions has one owner. Of ours as of Gateway API: a list of ancestors.
fn status(kind: Kind) -> Value {
    let (list, below) = match kind.row().status {
        Status::Ancestors => ("ancestors", json!({ "type": "array", "items": ancestor() })),
        _ => ("conditions", conditions()),
    };
    json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": { list: below },
    })
}

/// Gateway API, PolicyAncestorStatus.
fn ancestor() -> Value {
    json!({
        "type": "object",
        "required": ["ancestorRef", "controllerName"],
        "properties": {
            "ancestorRef": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            "controllerName": { "type": "string" },
            "conditions": conditions(),
        },
    })
}

fn conditions() -> Value {
    let text = json!({ "type": "string" });
    let time = json!({ "type": "string", "format": "date-time" });
    json!({ "type": "array", "items": {
            "type": "object",
            "properties": {
                "type": text,
                "status": text,
                "reason": text,
                "message": text,
                "lastProbeTime": time,
                "lastTransitionTime": time,
                "observedGeneration": schema(&Shape::IntOrString),
            },
    } })
}

fn schema(shape: &Shape) -> Value {
    match shape {
        Shape::Object(fields) => {
            let properties: serde_json::Map<String, Value> = (fields.iter())
                .map(|field| (field.name.to_owned(), schema(&field.shape)))
                .collect();
            let required: Vec<&str> =
                fields.iter().filter(|it| it.required).map(|it| it.name).collect();
            let mut object = json!({
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
                "properties": properties,
            });
            if !required.is_empty() {
                object["required"] = required.into();
            }
            object
        }
        Shape::Map(values) => json!({ "type": "object", "additionalProperties": schema(values) }),
        Shape::List(items) => json!({ "type": "array", "items": schema(items) }),
        Shape::Choice(names) => json!({ "type": "string", "enum": names }),
        Shape::Text => json!({ "type": "string" }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Unsigned(most) => json!({ "type": "integer", "minimum": 0, "maximum": most }),
        Shape::Number => json!({ "type": "number" }),
        Shape::IntOrString => json!({
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "x-kubernetes-int-or-string": true,
        }),
        Shape::Any => json!({ "x-kubernetes-preserve-unknown-fields": true }),
    }
}
