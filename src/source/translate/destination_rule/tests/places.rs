//! `localityLbSetting` of rules and of MeshConfig, and what comes before what.

use serde_json::{Value, json};

use super::*;

fn mesh_config(setting: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
         localityLbSetting: {setting}\n---\n"
    )
}

/// The setting in force for a port, and what was said of objects.
fn setting(text: &str, service: &str) -> (Value, Vec<String>) {
    let translation = translated(&format!("{service}{text}"));
    let told = translation
        .complaints
        .iter()
        .filter(|it| it.kind == "DestinationRule" || it.kind == "ConfigMap");
    let told = told.map(|it| it.field.replace("spec.trafficPolicy.loadBalancer.", "")).collect();
    let destination = translation.mesh.services[0].traffic.of_client("any", &[], 80);
    let dumped = destination.map(|it| serde_json::to_value(&**it).unwrap()).unwrap_or_default();
    (dumped["policy"]["locality"].clone(), told)
}

fn of_rule(setting: &str, more: &str) -> String {
    rule(
        "shop",
        "a",
        &format!(
            "{{host: web, trafficPolicy: {{loadBalancer: {{localityLbSetting: {setting}}}{more}}}}}"
        ),
    )
}

const OUTLIERS: &str = ", outlierDetection: {}";

#[test]
fn every_field_is_carried_out_or_named() {
    let failover = |labels: Value, by_place: bool, regions: Value| {
        let mut written = json!({"by_place": by_place});
        for (name, list) in [("labels", labels), ("regions", regions)] {
            if list != json!([]) {
                written[name] = list;
            }
        }
        json!({"Failover": written})
    };
    let shares = |to: Value| json!({"Distribute": [{"from": "r/z/*", "to": to}]});
    let default = || failover(json!([]), true, json!([]));
    for (written, more, expected, told) in [
        ("{}", OUTLIERS, default(), &[][..]),
        ("{enabled: true}", OUTLIERS, default(), &[]),
        ("{enabled: false}", OUTLIERS, json!("Off"), &[]),
        ("{enabled: false, failover: [{from: r, to: q}]}", "", json!("Off"), &[]),
        // Without outlier detection nothing fails over, nor does trafficDistribution hold.
        ("{}", "", json!("Off"), &["localityLbSetting"]),
        (
            "{failover: [{from: r, to: q}]}",
            OUTLIERS,
            failover(json!([]), true, json!([["r", "q"]])),
            &[],
        ),
        (
            "{failover: [{from: 'r*', to: q}]}",
            OUTLIERS,
            failover(json!([]), true, json!([["r*", "q"]])),
            &["localityLbSetting.failover[0]"],
        ),
        (
            "{failoverPriority: [a, 'b=c']}",
            OUTLIERS,
            failover(json!([["a", null], ["b", "c"]]), false, json!([])),
            &[],
        ),
        (
            "{failoverPriority: [a], failover: [{from: r, to: q}]}",
            OUTLIERS,
            failover(json!([["a", null]]), true, json!([["r", "q"]])),
            &[],
        ),
        (
            "{distribute: [{from: r/z/*, to: {'*': 20, r/z/*: 80}}]}",
            "",
            shares(json!([["r/z/*", 80], ["*/*/*", 20]])),
            &[],
        ),
        (
            "{distribute: [{from: r/z/*, to: {r/z/*: 80}}]}",
            OUTLIERS,
            shares(json!([["r/z/*", 80]])),
            &["localityLbSetting.distribute[0].to"],
        ),
        (
            "{distribute: [{from: r/z/*, to: {r/z/*: 100}}], failover: [{from: r, to: q}], failoverPriority: [a]}",
            OUTLIERS,
            shares(json!([["r/z/*", 100]])),
            &["localityLbSetting.failover", "localityLbSetting.failoverPriority"],
        ),
    ] {
        let (found, complaints) = setting(&of_rule(written, more), SERVICE);
        assert_eq!(found, expected, "{written}{more}");
        assert_eq!(complaints, told, "{written}{more}");
    }
}

/// Istio's `GetEffectiveLbSetting`: the rule, then the Service, then the mesh.
#[test]
fn the_rule_then_the_service_then_the_mesh() {
    let near = &SERVICE.replace("spec: {", "spec: {trafficDistribution: PreferSameZone, ");
    let outliers = rule("shop", "a", "{host: web, trafficPolicy: {outlierDetection: {}}}");
    let shares = mesh_config("{distribute: [{from: '*', to: {'*': 100}}]}");
    let off = mesh_config("{enabled: false}");
    let wide = json!({"Distribute": [{"from": "*/*/*", "to": [["*/*/*", 100]]}]});
    let default = json!({"Failover": {"by_place": true}});
    for (text, service, expected) in [
        // Outlier detection makes near places come first: the mesh's setting is on by default.
        (outliers.clone(), SERVICE, default.clone()),
        (outliers.clone(), near, Value::Null),
        (format!("{off}{outliers}"), SERVICE, Value::Null),
        (String::new(), SERVICE, Value::Null),
        // Shares need no outlier detection, nor any rule.
        (shares.clone(), SERVICE, wide.clone()),
        (shares.clone(), near, Value::Null),
        (format!("{shares}{outliers}"), SERVICE, wide),
        (format!("{shares}{outliers}"), near, Value::Null),
        (format!("{shares}{}", of_rule("{}", OUTLIERS)), near, default),
        (format!("{shares}{}", of_rule("{enabled: false}", "")), near, json!("Off")),
    ] {
        let (found, told) = setting(&text, service);
        assert_eq!(found, expected, "{text}\n{service}");
        assert!(told.is_empty(), "{told:?}");
    }
    let wrong = mesh_config("{distribute: [{from: '*', to: {'*': 50}}]}");
    let told = setting(&wrong, SERVICE).1;
    assert_eq!(told, ["data.mesh, localityLbSetting.distribute[0].to"]);
}

const PODS: &str = "
apiVersion: v1
kind: Node
metadata: {name: n, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z}}
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: shop, labels: {app: web, version: v1, other: x}}
spec: {nodeName: n, containers: [{name: c, ports: [{containerPort: 80}]}]}
status: {podIP: 10.1.0.1, phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: shop}
spec:
  hosts: [out.example]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 192.0.2.1, labels: {version: v2, other: y}, locality: q/y}]
---
";

/// Only labels that some rule compares are kept.
#[test]
fn labels_that_are_compared_are_known_of_clients_and_endpoints() {
    let selecting = SERVICE.replace("spec: {", "spec: {selector: {app: web}, ");
    let labels = |rules: &str| {
        let mesh = translated(&format!("{selecting}{PODS}{rules}")).mesh;
        let of_endpoints = mesh.services.iter().map(|it| &it.endpoints[0].labels);
        let all: Vec<_> = [&mesh.workloads[0].labels].into_iter().chain(of_endpoints).collect();
        serde_json::to_value(all).unwrap()
    };
    assert_eq!(labels(""), json!([{}, {}, {}]));
    let zone = "topology.kubernetes.io/zone";
    let rules = of_rule(
        &format!("{{failoverPriority: [version, {zone}, kubernetes.io/hostname]}}"),
        OUTLIERS,
    );
    let pod = json!({"version": "v1", zone: "z", "kubernetes.io/hostname": "n"});
    assert_eq!(labels(&rules), json!([pod, pod, {"version": "v2", zone: "y"}]));
}
