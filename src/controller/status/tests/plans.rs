//! What is written, by what is there.

use super::*;

const NOW: &str = "2026-11-25T12:00:00Z";
const BEFORE: &str = "2026-01-01T00:00:00Z";

fn subject(kind: Kind) -> Subject {
    Subject::new(SubjectKind::Of(kind), ObjectKey::new("bookinfo", "it"))
}

fn object(status: Value) -> Stored {
    let metadata =
        json!({ "name": "it", "namespace": "bookinfo", "generation": 2, "resourceVersion": "77" });
    let object = json!({ "apiVersion": "example.org/v1", "metadata": metadata, "status": status });
    Stored { object, refused: None, labels: None }
}

fn condition(kind: &str, status: &str) -> Value {
    json!({ "type": kind, "status": status, "reason": "Because", "message": "", "observedGeneration": 2 })
}

fn at(mut condition: Value, time: &str) -> Value {
    condition["lastTransitionTime"] = time.into();
    condition
}

fn bound(conditions: Value) -> Desired {
    Desired { status: json!({ "conditions": conditions }), owned: &["Bound"] }
}

fn entry(parent: &str, controller: &str, conditions: Value) -> Value {
    json!({ "parentRef": { "name": parent }, "controllerName": controller, "conditions": conditions })
}

fn route(parents: &[Value]) -> Desired {
    Desired { status: json!({ "parents": parents }), owned: &[] }
}

#[test]
fn what_is_there_already_is_not_written_again() {
    let ours = at(condition("Bound", "True"), BEFORE);
    let other = at(condition("Other", "True"), BEFORE);
    for kind in [Kind::Service, Kind::ServiceEntry] {
        let stored = object(json!({ "conditions": [other, ours], "loadBalancer": {} }));
        let desired = bound(json!([condition("Bound", "True")]));
        assert_eq!(plan(&subject(kind), &stored, &desired, NOW), None);
    }
    let mine = entry("a", CONTROLLER_NAME, json!([ours]));
    let stored = object(json!({ "parents": [mine] }));
    let desired = route(&[entry("a", CONTROLLER_NAME, json!([condition("Bound", "True")]))]);
    assert_eq!(plan(&subject(Kind::HTTPRoute), &stored, &desired, NOW), None);
}

#[test]
fn nothing_to_say_is_not_written_where_nothing_is_said() {
    let stored = object(json!({ "loadBalancer": {} }));
    assert_eq!(plan(&subject(Kind::Service), &stored, &bound(json!([])), NOW), None);
    assert_eq!(plan(&subject(Kind::HTTPRoute), &stored, &route(&[]), NOW), None);
}

#[test]
fn a_time_stays_while_the_status_does() {
    let stored = object(json!({ "conditions": [at(condition("Bound", "True"), BEFORE)] }));
    let mut other_message = condition("Bound", "True");
    other_message["message"] = "new".into();
    let write = plan(&subject(Kind::Service), &stored, &bound(json!([other_message])), NOW);
    let time = |write: Option<Write>| {
        write.expect("a write").body["status"]["conditions"][0]["lastTransitionTime"].clone()
    };
    assert_eq!(time(write), BEFORE);
    let turned = bound(json!([condition("Bound", "False")]));
    assert_eq!(time(plan(&subject(Kind::Service), &stored, &turned, NOW)), NOW);
}

#[test]
fn of_a_service_only_ours_is_applied_and_nobody_is_pushed_aside() {
    let other = at(condition("Other", "True"), BEFORE);
    let stored = object(json!({ "conditions": [other] }));
    let desired = bound(json!([condition("Bound", "True")]));
    let write = plan(&subject(Kind::Service), &stored, &desired, NOW).expect("a write");
    assert!(!write.force);
    assert_eq!(
        write.body["status"],
        json!({ "conditions": [at(condition("Bound", "True"), NOW)] })
    );
    assert_eq!(write.body["metadata"].get("resourceVersion"), None);
}

#[test]
fn lists_with_one_owner_are_applied_with_what_others_have_in_them() {
    let other = at(condition("Other", "True"), BEFORE);
    let gone = at(condition("Bound", "True"), BEFORE);
    let stored = object(json!({ "conditions": [gone, other] }));
    let kind = subject(Kind::AuthorizationPolicy);
    let write = plan(&kind, &stored, &bound(json!([])), NOW).expect("a write");
    assert_eq!(write.body["status"], json!({ "conditions": [other] }));
    assert_eq!(write.body["metadata"]["resourceVersion"], "77");
    assert!(write.force);
}

#[test]
fn entries_of_other_controllers_stay_and_stale_ones_of_ours_go() {
    let foreign =
        entry("a", "example.org/other", json!([at(condition("Accepted", "True"), BEFORE)]));
    let stale = entry("gone", CONTROLLER_NAME, json!([]));
    let kept = entry("a", CONTROLLER_NAME, json!([at(condition("Accepted", "True"), BEFORE)]));
    let stored = object(json!({ "parents": [stale, foreign, kept] }));
    let desired = route(&[
        entry("a", CONTROLLER_NAME, json!([condition("Accepted", "True")])),
        entry("b", CONTROLLER_NAME, json!([condition("Accepted", "False")])),
    ]);
    let write = plan(&subject(Kind::GRPCRoute), &stored, &desired, NOW).expect("a write");
    let new = entry("b", CONTROLLER_NAME, json!([at(condition("Accepted", "False"), NOW)]));
    assert_eq!(write.body["status"], json!({ "parents": [foreign, kept, new] }));
}

#[test]
fn a_route_has_at_most_32_parents_and_others_come_first() {
    let foreign: Vec<Value> =
        (0..31).map(|index| entry(&index.to_string(), "example.org/other", json!([]))).collect();
    let stored = object(json!({ "parents": foreign }));
    let ours: Vec<Value> =
        (0..3).map(|index| entry(&index.to_string(), CONTROLLER_NAME, json!([]))).collect();
    let write = plan(&subject(Kind::HTTPRoute), &stored, &route(&ours), NOW).expect("a write");
    assert_eq!(write.body["status"]["parents"].as_array().map(Vec::len), Some(32));
    let stored = object(write.body["status"].clone());
    assert_eq!(plan(&subject(Kind::HTTPRoute), &stored, &route(&ours), NOW), None);
}

#[test]
fn a_status_about_a_newer_object_is_left_alone() {
    let mut newer = at(condition("Bound", "True"), BEFORE);
    newer["observedGeneration"] = 3.into();
    let stored = object(json!({ "conditions": [newer] }));
    let desired = bound(json!([condition("Bound", "False")]));
    assert_eq!(plan(&subject(Kind::Service), &stored, &desired, NOW), None);
    let stored = object(json!({ "parents": [entry("a", CONTROLLER_NAME, json!([newer]))] }));
    assert_eq!(plan(&subject(Kind::HTTPRoute), &stored, &route(&[]), NOW), None);
}

#[test]
fn what_a_golden_test_says_is_written_once() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/status");
    for name in ["gateways", "routes", "bindings", "policies"] {
        let text = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).expect("golden");
        let stored = stored(&text);
        let mut writes = 0;
        for (subject, desired) in desires(&text).statuses {
            let mut now = stored[&subject].clone();
            if let Some(write) = plan(&subject, &now, &desired, NOW) {
                writes += 1;
                now.object["status"] = write.body["status"].clone();
            }
            assert_eq!(plan(&subject, &now, &desired, BEFORE), None, "{subject}");
        }
        assert!(writes > 3, "{name}");
    }
}
