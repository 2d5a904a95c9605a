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

#[test]
fn mesh_config_alone_traces_nothing_but_at_the_rate_of_the_settings() {
    let (observation, complaints) = with(&[]);
    assert_eq!(complaints, [""; 0]);
    assert!(observation.speaks);
    let tracing = both(&observation.mesh);
    assert_eq!(tracing.rate, percent(0.0), "the settings of this test");
    let provider = &tracing.providers[0];
    assert_eq!(provider.host, "otel.observability.svc.cluster.local");
    assert_eq!((provider.port, &provider.protocol), (4317, &Protocol::Grpc));
    assert!(!translated("").mesh.observation.speaks, "no objects, no collector");
}

#[test]
fn the_narrowest_level_holds_and_inherits_what_it_does_not_say() {
    let (observation, complaints) = with(&[
        telemetry("istio-system/mesh", "{tracing: [{randomSamplingPercentage: 50}]}"),
        telemetry("shop/all", "{tracing: [{customTags: {a: {literal: {value: b}}}}]}"),
        telemetry(
            "shop/web",
            "{selector: {matchLabels: {app: web}}, tracing: [{providers: [{name: web}], randomSamplingPercentage: 0.1}]}",
        ),
        telemetry(
            "shop/service",
            "{targetRefs: [{group: '', kind: Service, name: web}], tracing: [{disableSpanReporting: true}]}",
        ),
    ]);
    assert_eq!(complaints, [""; 0]);
    let mesh = both(&observation.mesh);
    assert_eq!((mesh.rate, mesh.tags.len()), (percent(50.0), 0));
    let shop = both(&observation.namespaces["shop"]);
    assert_eq!((shop.rate, shop.tags.len()), (percent(50.0), 1));
    assert_eq!(shop.tags[0].value, TagValue::Literal("b".into()));
    let (_, sides) = observation.workloads.first_key_value().unwrap();
    let web = both(sides);
    assert_eq!((web.rate, web.tags.len()), (percent(0.1), 1));
    let provider = &web.providers[0];
    assert_eq!(provider.protocol, Protocol::Http { path: "/otlp".into() });
    assert_eq!(provider.timeout.as_secs(), 3);
    assert_eq!(provider.headers, [("x-key".into(), "secret".into())]);
    let (_, sides) = observation.services.first_key_value().unwrap();
    assert_eq!(*sides, Sides::default(), "reporting is disabled");
}

#[test]
fn a_mode_means_one_side() {
    let spec = "{tracing: [{match: {mode: CLIENT}, disableSpanReporting: true}, \
                {match: {mode: SERVER}, randomSamplingPercentage: 100}]}";
    let (observation, _) = with(&[telemetry("istio-system/mesh", spec)]);
    assert_eq!(observation.mesh.client.tracing, None);
    assert_eq!(observation.mesh.server.tracing.as_ref().unwrap().rate, percent(100.0));
}

