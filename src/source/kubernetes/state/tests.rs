//! Recorded sequences of events, and what is in force after them.

use serde_json::{Value, json};

use super::*;
use crate::source::kubernetes::object::{Raw, Shaped};
use crate::source::kubernetes::shape::{Pods, Strict};
use crate::source::objects::{AuthorizationPolicy, Namespace, Pod};

fn raw(kind: Kind, value: Value) -> Raw {
    match kind {
        Kind::Pod => serde_json::from_value::<Shaped<Pods>>(value).unwrap().raw,
        _ => serde_json::from_value::<Shaped<Strict>>(value).unwrap().raw,
    }
}

fn namespace(name: &str, version: &str, label: Value) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version, "labels": {"l": label}}})
}

fn policy(version: &str, action: &str) -> Value {
    json!({
        "metadata": {"name": "p", "namespace": "a", "resourceVersion": version, "generation": 3},
        "spec": {"action": action},
    })
}

/// As the source does: read only what is not known in this version.
fn hear(state: &mut State, kind: Kind, value: Value) {
    let raw = raw(kind, value);
    if !state.knows(kind, &raw.key(kind), raw.version()) {
        state.apply(kind, raw.read(kind, "v1"));
    }
}

fn list(state: &mut State, kind: Kind, values: &[Value]) {
    state.start(kind);
    values.iter().for_each(|value| hear(state, kind, value.clone()));
    state.done(kind);
}

fn in_force(state: &State) -> Vec<String> {
    let all = state.objects().all::<Namespace>();
    all.map(|(key, it)| format!("{}={}", key.name, it.metadata.labels.as_ref().unwrap()["l"]))
        .collect()
}

fn changed(state: &mut State) -> Vec<String> {
    state.take_changed().into_iter().map(|(_, key)| key.name.to_string()).collect()
}

/// Whichever order they come in.
#[test]
fn pods_of_one_template_hold_it_once() {
    let pod = |name: &str, version: &str, app: &str| json!({"metadata": {"name": name, "namespace": "a", "resourceVersion": version, "labels": {"app": app}}});
    let mut state = State::default();
    for (name, version, app) in [
        ("x-2", "1", "x"),
        ("x-1", "2", "x"),
        ("x-3", "3", "x"),
        ("y-1", "4", "y"),
        ("x-2", "5", "x"),
    ] {
        hear(&mut state, Kind::Pod, pod(name, version, app));
    }
    let templates: Vec<_> = state.objects().all::<Pod>().map(|(_, pod)| &pod.template).collect();
    let [one, two, three, other] = templates[..] else { panic!("{templates:?}") };
    assert!([two, three].iter().all(|it| std::sync::Arc::ptr_eq(one, it)));
    assert_eq!(other.labels.as_ref().unwrap()["app"], "y");
}

#[test]
fn a_kind_is_missing_until_its_list_is_whole() {
    let mut state = State::default();
    state.expect(Kind::Namespace);
    state.expect(Kind::Pod);
    state.start(Kind::Pod);
    assert_eq!(state.missing().collect::<Vec<_>>(), [Kind::Namespace, Kind::Pod]);
    list(&mut state, Kind::Namespace, &[]);
    assert_eq!(state.missing().collect::<Vec<_>>(), [Kind::Pod]);
    state.done(Kind::Pod);
    assert_eq!(state.missing().next(), None);
    // A new list does not take back that there was one.
    state.start(Kind::Pod);
    assert_eq!(state.missing().next(), None);
}

