use std::time::Duration;

use crate::source::Severity;
use crate::source::tests::translated;
use crate::traffic::{
    Balancer, HttpVersion, Keepalive, Limits, OutlierDetection, PerConnection, Pings, Traffic,
    Warmup,
};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: admin, port: 81}]}
---
";

fn rule(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {spec}\n---\n"
    )
}

fn of(rules: &str) -> (Traffic, Vec<(Severity, String)>) {
    let translation = translated(&format!("{SERVICE}{rules}"));
    let of_rules = translation.complaints.iter().filter(|it| it.kind == "DestinationRule");
    let told = of_rules.map(|it| (it.severity, it.field.clone())).collect();
    (translation.mesh.services[0].traffic.clone(), told)
}

/// The balancer for a client of a namespace, by whose rule holds.
fn holds(traffic: &Traffic, namespace: &str) -> Option<&'static str> {
    Some(match traffic.of_client(namespace, &[], 80)?.balancer()? {
        Balancer::Random => "RANDOM",
        Balancer::RoundRobin => "ROUND_ROBIN",
        Balancer::LeastRequest => "LEAST_REQUEST",
        Balancer::Passthrough => "PASSTHROUGH",
        Balancer::PeakEwma => "PEAK_EWMA",
        Balancer::Hash(_) => "hash",
    })
}

fn simple(host: &str, how: &str, more: &str) -> String {
    format!("{{host: {host}, trafficPolicy: {{loadBalancer: {{simple: {how}}}}}{more}}}")
}

#[test]
fn the_clients_namespace_then_the_services_then_the_root() {
    let exact = "web.shop.svc.cluster.local";
    let own = rule("shop", "own", &simple("web", "RANDOM", ""));
    let root = rule("istio-system", "root", &simple("'*.local'", "ROUND_ROBIN", ""));
    let clients = rule("clients", "theirs", &simple(exact, "PASSTHROUGH", ""));
    let hidden = rule("shop", "own", &simple("web", "RANDOM", ", exportTo: ['.']"));
    let given = rule("shop", "own", &simple("web", "RANDOM", ", exportTo: ['.', a]"));
    let nobody = rule("shop", "own", &simple("web", "RANDOM", ", exportTo: ['~']"));
    let elsewhere = rule("clients", "theirs", &simple(exact, "PASSTHROUGH", ", exportTo: [shop]"));
    let short = rule("clients", "theirs", &simple("web", "PASSTHROUGH", ""));
    for (rules, expected) in [
        (vec![&own], [Some("RANDOM"), Some("RANDOM"), Some("RANDOM")]),
        (vec![&root], [Some("ROUND_ROBIN"), Some("ROUND_ROBIN"), Some("ROUND_ROBIN")]),
        (vec![&own, &root], [Some("RANDOM"), Some("RANDOM"), Some("RANDOM")]),
        (vec![&own, &root, &clients], [Some("RANDOM"), Some("PASSTHROUGH"), Some("RANDOM")]),
        (vec![&clients], [None, Some("PASSTHROUGH"), None]),
        (vec![&hidden, &root], [Some("RANDOM"), Some("ROUND_ROBIN"), Some("ROUND_ROBIN")]),
        (vec![&given, &root], [Some("RANDOM"), Some("ROUND_ROBIN"), Some("RANDOM")]),
        (vec![&nobody], [None, None, None]),
        // Exported away from its own clients, and another service's short name.
        (vec![&elsewhere], [None, None, None]),
        (vec![&short], [None, None, None]),
    ] {
        let text: String = rules.iter().map(|it| it.as_str()).collect();
        let (traffic, told) = of(&text);
        let found = ["shop", "clients", "a"].map(|namespace| holds(&traffic, namespace));
        assert_eq!(found, expected, "{text}");
        assert!(told.is_empty(), "{told:?}");
    }
}

#[test]
fn the_most_specific_host_then_the_oldest_rule_holds() {
    let rules = [
        rule("shop", "b", &simple("'*.cluster.local'", "RANDOM", "")),
        rule("shop", "c", &simple("'*.shop.svc.cluster.local'", "ROUND_ROBIN", "")),
    ];
    assert_eq!(holds(&of(&rules.concat()).0, "shop"), Some("ROUND_ROBIN"));
    let rules = [rules.concat(), rule("shop", "a", &simple("web", "PASSTHROUGH", ""))];
    assert_eq!(holds(&of(&rules.concat()).0, "shop"), Some("PASSTHROUGH"));
    let later = rule("shop", "z", &simple("WEB.shop.svc.cluster.local.", "RANDOM", ""));
    let (traffic, told) = of(&[rules.concat(), later].concat());
    assert_eq!(holds(&traffic, "shop"), Some("PASSTHROUGH"));
    assert_eq!(told, [(Severity::Warning, String::new())], "it conflicts");
}

#[test]
fn a_port_with_settings_of_its_own_inherits_none() {
    let policy = "loadBalancer: {simple: RANDOM}, outlierDetection: {}";
    let ports = "portLevelSettings: [{port: {number: 81}, loadBalancer: {simple: ROUND_ROBIN}}]";
    let (traffic, told) =
        of(&rule("shop", "a", &format!("{{host: web, trafficPolicy: {{{policy}, {ports}}}}}")));
    assert!(told.is_empty(), "{told:?}");
    let on = |port| traffic.of_client("any", &[], port).unwrap();
    assert_eq!((on(80).balancer(), on(80).listens()), (Some(&Balancer::Random), true));
    assert_eq!((on(81).balancer(), on(81).listens()), (Some(&Balancer::RoundRobin), false));
}

/// The policy as it is dumped; `null` where nothing holds.
fn dumped(policy: &str) -> (serde_json::Value, Vec<String>) {
    let (traffic, told) =
        of(&rule("shop", "a", &format!("{{host: web, trafficPolicy: {policy}}}")));
    let dumped = traffic.of_client("any", &[], 80).map(|it| serde_json::to_value(it).unwrap());
    let told =
        told.into_iter().map(|(_, field)| field.replace("spec.trafficPolicy.", "")).collect();
    (dumped.unwrap_or_default()["policy"].clone(), told)
}

mod bounds;
mod default;
mod fields;
mod places;
mod selecting;
mod subsets;