/// Headers of a trace end at a workload whether spans are recorded there or not, as far as the sides go that are meant.
#[test]
fn the_context_of_a_trace_ends_where_it_is_said() {
    for (spec, client, server) in [
        ("{tracing: [{disableContextPropagation: true}]}", Some(true), Some(true)),
        (
            "{tracing: [{disableContextPropagation: true, disableSpanReporting: true}]}",
            Some(true),
            Some(true),
        ),
        (
            "{tracing: [{match: {mode: CLIENT}, disableContextPropagation: true}]}",
            Some(true),
            Some(false),
        ),
        ("{tracing: [{disableContextPropagation: false}]}", Some(false), Some(false)),
        ("{tracing: [{disableSpanReporting: true}]}", None, None),
    ] {
        let (observation, complaints) = with(&[telemetry("istio-system/mesh", spec)]);
        assert_eq!(complaints, [""; 0], "{spec}");
        let sides = [&observation.mesh.client, &observation.mesh.server];
        let ends = sides.map(|side| side.tracing.as_ref().map(|it| it.ends_here));
        assert_eq!(ends, [client, server], "{spec}");
    }
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

/// The environment is the agent's: a tenant gets nothing of it into spans.
#[test]
fn the_environment_is_read_for_the_root_namespace_only() {
    let spec = "{tracing: [{customTags: {path: {environment: {name: PATH, defaultValue: none}}}}]}";
    let value = |namespace: &str| {
        let (observation, _) = with(&[telemetry(&format!("{namespace}/a"), spec)]);
        let sides = observation.namespaces.get(namespace).unwrap_or(&observation.mesh);
        both(sides).tags[0].value.clone()
    };
    assert_eq!(value("shop"), TagValue::Literal("none".into()));
    let path = std::env::var("PATH").unwrap();
    assert_eq!(value("istio-system"), TagValue::Literal(path.into()));
}

#[test]
fn without_a_provider_the_object_says_that_nothing_is_recorded() {
    let spec = "{tracing: [{randomSamplingPercentage: 50}]}";
    let translation = translated(&telemetry("shop/a", spec));
    let told: Vec<_> = translation.complaints.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(told, ["spec.tracing"]);
    assert!(!translation.mesh.observation.speaks);
}

#[test]
fn mesh_config_says_the_rate_and_how_long_a_path_may_be() {
    let text = MESH.replace("enableTracing: true", "defaultConfig: {tracing: {sampling: 25}}");
    let text = text.replace(
        "port: 4317}",
        "port: 4317, maxTagLength: 100, resourceDetectors: {dynatrace: {}}}",
    );
    let translation = translated(&text);
    let tracing = both(&translation.mesh.observation.mesh).clone();
    assert_eq!((tracing.rate, tracing.max_path), (percent(25.0), Some(100)));
    let told: Vec<_> = translation.complaints.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(told, ["data.mesh, extensionProviders[0].opentelemetry.resourceDetectors"]);
}

/// Only the selected workloads, in the object's own namespace: the root namespace's selectors select there alone.
#[test]
fn a_selector_selects_in_its_own_namespace() {
    let spec = "{selector: {matchLabels: {app: web}}, tracing: [{randomSamplingPercentage: 7}]}";
    for (key, selected) in [("shop/a", 1), ("istio-system/a", 0), ("other/a", 0)] {
        let (observation, _) = with(&[telemetry(key, spec)]);
        assert_eq!(observation.workloads.len(), selected, "{key}");
    }
}

#[test]
fn a_waypoint_comes_before_the_workloads_and_a_service_before_its_waypoint() {
    let waypoint = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
";
    let text = MESH.replace(
        "{name: web, namespace: shop}",
        "{name: web, namespace: shop, labels: {istio.io/use-waypoint: wp}}",
    );
    let of_waypoint = telemetry(
        "shop/wp",
        "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}], tracing: [{randomSamplingPercentage: 20, customTags: {a: {literal: {value: b}}}}]}",
    );
    let of_service = telemetry(
        "shop/web",
        "{targetRefs: [{kind: Service, name: web}], tracing: [{randomSamplingPercentage: 30}]}",
    );
    let translation = translated(&[&text, waypoint, &of_waypoint, &of_service].concat());
    let observation = &translation.mesh.observation;
    let wp = both(observation.waypoints.values().next().expect("the waypoint's"));
    let web = both(observation.services.values().next().expect("the service's"));
    assert_eq!((wp.rate, wp.tags.len()), (percent(20.0), 1));
    assert_eq!((web.rate, web.tags.len()), (percent(30.0), 1), "{:?}", translation.complaints);
}

/// A tag is bounded, however long what it says is.
#[test]
fn tags_are_bounded() {
    let tags: Vec<String> = (0..100)
        .map(|it| format!("t{it:03}: {{literal: {{value: {}}}}}", "x".repeat(5_000)))
        .collect();
    let spec = format!("{{tracing: [{{customTags: {{{}}}}}]}}", tags.join(", "));
    let (observation, complaints) = with(&[telemetry("shop/a", &spec)]);
    let tracing = both(&observation.namespaces["shop"]);
    assert_eq!(tracing.tags.len(), 64);
    let TagValue::Literal(text) = &tracing.tags[0].value else { panic!("a literal") };
    assert_eq!(text.len(), 1_024);
    assert_eq!(complaints, ["spec.tracing[0].customTags"]);
}

/// The rules of the client's side, as they are dumped.
fn rules(sides: &Sides) -> serde_json::Value {
    serde_json::to_value(&sides.client.rules).expect("JSON")
}

#[test]
fn access_logs_are_filtered_and_disabled_by_the_narrowest_level() {
    let filter = |text: &str| format!("{{accessLogging: [{{filter: {{expression: '{text}'}}}}]}}");
    let (observation, complaints) = with(&[
        telemetry("istio-system/mesh", &filter("response.code >= 400")),
        telemetry("shop/all", "{accessLogging: [{disabled: true, match: {mode: CLIENT}}]}"),
        telemetry(
            "shop/web",
            "{selector: {matchLabels: {app: web}}, accessLogging: [{providers: [{name: envoy}]}]}",
        ),
    ]);
    assert_eq!(complaints, [""; 0]);
    let only = json!({"access": {"disabled": false, "only": "response.code >= 400"}});
    assert_eq!(rules(&observation.mesh), only);
    let shop = &observation.namespaces["shop"];
    assert_eq!(rules(shop), json!({"access": {"disabled": true}}));
    let server = serde_json::to_value(&shop.server.rules).expect("JSON");
    assert_eq!(server, only, "the mode says nothing of it");
    let web = observation.workloads.values().next().expect("the workload's");
    assert_eq!(rules(web), json!(null), "an entry without a filter logs all again");
}

#[test]
fn a_provider_of_access_logs_has_a_format() {
    let file = "    - name: file\n      envoyFileAccessLog: {path: /dev/stdout, logFormat: {text: \"%RESPONSE_CODE%\"}}\n    \
                - name: json\n      envoyFileAccessLog: {path: /var/log/a, logFormat: {labels: {code: \"%RESPONSE_CODE%\"}}}\n    - name: otel\n";
    let text = MESH.replacen("    - name: otel\n", file, 1);
    let spec = |name: &str| {
        telemetry("shop/a", &format!("{{accessLogging: [{{providers: [{{name: {name}}}]}}]}}"))
    };
    for name in ["file", "json"] {
        let translation = translated(&[&text, &*spec(name)].concat());
        let sides = &translation.mesh.observation.namespaces["shop"];
        assert!(
            sides.client.rules.as_ref().is_some_and(|it| it
                .access
                .as_ref()
                .unwrap()
                .format
                .is_some()),
            "{name}"
        );
        let told: Vec<_> = translation.complaints.iter().map(|it| it.field.as_str()).collect();
        assert_eq!(told, ["data.mesh, extensionProviders[1].envoyFileAccessLog.path"]);
    }
}

/// An entry with collectors alone is not for the agent's log; MeshConfig's defaults hold where an entry names no provider.
#[test]
fn access_logs_are_exported_to_collectors() {
    let als = "    - name: als\n      envoyOtelAls: {service: o/otel.o.svc.cluster.local, port: 4317, logName: mine, \
               logFormat: {text: \"%RESPONSE_CODE%\", labels: {path: \"%REQ(:PATH)%\"}}}\n    \
               - name: broken\n      envoyOtelAls: {service: a/b/c, port: 4317, filterStateObjectsToLog: []}\n    - name: otel\n";
    let text = MESH.replacen("    - name: otel\n", als, 1);
    let text = text.replace("{tracing: [otel]}", "{tracing: [otel], accessLogging: [als, envoy]}");
    let translation = translated(
        &[
            &text,
            &*telemetry("shop/a", "{accessLogging: [{providers: [{name: als}], filter: {expression: response.code >= 500}}]}"),
            &*telemetry("other/a", "{accessLogging: [{providers: [{name: envoy}, {name: broken}]}]}"),
        ]
        .concat(),
    );
    let observation = &translation.mesh.observation;
    let access = |sides: &Sides| {
        let rules = sides.client.rules.as_ref().expect("rules");
        rules.access.clone().expect("of the access log")
    };
    let mesh = access(&observation.mesh);
    assert_eq!((mesh.exports.len(), mesh.only_exports), (1, false));
    let sink = &mesh.exports[0];
    assert_eq!((sink.name.as_str(), sink.provider.port), ("mine", 4317));
    assert_eq!(sink.provider.namespace.as_deref(), Some("o"));
    assert!(sink.attributes.is_some());
    let shop = access(&observation.namespaces["shop"]);
    assert_eq!((shop.exports.len(), shop.only_exports), (1, true));
    assert!(shop.only.is_some());
    assert_eq!(observation.namespaces["other"].client.rules, None, "the agent's log alone");
    let told: Vec<_> = translation.complaints.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(
        told,
        [
            "data.mesh, extensionProviders[1].envoyOtelAls.filterStateObjectsToLog",
            "data.mesh, extensionProviders[1].envoyOtelAls.service",
            "spec.accessLogging[0].providers[1].name",
        ]
    );
}

#[test]
fn a_tag_may_have_a_format() {
    let spec = "{tracing: [{customTags: {a: {formatter: {value: '%REQ(X-A)% %RESPONSE_CODE%'}}, b: {literal: {value: c}}}}]}";
    let (observation, complaints) = with(&[telemetry("shop/a", spec)]);
    assert_eq!(complaints, [""; 0]);
    let shop = &observation.namespaces["shop"].client;
    assert_eq!(shop.tracing.as_ref().expect("traced").tags.len(), 1);
    let tags = &shop.rules.as_ref().expect("rules").span_tags;
    assert_eq!((tags.len(), tags[0].name.as_str()), (1, "a"));
}

#[test]
fn metrics_are_disabled_one_by_one_or_all() {
    let (observation, complaints) = with(&[
        telemetry("istio-system/mesh", "{metrics: [{overrides: [{disabled: true}]}]}"),
        telemetry(
            "shop/all",
            "{metrics: [{providers: [{name: prometheus}], overrides: [{match: {metric: REQUEST_COUNT, mode: CLIENT}, disabled: false}]}]}",
        ),
    ]);
    assert_eq!(complaints, [""; 0]);
    let disabled = |observed: &Observed| observed.rules.as_ref().expect("rules").disabled;
    assert_eq!(disabled(&observation.mesh.client), MetricSet::ALL);
    let shop = &observation.namespaces["shop"];
    assert_eq!(disabled(&shop.server), MetricSet::ALL);
    let count = MetricSet::NONE.with(Metric::RequestCount);
    assert_eq!(disabled(&shop.client), MetricSet::ALL.without(count));
}

/// By metric, by mode and by label: the narrowest level that names a label decides about it.
#[test]
fn labels_are_changed_by_each_level() {
    let (observation, complaints) = with(&[
        telemetry(
            "istio-system/mesh",
            "{metrics: [{overrides: [{tagOverrides: {source_app: {value: '\"all\"'}, source_version: {operation: REMOVE}}}]}]}",
        ),
        telemetry(
            "shop/all",
            "{metrics: [{providers: [{name: prometheus}], overrides: [\
             {match: {metric: REQUEST_COUNT, mode: CLIENT}, tagOverrides: {host: {operation: UPSERT, value: request.host}}}, \
             {match: {metric: TCP_OPENED_CONNECTIONS, mode: CLIENT}, tagOverrides: {source_version: {value: '\"x\"'}, source_app: {operation: REMOVE}}}]}]}",
        ),
    ]);
    // The label of the server's own version is of the root namespace's alone.
    assert_eq!(complaints, ["spec.metrics[0].overrides[1].tagOverrides[source_version]"]);
    let shop = &observation.namespaces["shop"];
    let others = json!({"source_app": {"set": 0}, "source_version": "remove"});
    let requests = json!([
        {"metrics": ["REQUEST_COUNT"], "changes": {"host": {"set": 0}, "source_app": {"set": 1}, "source_version": "remove"}},
        {"metrics": ["REQUEST_DURATION", "REQUEST_SIZE", "RESPONSE_SIZE", "GRPC_REQUEST_MESSAGES", "GRPC_RESPONSE_MESSAGES"],
         "changes": {"source_app": {"set": 1}, "source_version": "remove"}},
    ]);
    let client = rules(shop);
    assert_eq!(client["request_tags"]["groups"], requests);
    assert_eq!(client["request_tags"]["values"], json!(["request.host", "\"all\""]));
    assert_eq!(
        client["connection_tags"]["groups"],
        json!([
            {"metrics": ["TCP_OPENED_CONNECTIONS"], "changes": {"source_app": "remove", "source_version": "remove"}},
            {"metrics": ["TCP_CLOSED_CONNECTIONS", "TCP_SENT_BYTES", "TCP_RECEIVED_BYTES"], "changes": others},
        ])
    );
    let server = serde_json::to_value(&shop.server.rules).expect("JSON");
    assert_eq!(server["request_tags"]["groups"].as_array().map(Vec::len), Some(1));
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

const GATEWAYS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ingress, namespace: shop}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: otel, namespace: shop}
spec: {clusterIP: 10.96.0.2, ports: [{name: grpc, port: 4317}, {name: otlp, port: 4318}]}
---
apiVersion: v1
kind: Service
metadata: {name: otel, namespace: observability}
spec: {clusterIP: 10.96.0.3, ports: [{name: grpc, port: 4317}]}
---
";

