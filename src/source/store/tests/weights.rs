//! What regular expressions may take: of one object, and of a namespace's.

use serde_json::{Value, json};

use super::*;
use crate::base::ObjectKey;
use crate::source::objects::{HttpRoute, Kind};
use crate::source::{Condition, ConditionType};

/// Some hundreds of KiB.
const HEAVY: &str = r"/\w+/\w+";

fn object(kind: Kind, key: &str, second: usize, spec: Value) -> Value {
    let key = super::key(key);
    json!({
        "apiVersion": format!("{}/{}", kind.group(), kind.versions()[0]),
        "kind": kind.name(),
        "metadata": {
            "name": &*key.name,
            "namespace": &*key.namespace,
            "creationTimestamp": format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60),
        },
        "spec": spec,
    })
}

/// A route with so many expressions.
fn route(key: &str, second: usize, count: usize) -> Value {
    let path = json!({"path": {"type": "RegularExpression", "value": HEAVY}});
    let rules: Vec<_> = (0..count).map(|_| json!({"matches": [path]})).collect();
    object(Kind::HTTPRoute, key, second, json!({"rules": rules}))
}

/// What one of them weighs.
fn weight() -> usize {
    Kind::HTTPRoute.read(&route("shop/r", 0, 1)).unwrap().weight()
}

fn id(key: &str) -> Id {
    (Kind::HTTPRoute, super::key(key))
}

fn apply(objects: &mut Objects, value: &Value) -> Vec<String> {
    let kind = Kind::named(value["kind"].as_str().unwrap()).unwrap();
    let metadata = |field: &str| value["metadata"][field].as_str().unwrap();
    let key = ObjectKey::new(metadata("namespace"), metadata("name"));
    let changed = objects.apply((kind, key), kind.read(value), 1, || Some(value.clone()));
    changed.into_iter().map(|(_, key)| key.name.to_string()).collect()
}

fn names(objects: &Objects) -> Vec<String> {
    objects.all::<HttpRoute>().map(|(key, _)| key.name.to_string()).collect()
}

/// Every place where an object may have expressions: too many of them refuse it, with the field and the reason, and before they are
/// compiled.
#[test]
fn an_object_with_too_many_expressions_is_refused() {
    let many = |make: &dyn Fn(usize) -> Value| (0..2_000).map(make).collect::<Vec<Value>>();
    let header = |index: usize| json!({"name": format!("x-{index}"), "type": "RegularExpression", "value": HEAVY});
    let text = |_| json!({"regex": HEAVY});
    let to = json!([{"destination": {"host": "a"}}]);
    let virtual_rule = |more: (&str, Value)| {
        let mut rule = json!({"route": to});
        rule[more.0] = more.1;
        rule
    };
    let expression = format!("request.path.matches('{}')", HEAVY.replace('\\', "\\\\"));
    let target = json!([{"kind": "Service", "name": "a"}]);
    for (kind, spec, field) in [
        (
            Kind::HTTPRoute,
            json!({"rules": [{"matches": [{"headers": many(&header)}]}]}),
            "spec.rules[0].matches[0].headers",
        ),
        (
            Kind::HTTPRoute,
            json!({"rules": [{"matches": [{"queryParams": many(&header)}]}]}),
            "spec.rules[0].matches[0].queryParams",
        ),
        (
            Kind::GRPCRoute,
            json!({"rules": [{"matches": many(&|_| json!({"method": {"type": "RegularExpression", "service": HEAVY}}))}]}),
            "spec.rules[0].matches",
        ),
        (
            Kind::VirtualService,
            json!({"hosts": ["a"], "http": many(&|index| virtual_rule(("match", json!([{"uri": text(index)}]))))}),
            "spec",
        ),
        (
            Kind::VirtualService,
            json!({"hosts": ["a"], "http": many(&|_| virtual_rule(("rewrite", json!({"uriRegexRewrite": {"match": HEAVY, "rewrite": "/"}}))))}),
            "spec",
        ),
        (
            Kind::VirtualService,
            json!({"hosts": ["a"], "http": [virtual_rule(("corsPolicy", json!({"allowOrigins": many(&text)})))]}),
            "spec",
        ),
        (
            Kind::TrafficPolicy,
            json!({"targetRefs": target, "rateLimit": {"limits": many(&|_| json!({
                "local": {
                    "requests": 1, "interval": "1s",
                    "matches": [{"path": {"type": "RegularExpression", "value": HEAVY}}],
                },
            }))}}),
            "spec",
        ),
        (
            Kind::Telemetry,
            json!({"accessLogging": many(&|_| json!({"filter": {"expression": expression}}))}),
            "spec.accessLogging",
        ),
    ] {
        let value = object(kind, "shop/many", 0, spec);
        let error = kind.read(&value).map(|it| it.weight()).expect_err(kind.name());
        assert!(error.field.starts_with(field), "{kind}: {error:?}");
        assert!(error.reason.contains("regular expressions of this object"), "{kind}: {error:?}");
        let mut objects = Objects::default();
        apply(&mut objects, &value);
        let [complaint] = objects.complaints() else { panic!("{:?}", objects.complaints()) };
        assert!(complaint.reason.contains("not in force"), "{complaint}");
    }
}

