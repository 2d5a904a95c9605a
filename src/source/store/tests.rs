use super::*;
use crate::source::Severity;
use crate::source::objects::{AuthorizationPolicy, Namespace, Pod};
use crate::source::tests::{file, key};

mod weights;

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
    // Again, and again readable.
    let objects = Objects::from_files(&[unreadable("folder"), unreadable("x.yaml")], &objects);
    assert_eq!(in_force(&objects), ["a=one", "b=one"]);
    assert!(objects.refused().is_empty());
    let objects = Objects::from_files(&[unreadable("fold")], &before);
    assert!(in_force(&objects).is_empty());
}

/// At a start, or as a file that is new: it may hold a security policy.
#[test]
fn a_file_that_was_never_read_denies_everything() {
    let unreadable = |name: &str| File { name: name.into(), documents: Err("denied".into()) };
    let other = file("y.yaml", &namespace("b", "one"));
    let mut objects = Objects::default();
    for _ in 0..2 {
        objects = Objects::from_files(&[unreadable("x.yaml"), other.clone()], &objects);
        let [refused] = objects.refused() else { panic!("{:?}", objects.refused()) };
        assert!(refused.anywhere && refused.kind == Kind::AuthorizationPolicy);
        let [complaint] = objects.complaints() else { panic!("{:?}", objects.complaints()) };
        assert!(complaint.reason.contains("all traffic is denied"), "{complaint}");
    }
    // Known, if only to hold nothing that counts here.
    let read = Objects::from_files(&[file("x.yaml", "# nothing\n"), other.clone()], &objects);
    assert!(read.refused().is_empty());
    let again = Objects::from_files(&[unreadable("x.yaml"), other.clone()], &read);
    assert!(again.refused().is_empty());
    let removed = Objects::from_files(std::slice::from_ref(&other), &again);
    assert!(removed.refused().is_empty());
    let back = Objects::from_files(&[unreadable("x.yaml"), other], &removed);
    assert_eq!(back.refused().len(), 1);
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

fn policy(name: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: shop}}\nspec: {{action: DENY, rules: [{{}}]}}\n"
    )
}

/// Kind, name and end of each complaint.
fn complaints(objects: &Objects) -> Vec<String> {
    let mut all: Vec<String> = (objects.complaints().iter())
        .map(|it| {
            let name = it.object.as_ref().map_or("?".to_owned(), ToString::to_string);
            format!("{} {name}:{}", it.kind, it.reason.rsplit(';').next().unwrap())
        })
        .collect();
    all.sort();
    all
}

/// Two objects whose `---` was forgotten, by a live edit and at a start.
#[test]
fn a_document_with_two_objects_loses_neither() {
    let both = policy("p") + "apiVersion: v1\nkind: Namespace\nmetadata: {name: extra}\n";
    let extra = "Namespace extra: it is not in force, and there is no earlier version of it";
    let live = after(&[&[("x.yaml", policy("p"))], &[("x.yaml", both.clone())]]);
    assert!(live.get::<AuthorizationPolicy>(&key("shop/p")).is_some());
    assert!(live.refused().is_empty());
    let kept = "AuthorizationPolicy shop/p: its last good version stays in force";
    assert_eq!(complaints(&live), [kept, extra]);
    let cold = after(&[&[("x.yaml", both)]]);
    assert_eq!((cold.refused().len(), &cold.refused()[0].key), (1, &key("shop/p")));
    let denies =
        "AuthorizationPolicy shop/p: until it can be understood, it denies what it may apply to";
    assert_eq!(complaints(&cold), [denies, extra]);
}

/// Object by object: what is in force and what denies follows from each one's own past.
#[test]
fn objects_of_an_unreadable_document_are_settled_one_by_one() {
    let list = |last: &str| {
        let items = ["p", "q"].map(|name| policy(name).replace('\n', "\n  ").trim_end().to_owned());
        format!("apiVersion: v1\nkind: List\nitems:\n- {}\n- {}\n{last}", items[0], items[1])
    };
    let broken = list(&format!("- {}\n  broken: [", policy("r").replace('\n', "\n  ").trim_end()));
    let objects = after(&[&[("x.yaml", list(""))], &[("x.yaml", broken)]]);
    for name in ["shop/p", "shop/q"] {
        assert!(objects.get::<AuthorizationPolicy>(&key(name)).is_some(), "{name}");
    }
    let refused: Vec<_> = objects.refused().iter().map(|it| it.key.clone()).collect();
    assert_eq!(refused, [key("shop/r")]);
    // Nothing of its names is left: what the document held stays, and needs no other policy to deny in its place.
    let nameless = "apiVersion: v1\nkind: List\nitems: [\n- kind: AuthorizationPolicy\n- kind: AuthorizationPolicy\n";
    let objects = after(&[&[("x.yaml", list(""))], &[("x.yaml", nameless.into())]]);
    assert_eq!(objects.all::<AuthorizationPolicy>().count(), 2);
    assert!(objects.refused().is_empty());
    let more = format!("{nameless}- kind: AuthorizationPolicy\n");
    let objects = after(&[&[("x.yaml", list(""))], &[("x.yaml", more)]]);
    assert_eq!(objects.all::<AuthorizationPolicy>().count(), 2);
    assert!(objects.refused()[0].anywhere, "a third one, of whatever namespace");
}