fn policy(name: &str, targets: &str, tracing: &str) -> String {
    format!(
        "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XTelemetryPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{targetRefs: [{targets}], tracing: {tracing}}}\n---\n"
    )
}

const WP: &str = "{group: gateway.networking.k8s.io, kind: Gateway, name: wp}";

fn enabled(provider: &str, more: &str) -> String {
    format!("{{mode: Enabled, provider: {{backendRef: {{{provider}}}}}{more}}}")
}

/// What holds for the services of the waypoint, and the complaints about policies: field and condition.
fn under(objects: &[String]) -> (Option<Observed>, Vec<(String, Option<&'static str>)>) {
    let translation = translated(&[MESH, GATEWAYS, &objects.concat()].concat());
    let ours = translation.complaints.iter().filter(|it| it.kind == "XTelemetryPolicy");
    let told = ours.map(|it| (it.field.clone(), it.condition.map(|it| it.reason.name())));
    let wp = translation.mesh.observation.waypoints.values().next();
    (wp.map(|sides| sides.server.clone()), told.collect())
}

#[test]
fn a_policy_of_a_gateway_says_how_its_services_are_traced() {
    let all = ", samplingRate: {numerator: 5}, parentBasedSampling: {mode: Enabled, samplingRate: {numerator: 1, denominator: 2}}, \
               serviceName: front, spanName: one request, attributes: [{name: env, sourceType: Literal, literalValue: prod}, \
               {name: user, sourceType: Header, headerName: X-User}, \
               {name: method, sourceType: Attribute, attributeKey: http.request.method}]";
    let (observed, told) = under(&[policy("a", WP, &enabled("name: otel, port: 4318", all))]);
    assert_eq!(told, []);
    let tracing = observed.unwrap().tracing.unwrap();
    let [provider] = &*tracing.providers else { panic!("{tracing:?}") };
    assert_eq!(provider.host, "otel.shop.svc.cluster.local");
    assert_eq!(provider.tenant.as_deref(), Some("shop"));
    assert_eq!(provider.protocol, Protocol::Http { path: Protocol::PATH });
    assert_eq!(tracing.rate, Rate::of_fraction(5, 100));
    assert_eq!(tracing.parent, Parent::Limited(Rate::of_fraction(1, 2)));
    assert_eq!(tracing.service_name.as_deref(), Some("front"));
    assert_eq!(tracing.span_name.as_deref(), Some("one request"));
    assert_eq!(*tracing.copies, [("method".into(), "http.request.method".into())]);
    let tags: Vec<_> = tracing.tags.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(tags, ["env", "user"]);
}

/// Above a Telemetry of the same Gateway, below one of a Service; a mode decides what is said at all.
#[test]
fn modes_and_levels_of_policies() {
    let of_gateway = telemetry(
        "shop/t",
        &format!(
            "{{targetRefs: [{WP}], tracing: [{{randomSamplingPercentage: 7, customTags: {{a: {{literal: {{value: b}}}}}}}}]}}"
        ),
    );
    let grpc = enabled("name: otel, port: 4317", "");
    for (tracing, host, rate, tags) in [
        ("{mode: Disabled}", None, None, 0),
        // As the Telemetry says.
        ("{}", Some("otel.observability.svc.cluster.local"), Some(percent(7.0)), 1),
        (
            "{mode: ImplementationDefault}",
            Some("otel.observability.svc.cluster.local"),
            Some(percent(7.0)),
            1,
        ),
        (&*grpc, Some("otel.shop.svc.cluster.local"), Some(percent(7.0)), 0),
    ] {
        let (observed, told) = under(&[of_gateway.clone(), policy("a", WP, tracing)]);
        assert_eq!(told, [], "{tracing}");
        let found = observed.unwrap().tracing;
        let found = found.as_ref();
        assert_eq!(found.map(|it| it.providers[0].host.as_str()), host, "{tracing}");
        assert_eq!(found.map(|it| it.rate), rate, "{tracing}");
        assert_eq!(found.map_or(0, |it| it.tags.len()), tags, "{tracing}");
    }
}

#[test]
fn what_is_wrong_with_policies_is_told() {
    let ingress = "{group: gateway.networking.k8s.io, kind: Gateway, name: ingress}";
    let gone = "{group: gateway.networking.k8s.io, kind: Gateway, name: gone}";
    let grant = |from: &str, name: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: observability}}\n\
             spec: {{from: [{{group: gateway.networking.x-k8s.io, kind: XTelemetryPolicy, namespace: {from}}}], \
             to: [{{group: '', kind: Service{name}}}]}}\n---\n"
        )
    };
    let own = enabled("name: otel, port: 4317", "");
    let other = enabled("name: otel, namespace: observability, port: 4317", "");
    const BACKEND: &str = "spec.tracing.provider.backendRef";
    for (objects, expected, records) in [
        (
            vec![policy("a", WP, &own), policy("b", WP, "{mode: Disabled}")],
            vec![("spec.targetRefs[0]", Some("Conflicted"))],
            true,
        ),
        (
            vec![policy("a", gone, &own)],
            vec![("spec.targetRefs[0]", Some("TargetNotFound"))],
            false,
        ),
        // Another controller's.
        (vec![policy("a", ingress, &own)], vec![], false),
        (
            vec![policy("a", "{group: '', kind: Service, name: web}", &own)],
            vec![("spec.targetRefs[0]", None)],
            false,
        ),
        (
            vec![policy("a", WP, &enabled("name: gone, port: 4317", ""))],
            vec![(BACKEND, Some("BackendNotFound"))],
            false,
        ),
        (
            vec![policy("a", WP, &enabled("name: otel, port: 9", ""))],
            vec![(BACKEND, Some("BackendNotFound"))],
            false,
        ),
        (
            vec![policy("a", WP, &enabled("group: x.io, kind: Y, name: otel", ""))],
            vec![(BACKEND, Some("InvalidKind"))],
            false,
        ),
        (vec![policy("a", WP, &other)], vec![(BACKEND, Some("RefNotPermitted"))], false),
        (vec![policy("a", WP, &other), grant("shop", "")], vec![], true),
        (vec![policy("a", WP, &other), grant("shop", ", name: otel")], vec![], true),
        (
            vec![policy("a", WP, &other), grant("shop", ", name: prometheus")],
            vec![(BACKEND, Some("RefNotPermitted"))],
            false,
        ),
        (
            vec![policy("a", WP, &other), grant("else", "")],
            vec![(BACKEND, Some("RefNotPermitted"))],
            false,
        ),
        (
            vec![policy(
                "a",
                WP,
                &enabled(
                    "name: otel, port: 4317",
                    ", attributes: [{name: a, sourceType: Attribute, attributeKey: gen_ai.tool.name}]",
                ),
            )],
            vec![("spec.tracing.attributes[0]", None)],
            true,
        ),
    ] {
        let (observed, told) = under(&objects);
        let told: Vec<_> = told.iter().map(|(field, reason)| (field.as_str(), *reason)).collect();
        assert_eq!(told, expected, "{objects:?}");
        let providers = observed.and_then(|it| it.tracing).map_or(0, |it| it.providers.len());
        assert_eq!(providers > 0, records, "{objects:?}");
    }
}