#[test]
fn an_object_that_gets_too_many_keeps_its_last_good_version() {
    let mut objects = Objects::default();
    apply(&mut objects, &route("shop/r", 0, 1));
    apply(&mut objects, &route("shop/r", 0, 2_000));
    let kept = objects.get::<HttpRoute>(&key("shop/r")).unwrap();
    assert_eq!(kept.spec.rules.len(), 1);
    assert!(objects.complaints()[0].reason.contains("last good version"));
}

/// What is not in force takes no more than what is written, and what is in force waits for nothing.
fn held_alone_are_compiled(objects: &Objects) {
    for (id, held) in &objects.held {
        if let Some((regexes, _)) = held.object.regexes().filter(|(it, _)| it.weight() > 0) {
            assert_eq!(regexes.are_laid_down(), held.over, "{id:?}");
        }
    }
}

/// The youngest objects of the namespace that has too many, whatever the order in which they are heard of, and nobody else's.
#[test]
fn the_youngest_objects_of_a_namespace_are_left_out() {
    let each = 10;
    let fit = super::super::weights::OF_NAMESPACE / (each * weight());
    let shop: Vec<Value> =
        (0..fit + 3).map(|at| route(&format!("shop/r-{at:03}"), at, each)).collect();
    let others = [
        route("other/r", 900, each),
        object(Kind::HTTPRoute, "shop/plain", 901, json!({"rules": [{}]})),
    ];
    let in_force: Vec<String> = ["plain".to_owned(), "r".to_owned()]
        .into_iter()
        .chain((0..fit).map(|at| format!("r-{at:03}")))
        .collect();
    for reversed in [false, true] {
        let mut all: Vec<&Value> = shop.iter().chain(&others).collect();
        if reversed {
            all.reverse();
        }
        let mut objects = Objects::default();
        let changed: Vec<_> = all.iter().flat_map(|value| apply(&mut objects, value)).collect();
        let mut now = names(&objects);
        now.sort();
        assert_eq!(now, in_force, "{reversed}");
        held_alone_are_compiled(&objects);
        // Each that was in force before it was left out, or the other way round, is told of.
        assert!(changed.len() >= 3, "{changed:?}");
        let told = objects.complaints();
        assert_eq!(told.len(), 3, "{told:?}");
        let accepted = Condition::of(ConditionType::Accepted, told[0].condition.unwrap().reason);
        assert!(told.iter().all(|it| it.condition == Some(accepted) && it.field == "spec"));
        assert!(told[0].reason.contains("older objects come first"), "{}", told[0]);
        // What goes makes room for the oldest of them.
        let mut changed = objects.remove(&id("shop/r-000"));
        changed.sort();
        assert_eq!(changed, [id("shop/r-000"), id(&format!("shop/r-{fit:03}"))]);
        assert_eq!(objects.complaints().len(), 2);
        held_alone_are_compiled(&objects);
        // One that gets heavier may push out younger ones, and not older ones.
        let heavier = route(&format!("shop/r-{fit:03}"), fit, each + 1);
        apply(&mut objects, &heavier);
        assert!(objects.get::<HttpRoute>(&key(&format!("shop/r-{:03}", fit - 1))).is_some());
        let all: Vec<Id> = objects.held.keys().cloned().collect();
        all.iter().for_each(|id| _ = objects.remove(id));
        assert!(objects.complaints().is_empty() && objects.weights.is_empty());
    }
}

/// Of files, too.
#[test]
fn files_have_the_same_budget() {
    let each = 10;
    let fit = super::super::weights::OF_NAMESPACE / (each * weight());
    let text: Vec<String> =
        (0..fit + 2).map(|at| route(&format!("shop/r-{at:03}"), at, each).to_string()).collect();
    let objects = after(&[&[("x.yaml", text.join("\n---\n"))]]);
    assert_eq!(names(&objects).len(), fit);
    held_alone_are_compiled(&objects);
    assert_eq!(objects.complaints().len(), 2, "{:?}", objects.complaints());
    // Read again, over the set that they gave.
    let states =
        [&[("x.yaml", text.join("\n---\n"))][..], &[("x.yaml", text[1..].join("\n---\n"))]];
    assert_eq!(names(&after(&states)).len(), fit);
}
