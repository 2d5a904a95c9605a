//! Rules with a `workloadSelector`.

use super::*;

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: red, namespace: clients, labels: {app: client, colour: red}}
---
apiVersion: v1
kind: Pod
metadata: {name: blue, namespace: clients, labels: {app: client, colour: blue}}
---
apiVersion: v1
kind: Pod
metadata: {name: red, namespace: elsewhere, labels: {app: client, colour: red}}
---
";

const EXACT: &str = "web.shop.svc.cluster.local";

fn selecting(name: &str, host: &str, how: &str, labels: &str) -> String {
    rule(
        "clients",
        name,
        &simple(host, how, &format!(", workloadSelector: {{matchLabels: {{{labels}}}}}")),
    )
}

#[test]
fn a_rule_holds_for_the_clients_that_it_selects_in_its_namespace() {
    let red = || selecting("z", EXACT, "RANDOM", "colour: red");
    let plain = |host: &str| rule("clients", "a", &simple(host, "ROUND_ROBIN", ""));
    let of_service = || rule("shop", "a", &simple("web", "PASSTHROUGH", ""));
    // For clients/red, clients/blue, and elsewhere/red.
    for (rules, expected) in [
        (vec![red()], [Some("RANDOM"), None, None]),
        (vec![red(), of_service()], [Some("RANDOM"), Some("PASSTHROUGH"), Some("PASSTHROUGH")]),
        (vec![red(), plain(EXACT)], [Some("RANDOM"), Some("ROUND_ROBIN"), None]),
        // The most specific host comes first, as among rules without a selector.
        (vec![red(), plain("'*.local'")], [Some("RANDOM"), Some("ROUND_ROBIN"), None]),
        (
            vec![selecting("z", "'*.local'", "RANDOM", "colour: red"), plain(EXACT)],
            [Some("ROUND_ROBIN"), Some("ROUND_ROBIN"), None],
        ),
        (
            vec![selecting("y", "'*.local'", "PASSTHROUGH", "app: client"), red()],
            [Some("RANDOM"), Some("PASSTHROUGH"), None],
        ),
        // Of several that select a client the first by name, where all are equally old.
        (
            vec![red(), selecting("b", EXACT, "PASSTHROUGH", "app: client")],
            [Some("PASSTHROUGH"), Some("PASSTHROUGH"), None],
        ),
        // An empty selector selects nothing in particular.
        (
            vec![rule("clients", "a", &simple(EXACT, "RANDOM", ", workloadSelector: {}"))],
            [Some("RANDOM"), Some("RANDOM"), None],
        ),
    ] {
        let text = rules.concat();
        let translation = translated(&format!("{SERVICE}{PODS}{text}"));
        let mesh = &translation.mesh;
        let found = [("clients", "red"), ("clients", "blue"), ("elsewhere", "red")].map(
            |(namespace, name)| {
                let is = |it: &&std::sync::Arc<crate::model::Workload>| {
                    it.key.namespace == namespace && it.key.name == name
                };
                let client = mesh.workloads.iter().find(is).unwrap();
                let destination = mesh.services[0].destination(client, 80)?;
                Some(match destination.balancer()? {
                    Balancer::Random => "RANDOM",
                    Balancer::RoundRobin => "ROUND_ROBIN",
                    Balancer::Passthrough => "PASSTHROUGH",
                    _ => "other",
                })
            },
        );
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn rules_with_the_same_host_and_selector_conflict_and_export_has_no_effect() {
    let two = [
        selecting("a", EXACT, "RANDOM", "colour: red"),
        selecting("b", EXACT, "ROUND_ROBIN", "colour: red"),
        selecting("c", EXACT, "ROUND_ROBIN", "colour: blue"),
    ];
    assert_eq!(of(&two.concat()).1, [(Severity::Warning, String::new())]);
    let exported =
        selecting("a", EXACT, "RANDOM", "colour: red").replace("host:", "exportTo: ['*'], host:");
    assert_eq!(of(&exported).1, [(Severity::Warning, "spec.exportTo".to_owned())]);
    assert_eq!(holds(&of(&exported).0, "clients"), None);
}

/// Whoever is selected is found anew when the rule or a pod's labels change.
#[test]
fn selections_follow_changes() {
    let translator_sees = |labels: &str, selector: &str| {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: clients, labels: {{{labels}}}}}\n---\n"
        );
        let text = format!("{SERVICE}{pod}{}", selecting("a", EXACT, "RANDOM", selector));
        translated(&text).mesh.workloads[0].rules.clone()
    };
    assert_eq!(translator_sees("colour: red", "colour: red"), ["a"]);
    assert!(translator_sees("colour: blue", "colour: red").is_empty());
}
