use super::*;
use crate::source::objects::{AuthorizationPolicy, Namespace, Pod};
use crate::source::tests::{file, key};

fn namespace(name: &str, label: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{version: {label}}}}}\n"
    )
}

/// A label that is no text: refused, and its key can be read.
fn refused(name: &str) -> String {
    namespace(name, "[]")
}

const UNREADABLE: &str = "---\na: [\n";

/// The state after reading each of these in turn; every item is the set of all files.
fn after(states: &[&[(&str, String)]]) -> Objects {
    let mut objects = Objects::default();
    for state in states {
        let files: Vec<File> = state.iter().map(|(name, text)| file(name, text)).collect();
        objects = Objects::from_files(&files, &objects);
    }
    objects
}

/// Names and labels of the namespaces in force.
fn in_force(objects: &Objects) -> Vec<String> {
    objects
        .all::<Namespace>()
        .map(|(key, it)| {
            format!("{}={}", key.name, it.metadata.labels.as_ref().unwrap()["version"])
        })
        .collect()
}

#[test]
fn a_refused_document_keeps_the_last_good_version() {
    let good = namespace("a", "one") + &namespace("b", "one");
    for (then, expected) in [
        (refused("a") + &namespace("b", "two"), &["a=one", "b=two"][..]),
        // Not even the name can be read: what the document last gave.
        (UNREADABLE.to_owned() + &namespace("b", "two"), &["a=one", "b=two"]),
        (namespace("a", "two") + UNREADABLE, &["a=two", "b=one"]),
        // A document that came before the others shifts them, but takes nothing from them.
        (
            UNREADABLE.to_owned() + &namespace("a", "two") + &namespace("b", "two"),
            &["a=two", "b=two"],
        ),
        // Deleted, not refused.
        (namespace("b", "two"), &["b=two"]),
        (String::new(), &[]),
    ] {
        let objects = after(&[&[("x.yaml", good.clone())], &[("x.yaml", then.clone())]]);
        assert_eq!(in_force(&objects), expected, "{then}");
        assert_eq!(objects.complaints().is_empty(), !then.contains('['), "{then}");
    }
}

#[test]
fn it_stays_over_more_than_one_reading_and_goes_with_its_file() {
    let bad = [("x.yaml", refused("a"))];
    let objects = after(&[&[("x.yaml", namespace("a", "one"))], &bad, &bad, &bad]);
    assert_eq!(in_force(&objects), ["a=one"]);
    assert!(objects.complaints()[0].reason.contains("its last good version stays in force"));
    let objects = after(&[&[("x.yaml", namespace("a", "one"))], &bad, &[]]);
    assert!(in_force(&objects).is_empty());
    // Renamed and broken at once.
    let objects = after(&[&[("x.yaml", namespace("a", "one"))], &[("y.yaml", refused("a"))]]);
    assert_eq!(in_force(&objects), ["a=one"]);
    assert_eq!(
        objects.origin(Kind::Namespace, &key("a")).unwrap().to_string(),
        "y.yaml, document 1"
    );
}

#[test]
fn nothing_is_made_up_for_what_was_never_good() {
    let objects = after(&[&[("x.yaml", refused("a"))]]);
    assert!(in_force(&objects).is_empty());
    assert!(objects.refused().is_empty());
    assert!(objects.complaints()[0].reason.contains("no earlier version"));
}

#[test]
fn of_duplicates_the_first_counts() {
    let objects = after(&[&[("a.yaml", namespace("n", "one")), ("b.yaml", namespace("n", "two"))]]);
    assert_eq!(in_force(&objects), ["n=one"]);
    let complaint = &objects.complaints()[0];
    assert_eq!(complaint.origin.as_ref().unwrap().to_string(), "b.yaml, document 1");
    assert!(complaint.reason.contains("a.yaml, document 1"), "{complaint}");
    // A good duplicate does not replace the last good version of the first.
    let objects = after(&[
        &[("a.yaml", namespace("n", "one"))],
        &[("a.yaml", refused("n")), ("b.yaml", namespace("n", "two"))],
    ]);
    assert_eq!(in_force(&objects), ["n=one"]);
    // But it counts when there is none.
    let objects = after(&[&[("a.yaml", refused("n")), ("b.yaml", namespace("n", "two"))]]);
    assert_eq!(in_force(&objects), ["n=two"]);
}

#[test]
fn a_file_that_cannot_be_read_keeps_what_it_held() {
    let before = Objects::from_files(
        &[file("x.yaml", &namespace("a", "one")), file("folder/y.yaml", &namespace("b", "one"))],
        &Objects::default(),
    );
    let unreadable = |name: &str| File { name: name.into(), documents: Err("denied".into()) };
    let objects = Objects::from_files(&[unreadable("folder"), unreadable("x.yaml")], &before);
    assert_eq!(in_force(&objects), ["a=one", "b=one"]);
    assert_eq!(objects.complaints().len(), 2);
    let objects = Objects::from_files(&[unreadable("fold")], &before);
    assert!(in_force(&objects).is_empty());
}

#[test]
fn a_policy_that_was_never_good_is_remembered_until_it_is() {
    let policy = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: n}}\nspec: {spec}\n"
        )
    };
    let objects = after(&[&[("x.yaml", policy("{a: 1}"))]]);
    assert_eq!(objects.refused()[0].key, key("n/p"));
    // Still remembered when the document gets worse.
    let objects = after(&[&[("x.yaml", policy("{a: 1}"))], &[("x.yaml", UNREADABLE.into())]]);
    assert_eq!(objects.refused().len(), 1);
    let objects = after(&[&[("x.yaml", policy("{a: 1}"))], &[("x.yaml", policy("{}"))]]);
    assert!(objects.refused().is_empty());
    assert!(objects.get::<AuthorizationPolicy>(&key("n/p")).is_some());
    // With a last good version there is nothing to remember.
    let objects = after(&[&[("x.yaml", policy("{}"))], &[("x.yaml", policy("{a: 1}"))]]);
    assert!(objects.refused().is_empty());
    assert!(objects.get::<AuthorizationPolicy>(&key("n/p")).is_some());
}

#[test]
fn objects_of_the_api_are_taken_as_they_come() {
    let mut objects = Objects::default();
    let value = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
    objects.insert(Kind::Pod.read(&value).unwrap());
    assert!(objects.get::<Pod>(&key("default/p")).is_some());
    assert_eq!(objects.all::<Pod>().count(), 1);
    assert_eq!(objects.all::<Namespace>().count(), 0);
    assert_eq!(objects.origin(Kind::Pod, &key("default/p")), None);
}
