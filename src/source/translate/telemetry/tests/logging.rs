//! `accessLogging`: filters, providers, formats.

use super::*;

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
