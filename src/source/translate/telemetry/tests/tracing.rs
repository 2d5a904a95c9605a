//! `tracing`: levels, modes, tags.

use super::*;

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
