use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::source::objects::Kind;

fn shaped<S: Shape>(value: &Value) -> Value {
    let text = value.to_string();
    let mut from = serde_json::Deserializer::from_str(&text);
    let kept = S::KEEP.deserialize(&mut from).unwrap();
    from.end().unwrap();
    kept
}

#[test]
fn what_nobody_reads_is_no_change() {
    let pod = |probed: &str, image: &str, ready: &str| {
        json!({
            "metadata": {
                "name": "p", "namespace": "a", "managedFields": [probed],
                "annotations": {"cni.example/status": probed, "ambient.istio.io/dns-capture": "true"},
                "ownerReferences": [
                    {"kind": "X", "name": "other"},
                    {"kind": "ReplicaSet", "name": "rs", "controller": true, "uid": probed},
                ],
            },
            "spec": {
                "nodeName": "n", "tolerations": [probed],
                "containers": [
                    {"name": "bare", "image": image},
                    {"name": "app", "image": image, "ports": [{"name": "http", "containerPort": 80, "hostIP": probed}]},
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
    let one = shaped::<Pods>(&pod("1", "a", "True"));
    assert_eq!(one, shaped::<Pods>(&pod("2", "b", "True")));
    assert_ne!(one, shaped::<Pods>(&pod("1", "a", "False")));
    let expected = json!({
        "metadata": {
            "name": "p", "namespace": "a", "annotations": {"ambient.istio.io/dns-capture": "true"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "rs", "controller": true}],
        },
        "spec": {"nodeName": "n", "containers": [{"ports": [{"name": "http", "containerPort": 80}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    assert_eq!(one, expected);
}

/// Whatever the pod's reader takes from the whole object it finds in what is left.
#[test]
fn nothing_is_left_out_that_a_pod_is_read_for() {
    let containers = json!([
        {"name": "app", "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}, {"containerPort": 81}]},
        {"name": "side", "restartPolicy": "Always", "ports": [{"name": "grpc", "containerPort": 82}]},
    ]);
    let pod = json!({
        "metadata": {
            "name": "p", "namespace": "a", "uid": "0123", "labels": {"app": "x"}, "generation": 2,
            "deletionTimestamp": "2026-11-27T00:00:00Z", "deletionGracePeriodSeconds": 30,
            "annotations": {"sidecar.istio.io/status": "{}", "ambient.istio.io/bypass-inbound-capture": "true"},
            "ownerReferences": [{"kind": "Job", "name": "j-1", "controller": true, "uid": "4"}],
        },
        "spec": {
            "serviceAccountName": "s", "nodeName": "n", "hostNetwork": true, "hostname": "h", "subdomain": "d",
            "containers": containers, "initContainers": containers, "volumes": [],
        },
        "status": {
            "phase": "Failed", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
        },
    });
    let read = |value: &Value| format!("{:?}", Kind::Pod.read(value).unwrap());
    let whole = read(&pod);
    assert_eq!(whole, read(&shaped::<Pods>(&pod)));
    for said in [
        "0123",
        "\"app\"",
        "deleting: true",
        "bypass",
        "\"Job\"",
        "Always",
        "Finished",
        "fd00::1",
        "Some(true)",
    ] {
        assert!(whole.contains(said), "{said}: {whole}");
    }
}

#[test]
fn a_pod_does_not_say_where_it_is() {
    let pod = json!({"metadata": {"name": "p", "annotations": {
        "isthmus.io/network-namespace": "/proc/1/ns/net", "isthmus.io/node": "other",
    }}});
    assert_eq!(shaped::<Pods>(&pod)["metadata"]["annotations"], json!({}));
}

#[test]
fn a_static_pod_keeps_the_uid_that_the_kubelet_gave_it() {
    let pod = json!({"metadata": {"name": "p", "annotations": {MIRROR: "0123"}}});
    assert_eq!(shaped::<Pods>(&pod), pod);
}

#[test]
fn statuses_go_and_specs_stay() {
    let route = json!({
        "metadata": {"name": "r", "annotations": {LAST_APPLIED: "{}", "mine": "kept"}},
        "spec": {"hostnames": []}, "status": {"parents": []}, "odd": 1,
    });
    let kept = json!({
        "metadata": {"name": "r", "annotations": {"mine": "kept"}}, "spec": {"hostnames": []}, "odd": 1,
    });
    assert_eq!(shaped::<Strict>(&route), kept);
}

#[test]
fn of_nodes_labels_are_left_and_of_namespaces_annotations_too() {
    let object = json!({
        "metadata": {"name": "n", "labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {}, "status": {},
    });
    assert_eq!(shaped::<Labels>(&object), json!({"metadata": {"name": "n", "labels": {"a": "b"}}}));
    let annotated =
        json!({"metadata": {"name": "n", "labels": {"a": "b"}, "annotations": {"c": "d"}}});
    assert_eq!(shaped::<Annotated>(&object), annotated);
    let slice = json!({"metadata": {"name": "n", "annotations": {"c": "d"}}, "endpoints": []});
    assert_eq!(shaped::<Slice>(&slice), json!({"metadata": {"name": "n"}, "endpoints": []}));
}

/// Any JSON, now and then with the names that shapes look for.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|quarters| (f64::from(quarters) / 4.0).into()),
        "[a-z\"\\\\\n]{0,4}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        prop::sample::select(vec![
            "metadata",
            "labels",
            "annotations",
            "ownerReferences",
            "spec",
            "containers",
            "ports",
            "status",
            "conditions",
            "controller",
        ])
        .prop_map(str::to_owned),
        "[a-c]",
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever a server sends is parsed to its end, nothing is made up, and what was shaped keeps its shape.
    #[test]
    fn a_shape_only_leaves_out(value in any_json()) {
        for shape in [shaped::<Pods>, shaped::<Strict>, shaped::<Slice>, shaped::<Labels>] {
            let kept = shape(&value);
            prop_assert!(is_part_of(&kept, &value), "{kept} of {value}");
            prop_assert_eq!(shape(&kept), kept);
        }
        let whole = json!({"spec": value});
        prop_assert_eq!(shaped::<Strict>(&whole), whole);
    }
}

/// In the same order, with elements and fields left out.
fn is_part_of(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            part.iter().all(|(name, value)| whole.get(name).is_some_and(|it| is_part_of(value, it)))
        }
        (Value::Array(part), Value::Array(whole)) => {
            let mut rest = whole.iter();
            part.iter().all(|element| rest.any(|it| is_part_of(element, it)))
        }
        _ => part == whole,
    }
}
