//! Subsets and their policies.

use super::*;

/// The policy of a subset on a port, as it is dumped.
fn of_subset(spec: &str, subset: &str, port: u16) -> serde_json::Value {
    let (traffic, told) = of(&rule("shop", "a", spec));
    assert!(told.is_empty(), "{told:?}");
    let found = traffic.subsets_of("any", &[])[subset].on(port);
    let dumped = found.map(|it| serde_json::to_value(it).unwrap()["policy"].take());
    dumped.unwrap_or_default()
}

/// As Istio merges them (`MergeSubsetTrafficPolicy`): field by field, each as a whole, and settings of a port inherit nothing.
#[test]
fn a_subsets_policy_replaces_the_rules_field_by_field() {
    let spec = |subset: &str| {
        format!(
            "{{host: web, trafficPolicy: {{loadBalancer: {{simple: RANDOM}}, connectionPool: {{tcp: {{maxConnections: 7}}}}, \
             portLevelSettings: [{{port: {{number: 81}}, loadBalancer: {{simple: PASSTHROUGH}}}}]}}, \
             subsets: [{{name: v1, labels: {{version: v1}}, trafficPolicy: {subset}}}]}}"
        )
    };
    let found = |subset: &str, port: u16| {
        let policy = of_subset(&spec(subset), "v1", port);
        (policy["balancer"].clone(), policy["limits"]["max_connections"].clone())
    };
    let none = serde_json::Value::Null;
    let some = |text: &str| serde_json::Value::from(text);
    let many = |number: u32| serde_json::Value::from(number);
    for (subset, port, expected) in [
        ("{}", 80, (some("Random"), many(7))),
        ("{}", 81, (some("Passthrough"), none.clone())),
        ("{loadBalancer: {simple: ROUND_ROBIN}}", 80, (some("RoundRobin"), many(7))),
        ("{loadBalancer: {simple: ROUND_ROBIN}}", 81, (some("RoundRobin"), none.clone())),
        ("{connectionPool: {tcp: {connectTimeout: 1s}}}", 80, (some("Random"), none.clone())),
        ("{connectionPool: {}}", 80, (some("Random"), none.clone())),
        (
            "{portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 3}}}]}",
            80,
            (none.clone(), many(3)),
        ),
    ] {
        assert_eq!(found(subset, port), expected, "{subset} {port}");
    }
}

#[test]
fn subsets_of_rules_with_the_same_host_are_merged() {
    let one = |subset: &str, more: &str| {
        format!("{{host: web, subsets: [{{name: {subset}, labels: {{version: {subset}}}}}]{more}}}")
    };
    let random = ", trafficPolicy: {loadBalancer: {simple: RANDOM}}";
    let named = |rules: &[(&str, String)]| {
        let rules: Vec<String> =
            rules.iter().map(|(name, spec)| rule("shop", name, spec)).collect();
        let (traffic, told) = of(&rules.concat());
        let names: Vec<String> =
            traffic.subsets_of("any", &[]).keys().map(ToString::to_string).collect();
        let fields: Vec<String> = told.into_iter().map(|(_, field)| field).collect();
        (names.join(" "), holds(&traffic, "any"), fields.join(" "))
    };
    for (rules, expected) in [
        (vec![("a", one("v1", "")), ("b", one("v2", ""))], ("v1 v2", None, "")),
        (vec![("a", one("v1", "")), ("b", one("v2", random))], ("v1 v2", Some("RANDOM"), "")),
        (
            vec![("a", simple("web", "PASSTHROUGH", "")), ("b", one("v2", random))],
            ("v2", Some("PASSTHROUGH"), "spec.trafficPolicy"),
        ),
        (vec![("a", one("v1", "")), ("b", one("v1", ""))], ("v1", None, "spec.subsets")),
        (vec![("a", one("v1", "")), ("b", one("v2", ", exportTo: ['.']"))], ("v1", None, "")),
    ] {
        let (names, holds, fields) = named(&rules);
        assert_eq!((&*names, holds, &*fields), expected, "{rules:?}");
    }
}

#[test]
fn a_subset_has_a_name_of_its_own_and_there_are_not_too_many() {
    let named = |names: &[&str]| {
        let subsets: Vec<String> = names.iter().map(|name| format!("{{name: '{name}'}}")).collect();
        let (traffic, told) =
            of(&rule("shop", "a", &format!("{{host: web, subsets: [{}]}}", subsets.join(", "))));
        let fields: Vec<String> = told.into_iter().map(|(_, field)| field).collect();
        (traffic.subsets_of("any", &[]).len(), fields.join(" "))
    };
    assert_eq!(
        named(&["a", "b", "a", ""]),
        (2, "spec.subsets[2].name spec.subsets[3].name".into())
    );
    let many: Vec<String> = (0..200).map(|number| format!("v{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(named(&many), (128, "spec.subsets[128]".into()));
}
