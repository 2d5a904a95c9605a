//! Golden tests: each `tests/golden/status/<name>.yaml` and the statuses of its objects, `<name>.snap`; and what is
//! written when some of them are there already.

use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::base::ObjectKey;
use crate::source::objects::{Kind, Recognised};
use crate::source::{File, parse, translate};

mod plans;

fn stored(text: &str) -> BTreeMap<Subject, Stored> {
    let mut all = BTreeMap::new();
    for document in text.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(document).expect("the document is YAML");
        let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
        let metadata = |field: &str| object.get("metadata").and_then(|it| it.get(field)?.as_str());
        let Some(kind) = SubjectKind::read().find(|it| it.name() == text("kind")) else {
            continue;
        };
        let namespace = match kind.is_namespaced() {
            true => metadata("namespace").unwrap_or("default"),
            false => "",
        };
        let key = ObjectKey::new(namespace, metadata("name").unwrap_or_default());
        let refused = match Kind::recognise(text("apiVersion"), text("kind")) {
            Recognised::Kind(kind) => kind.read(&object).err(),
            _ => None,
        };
        let labels = object.get("metadata").and_then(|it| it.get("labels")).cloned();
        let labels = labels.and_then(|it| serde_json::from_value(it).ok());
        all.insert(Subject { kind, key }, Stored { object, refused, labels });
    }
    all
}

fn desires(text: &str) -> Desires {
    let file = File { name: "test.yaml".into(), documents: Ok(parse(text).into()) };
    let objects = Objects::from_files(&[file], &Objects::default());
    let translation = translate(&objects, &TranslateSettings::default());
    let stored = stored(text);
    let served: Vec<SubjectKind> = SubjectKind::all().collect();
    desired(&View {
        objects: &objects,
        translation: &translation,
        settings: &TranslateSettings::default(),
        stored: &stored,
        served: &served,
    })
}

fn golden(name: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/status");
    let text = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).expect("golden input");
    let desires = desires(&text);
    let statuses: BTreeMap<String, &Value> =
        desires.statuses.iter().map(|(subject, it)| (subject.to_string(), &it.status)).collect();
    let missing: Vec<&Value> = desires.missing.iter().map(|(_, object)| object).collect();
    let taken: Vec<String> = (desires.taken.iter())
        .map(|it| format!("{}: {}: {}", it.subject, it.reason, it.message))
        .collect();
    let mut insta = insta::Settings::clone_current();
    insta.set_snapshot_path(folder);
    insta.set_prepend_module_to_snapshot(false);
    insta.set_omit_expression(true);
    insta.bind(|| {
        insta::assert_yaml_snapshot!(
            name,
            json!({ "statuses": statuses, "missing": missing, "taken": taken })
        )
    });
}

#[test]
fn gateways() {
    golden("gateways");
}

#[test]
fn classes_of_others() {
    golden("classes-of-others");
}

#[test]
fn routes() {
    golden("routes");
}

#[test]
fn bindings() {
    golden("bindings");
}

#[test]
fn kinds_that_are_not_carried_out() {
    golden("unserved");
}

#[test]
fn stream_routes() {
    golden("stream-routes");
}

#[test]
fn policies() {
    golden("policies");
}

#[test]
fn destination_rules() {
    golden("destination-rules");
}

#[test]
fn virtual_services() {
    golden("virtual-services");
}

#[test]
fn telemetry() {
    golden("telemetry");
}

#[test]
fn telemetry_policies() {
    golden("telemetry-policies");
}

#[test]
fn traffic_policies() {
    golden("traffic-policies");
}

/// The Events that tell of objects: kind, name, reason and note.
fn told(text: &str) -> Vec<String> {
    let file = File { name: "test.yaml".into(), documents: Ok(parse(text).into()) };
    let objects = Objects::from_files(&[file], &Objects::default());
    let (translation, stored) = (translate(&objects, &TranslateSettings::default()), stored(text));
    let served: Vec<SubjectKind> = SubjectKind::all().collect();
    let view = View {
        objects: &objects,
        translation: &translation,
        settings: &TranslateSettings::default(),
        stored: &stored,
        served: &served,
    };
    trouble::troubles(&view, &Desires::default())
        .iter()
        .map(|it| format!("{} {}: {}: {}", it.regarding.kind, it.regarding.key, it.reason, it.note))
        .collect()
}

/// What is in force, and has a part without an effect: no condition of these kinds says so.
#[test]
fn warnings_that_no_condition_lists_are_events() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/dataplane-mode: sidecar}}\n---\n\
                apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop, labels: {istio.io/use-waypiont: w}}\n\
                spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n---\n\
                apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: shop}\n\
                spec: {hosts: [x.example], resolution: DNS}\n";
    let told = told(text);
    for (start, part) in [
        ("Namespace shop: Misconfigured: metadata.labels", "sidecar"),
        ("Service shop/s: Misconfigured: metadata.labels", "is \"istio.io/use-waypoint\" meant?"),
        ("ServiceEntry shop/e: Misconfigured: spec.ports: are missing", "list the ports"),
    ] {
        let found = told.iter().find(|it| it.starts_with(start));
        assert!(found.is_some_and(|it| it.contains(part)), "{told:?}");
    }
    // Of endpoints the controller knows nothing.
    assert!(!told.iter().any(|it| it.contains("EndpointSlice")), "{told:?}");
}

/// A ConfigMap has no status at all.
#[test]
fn faults_of_meshconfig_are_events() {
    let config = |mesh: &str| {
        let object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |";
        let lines = mesh.lines().map(|line| format!("\n    {line}"));
        told(&format!("{object}{}\n", lines.collect::<String>()))
    };
    let provider = |field: &str| {
        format!(
            "extensionProviders:\n- name: login\n  envoyExtAuthzHttp: {{service: a/b.a.svc, port: 1{field}}}"
        )
    };
    for (mesh, start, part) in [
        ("ingressClass: istio", "Misconfigured", "ingressClass: is not carried out"),
        (&*provider(", surprise: 1"), "Misconfigured", "surprise"),
        (&*provider(", statusOnError: '200'"), "Invalid", "statusOnError"),
        ("extensionProviders: 1", "Refused", "extensionProviders"),
        ("extensionProviders: [", "Refused", "is not YAML"),
    ] {
        let told = config(mesh);
        let start = format!("ConfigMap istio-system/istio: {start}: ");
        assert!(told.iter().any(|it| it.starts_with(&start) && it.contains(part)), "{told:?}");
    }
    assert_eq!(config("accessLogFile: /dev/stdout"), Vec::<String>::new());
}