/// A kind or group with a typing error is no deletion.
#[test]
fn a_misspelt_kind_deletes_nothing() {
    for (from, to) in [
        ("AuthorizationPolicy", "AuthorisationPolicy"),
        ("security.istio.io", "security.istio.oi"),
        ("kind", "Kind"),
        ("apiVersion", "apiversion"),
    ] {
        let bad = policy("p").replace(from, to);
        let live = after(&[&[("x.yaml", policy("p"))], &[("x.yaml", bad.clone())]]);
        assert!(live.get::<AuthorizationPolicy>(&key("shop/p")).is_some(), "{bad}");
        assert!(live.refused().is_empty(), "{bad}");
        let cold = after(&[&[("x.yaml", bad.clone())]]);
        let refused = &cold.refused()[0];
        assert_eq!((&*refused.key.namespace, refused.anywhere), ("shop", false), "{bad}");
    }
}

/// The same files over what they gave give the same, and in the same words.
#[test]
fn nothing_is_told_otherwise_on_a_second_reading() {
    let good = policy("p");
    let unreadable = good.replace("rules: [{}]", "rules: [{}");
    let misspelt = good.replace("action", "actoin");
    let nameless = "kind: AuthorizationPolicy\nmetadata: [";
    let list = format!(
        "apiVersion: v1\nkind: List\nitems: [{{{}}}, {{{}}}]\n",
        flow(&misspelt),
        flow(&good)
    );
    for texts in [
        [unreadable.as_str(), ""],
        [&misspelt, &good],
        [&good, &misspelt],
        [&unreadable, &good],
        [nameless, &good],
        [nameless, nameless],
        [&list, ""],
    ] {
        let states = [("x.yaml", texts.join("---\n")), ("y.yaml", texts[0].to_owned())];
        for before in [String::new(), good.clone(), UNREADABLE.to_owned() + "---\n" + &good] {
            let past = after(&[&[("x.yaml", before.clone())], &states]);
            let files: Vec<File> = states.iter().map(|(name, text)| file(name, text)).collect();
            let again = Objects::from_files(&files, &past);
            assert_eq!(complaints(&past), complaints(&again), "{before}\n=> {texts:?}");
            let refused =
                |of: &Objects| of.refused().iter().map(|it| it.key.clone()).collect::<Vec<_>>();
            assert_eq!(refused(&past), refused(&again), "{before}\n=> {texts:?}");
        }
    }
}

/// The fields of an object in one line.
fn flow(object: &str) -> String {
    object.trim_end().replace('\n', ", ")
}

#[test]
fn a_field_that_stands_twice_is_told() {
    let text = policy("p") + "spec: {action: DENY, rules: []}\n";
    let objects = after(&[&[("x.yaml", text)]]);
    let complaint = &objects.complaints()[0];
    assert_eq!((complaint.severity, &*complaint.field), (Severity::Warning, "spec"));
    assert!(objects.get::<AuthorizationPolicy>(&key("shop/p")).unwrap().spec.rules.is_empty());
}

/// A value that can be read and that the API server would refuse.
#[test]
fn an_invalid_edit_keeps_the_last_good_version() {
    let route = |timeout: &str, weight: u32| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\n\
             spec: {{rules: [{{timeouts: {{request: {timeout}}}, \
             backendRefs: [{{name: s, port: 80, weight: {weight}}}]}}]}}\n"
        )
    };
    let weight = |objects: &Objects| {
        let route = objects.get::<crate::source::objects::HttpRoute>(&key("shop/r")).unwrap();
        route.spec.rules[0].backend_refs[0].weight
    };
    let (good, bad) = (route("10s", 1), route("'10'", 2));
    let live =
        after(&[&[("x.yaml", good)], &[("x.yaml", bad.clone())], &[("x.yaml", bad.clone())]]);
    assert_eq!(weight(&live), 1);
    let complaint = &live.complaints()[0];
    assert_eq!(complaint.field, "spec.rules[0].timeouts.request");
    assert!(
        complaint.reason.contains("10s or 1h30m") && complaint.reason.ends_with(LAST_GOOD_VERSION)
    );
    assert_eq!(live.complaints().len(), 1);
    // At a start there is nothing better; another edit is no worse than that.
    let cold = after(&[&[("x.yaml", bad.clone())]]);
    assert_eq!((weight(&cold), cold.complaints()[0].severity), (2, Severity::Warning));
    let cold = after(&[&[("x.yaml", bad)], &[("x.yaml", route("'11'", 3))]]);
    assert_eq!(weight(&cold), 3);
}

