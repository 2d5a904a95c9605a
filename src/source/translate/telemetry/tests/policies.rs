//! XTelemetryPolicies of Gateways.

use super::*;

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
