//! Istio's "Telemetry" reference, row by row: levels, fields, and what is told.

use serde_json::json;

use crate::model::{Observation, Observed, Sides};
use crate::source::tests::translated;
use crate::telemetry::{Metric, MetricSet};
use crate::trace::{Parent, Protocol, Rate, TagValue, Tracing};

const MESH: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    enableTracing: true
    defaultProviders: {tracing: [otel]}
    extensionProviders:
    - name: otel
      opentelemetry: {service: observability/otel.observability.svc.cluster.local, port: 4317}
    - name: web
      opentelemetry:
        service: otel.example
        port: 4318
        http: {path: /otlp, timeout: 3s, headers: [{name: x-key, value: secret}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, istio.io/dataplane-mode: ambient}}
spec: {serviceAccountName: web, nodeName: node, containers: [{name: a}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
";

/// A Telemetry, by `namespace/name`.
fn telemetry(key: &str, spec: &str) -> String {
    let (namespace, name) = key.split_once('/').unwrap();
    format!(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

/// What the mesh's objects and these say, and the complaints about Telemetry: their fields.
fn with(objects: &[String]) -> (Observation, Vec<String>) {
    let translation = translated(&[MESH, &objects.concat()].concat());
    let ours = translation.complaints.iter().filter(|it| it.kind == "Telemetry");
    (
        Observation::clone(&translation.mesh.observation),
        ours.map(|it| it.field.to_string()).collect(),
    )
}

fn both(sides: &Sides) -> &Tracing {
    assert_eq!(sides.client, sides.server);
    sides.client.tracing.as_ref().expect("it is traced")
}

fn percent(percent: f64) -> Rate {
    Rate::of_percentage(percent)
}

/// The rules of the client's side, as they are dumped.
fn rules(sides: &Sides) -> serde_json::Value {
    serde_json::to_value(&sides.client.rules).expect("JSON")
}

#[test]
fn what_has_no_effect_is_told() {
    for (objects, fields) in [
        (
            vec![telemetry(
                "shop/a",
                "{metrics: [{providers: [{name: otel}], reportingInterval: 5s, overrides: [{tagOverrides: {'a b': {operation: REMOVE}, \
                 b: {value: request.hosts}, c: {}, source_app: {value: '\"x\"'}, source_version: {operation: REMOVE}}}, \
                 {match: {metric: TCP_SENT_BYTES}, disabled: true}, {match: {customMetric: x}, disabled: true}]}]}",
            )],
            vec![
                "spec.metrics[0].overrides[0].tagOverrides[a b]",
                "spec.metrics[0].overrides[0].tagOverrides[b].value",
                "spec.metrics[0].overrides[0].tagOverrides[c].value",
                "spec.metrics[0].overrides[0].tagOverrides[source_app]",
                "spec.metrics[0].overrides[2].match.customMetric",
                "spec.metrics[0].providers[0].name",
                "spec.metrics[0].reportingInterval",
            ],
        ),
        (
            vec![telemetry(
                "shop/a",
                "{accessLogging: [{providers: [{name: otel}]}, {filter: {expression: 'response.kode == 1'}}, \
                 {providers: [{name: envoy}, {name: envoy}]}]}",
            )],
            vec![
                "spec.accessLogging[0].providers[0].name",
                "spec.accessLogging[1].filter.expression",
                "spec.accessLogging[2].providers[1].name",
            ],
        ),
        (
            vec![telemetry("shop/a", "{tracing: [{providers: [{name: zipkin}]}]}")],
            vec!["spec.tracing[0].providers[0].name"],
        ),
        (
            vec![telemetry("shop/a", "{tracing: [{randomSamplingPercentage: 200}]}")],
            vec!["spec.tracing[0].randomSamplingPercentage"],
        ),
        (vec![telemetry("shop/a", "{tracing: [{useRequestIdForTraceSampling: true}]}")], vec![]),
        (
            vec![telemetry(
                "shop/a",
                "{tracing: [{customTags: {a: {environment: {name: PATH}}, b: {header: {name: 'x y'}}, c: {formatter: {value: '%REQ('}}, d: {formatter: {value: '%NO%'}}, e: {formatter: {value: ''}}}}]}",
            )],
            vec![
                "spec.tracing[0].customTags[a].environment",
                "spec.tracing[0].customTags[b].header.name",
                "spec.tracing[0].customTags[c].formatter",
                "spec.tracing[0].customTags[d].formatter",
                "spec.tracing[0].customTags[e].formatter",
            ],
        ),
        (
            vec![telemetry("shop/a", "{tracing: [{}]}"), telemetry("shop/b", "{tracing: [{}]}")],
            vec![""],
        ),
        (
            vec![telemetry("shop/a", "{tracing: [{providers: [{name: web}, {name: otel}]}]}")],
            vec!["spec.tracing[0].providers[1]"],
        ),
        (
            vec![telemetry(
                "shop/a",
                "{targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}], tracing: [{}]}",
            )],
            vec!["spec.targetRefs[0]"],
        ),
        (
            vec![telemetry(
                "istio-system/a",
                "{tracing: [{providers: [{name: gone}], randomSamplingPercentage: 5}]}",
            )],
            vec!["spec.tracing[0].providers[0].name"],
        ),
    ] {
        let (_, complaints) = with(&objects);
        let mut wanted = fields.clone();
        wanted.sort_unstable();
        let mut complaints = complaints;
        complaints.sort_unstable();
        assert_eq!(complaints, wanted, "{objects:?}");
    }
}

/// Expressions are parsed once, whatever changes, and forgotten with the last object that has them.
#[test]
fn expressions_are_parsed_once() {
    let mut all = super::Expressions::default();
    let one = all.parse("response.code == 1").expect("an expression");
    all.settle();
    let two = all.parse("response.code == 1").expect("an expression");
    assert!(std::sync::Arc::ptr_eq(&one, &two));
    all.settle();
    all.settle();
    let three = all.parse("response.code == 1").expect("an expression");
    assert!(!std::sync::Arc::ptr_eq(&one, &three));
}

mod logging;
mod metrics;
mod policies;
mod tracing;