#[test]
fn changes_are_followed_and_a_new_list_replaces() {
    let mut state = State::default();
    let (kind, one) = (Kind::Namespace, json!("1"));
    list(&mut state, kind, &[namespace("a", "1", one.clone()), namespace("b", "2", one.clone())]);
    assert_eq!(in_force(&state), ["a=1", "b=1"]);
    assert_eq!(changed(&mut state), ["a", "b"]);
    hear(&mut state, kind, namespace("a", "3", json!("2")));
    assert_eq!(
        (in_force(&state), changed(&mut state)),
        (vec!["a=2".into(), "b=1".into()], vec!["a".into()])
    );
    // Another version that says the same is no change.
    hear(&mut state, kind, namespace("a", "4", json!("2")));
    assert!(state.changed.is_empty());
    // While nobody listened: `b` was deleted, `c` came, `a` stayed.
    state.start(kind);
    hear(&mut state, kind, namespace("a", "4", json!("2")));
    hear(&mut state, kind, namespace("c", "7", one.clone()));
    assert_eq!(in_force(&state), ["a=2", "b=1", "c=1"], "until the list is whole nothing goes");
    state.done(kind);
    assert_eq!(in_force(&state), ["a=2", "c=1"]);
    assert_eq!(changed(&mut state), ["b", "c"]);
    state.delete(kind, ObjectKey::new("", "a"));
    state.delete(kind, ObjectKey::new("", "never-there"));
    assert_eq!((in_force(&state), changed(&mut state)), (vec!["c=1".into()], vec!["a".into()]));
    // Deleted and made again with the same content.
    hear(&mut state, kind, namespace("a", "9", json!("2")));
    assert_eq!(changed(&mut state), ["a"]);
}

#[test]
fn a_list_that_breaks_off_deletes_nothing() {
    let mut state = State::default();
    let (kind, one) = (Kind::Namespace, json!("1"));
    list(&mut state, kind, &[namespace("a", "1", one.clone()), namespace("b", "2", one.clone())]);
    state.start(kind);
    hear(&mut state, kind, namespace("a", "1", one.clone()));
    state.start(kind);
    assert_eq!(in_force(&state), ["a=1", "b=1"]);
    hear(&mut state, kind, namespace("b", "2", one));
    state.done(kind);
    assert_eq!(in_force(&state), ["b=1"]);
}

#[test]
fn what_is_refused_keeps_its_last_good_version() {
    let mut state = State::default();
    let kind = Kind::Namespace;
    list(&mut state, kind, &[namespace("a", "1", json!("1")), namespace("b", "2", json!(["odd"]))]);
    assert_eq!(in_force(&state), ["a=1"]);
    let complaints = |state: &State| -> Vec<String> {
        state.objects().complaints().iter().map(ToString::to_string).collect()
    };
    assert_eq!(complaints(&state).len(), 1);
    assert!(
        complaints(&state)[0].starts_with("Namespace b: metadata.labels"),
        "{:?}",
        complaints(&state)
    );
    hear(&mut state, kind, namespace("a", "3", json!(["odd"])));
    assert_eq!(in_force(&state), ["a=1"]);
    assert!(complaints(&state)[1].contains("its last good version stays in force"));
    hear(&mut state, kind, namespace("a", "4", json!("2")));
    hear(&mut state, kind, namespace("b", "5", json!("2")));
    assert_eq!((in_force(&state), complaints(&state)), (vec!["a=2".into(), "b=2".into()], vec![]));
    // The complaint goes with the object.
    hear(&mut state, kind, namespace("b", "6", json!(["odd"])));
    state.delete(kind, ObjectKey::new("", "b"));
    assert_eq!((in_force(&state), complaints(&state)), (vec!["a=2".into()], vec![]));
}

#[test]
fn a_policy_that_was_never_understood_is_remembered() {
    let mut state = State::default();
    let kind = Kind::AuthorizationPolicy;
    list(&mut state, kind, &[policy("1", "EXPLODE")]);
    let refused = state.objects().refused();
    assert_eq!((refused.len(), refused[0].kind), (1, kind));
    assert!(refused[0].document.is_some());
    hear(&mut state, kind, policy("2", "DENY"));
    assert!(state.objects().refused().is_empty());
    hear(&mut state, kind, policy("3", "EXPLODE"));
    assert!(state.objects().refused().is_empty(), "the last good version denies");
    assert_eq!(state.objects().all::<AuthorizationPolicy>().count(), 1);
    // A list without it ends both.
    list(&mut state, kind, &[]);
    assert_eq!(state.objects().all::<AuthorizationPolicy>().count(), 0);
    list(&mut state, kind, &[policy("4", "EXPLODE")]);
    state.forget(kind);
    assert!(state.objects().refused().is_empty() && state.objects().complaints().is_empty());
}