/// Istio's validation would refuse these, which no schema does.
#[test]
fn a_policy_whose_edit_means_nothing_keeps_its_last_good_version() {
    let policy = |rule: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\n\
             spec: {{action: DENY, rules: [{rule}]}}\n"
        )
    };
    let operation = |text: &str| policy(&format!("{{to: [{{operation: {{{text}}}}}]}}"));
    let good = operation("ports: ['80']");
    let keeps = |objects: &Objects| {
        let policy = objects.get::<AuthorizationPolicy>(&key("shop/p")).unwrap();
        let rule = &policy.spec.rules[0];
        rule.to.as_ref().is_some_and(|to| to[0].operation.ports == ["80"])
    };
    for bad in [
        operation("ports: [http]"),
        operation("paths: ['/{name}']"),
        operation(""),
        policy("{from: []}"),
        policy("{from: [{source: {ipBlocks: [10.0.0.0/40]}}]}"),
        policy("{when: [{key: source.ip}]}"),
    ] {
        let states: &[&[(&str, String)]] =
            &[&[("x.yaml", good.clone())], &[("x.yaml", bad.clone())], &[("x.yaml", bad.clone())]];
        let live = after(states);
        assert!(keeps(&live), "{bad}");
        let [complaint] = live.complaints() else { panic!("{bad}: {:?}", live.complaints()) };
        assert!(complaint.reason.ends_with(LAST_GOOD_VERSION), "{complaint}");
        // At a start it denies, which the translation says.
        let cold = after(&states[1..]);
        assert!(!keeps(&cold) && cold.complaints().is_empty(), "{bad}");
    }
    // What Istio would carry out is meant, so it denies at once.
    let unsupported = policy("{from: [{source: {requestPrincipals: ['*']}}]}");
    assert!(!keeps(&after(&[&[("x.yaml", good)], &[("x.yaml", unsupported)]])));
}

const LAST_GOOD_VERSION: &str = "its last good version stays in force";

/// What Istio's validation would reject, though each half of it can be read.
#[test]
fn an_entry_whose_edit_means_nothing_keeps_its_last_good_version() {
    let entry = |spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e, namespace: n}}\n\
             spec: {{hosts: [x.example], {spec}}}\n"
        )
    };
    let ports = "ports: [{number: 80, name: http, protocol: HTTP}]";
    let good = entry(&format!("resolution: STATIC, {ports}, endpoints: [{{address: 192.0.2.1}}]"));
    for (bad, field) in [
        (good.replace("x.example", "'x.example:80'"), "spec.hosts[0]"),
        (good.replace("protocol: HTTP", "protocol: HTPP"), "spec.ports[0].protocol"),
        (good.replace("192.0.2.1", "y.example"), "spec.endpoints[0].address"),
        (good.replace("192.0.2.1", "'unix:///x'"), "spec.endpoints[0].address"),
        (good.replace("192.0.2.1", "192.0.2.2, ports: {web: 80}"), "spec.endpoints[0].ports[web]"),
        (good.replace("STATIC", "STATIC, addresses: [192.0.2.300]"), "spec.addresses[0]"),
    ] {
        let states: [&[(&str, String)]; 2] =
            [&[("a.yaml", good.clone())], &[("a.yaml", bad.clone())]];
        let objects = after(&states);
        let key = ObjectKey::new("n", "e");
        let entry: &crate::source::objects::ServiceEntry = objects.get(&key).unwrap();
        assert_eq!(entry.spec.endpoints[0].address, "192.0.2.1", "{bad}");
        let kept = |it: &Complaint| it.field == field && it.reason.contains("last good version");
        assert!(objects.complaints().iter().any(kept), "{:?}", objects.complaints());
    }
}

/// An edit to another name, namespace or kind that fails: what the document held stays until it can be read, or is gone.
#[test]
fn a_refused_edit_to_another_object_loses_no_policy() {
    let bad = |text: String| text.replace("spec:", "spcc:");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {a: 1}}\n";
    let deny = key("shop/deny");
    for edit in [
        bad(policy("other")),
        bad(policy("deny").replace("shop", "outlet")),
        bad(policy("deny").replace("AuthorizationPolicy", "PeerAuthentication")),
        pod.to_owned(),
    ] {
        let good = [("a.yaml", policy("deny"))];
        let edited = [("a.yaml", edit.clone())];
        for states in [vec![&good[..], &edited], vec![&good, &edited, &edited]] {
            let objects = after(&states);
            assert!(objects.get::<AuthorizationPolicy>(&deny).is_some(), "{edit}");
        }
        let objects = after(&[&good, &edited, &[("a.yaml", policy("other"))]]);
        assert!(objects.get::<AuthorizationPolicy>(&deny).is_none(), "{edit}");
    }
    // What is deleted beside an object that has been refused before goes.
    let beside = |first: &str| [("a.yaml", format!("{first}{}", bad(policy("broken"))))];
    let objects = after(&[&beside(&format!("{}---\n", policy("deny"))), &beside("")]);
    assert!(objects.get::<AuthorizationPolicy>(&deny).is_none());
}
