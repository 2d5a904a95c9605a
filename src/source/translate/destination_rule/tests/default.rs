//! What MeshConfig says for rules, and for services without one.

use super::*;

fn mesh_config(text: &str) -> String {
    let indented = text.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {indented}\n---\n"
    )
}

/// Istio's table (`applyDefaultTrafficPolicy`): each block for itself, replaced as a whole.
#[test]
fn the_default_of_the_mesh_holds_block_by_block() {
    let both = "defaultTrafficPolicy:\n  connectionPool: {tcp: {maxConnections: 100}}\n  \
                outlierDetection: {consecutive5xxErrors: 50}";
    let pool = "defaultTrafficPolicy: {connectionPool: {tcp: {maxConnections: 100}}}";
    const OF_MESH: &str = "defaultTrafficPolicy of MeshConfig";
    const OF_RULE: &str = "DestinationRule shop/own";
    let (own_pool, own_outliers) = (
        "connectionPool: {tcp: {maxConnections: 7}}",
        "outlierDetection: {consecutive5xxErrors: 9}",
    );
    for (mesh, policy, connections, errors, by) in [
        ("enableTracing: false", "", None, None, None),
        (both, "", Some(100), Some(50), Some(OF_MESH)),
        (both, "loadBalancer: {simple: RANDOM}", Some(100), Some(50), Some(OF_MESH)),
        (both, own_pool, Some(7), Some(50), Some(OF_RULE)),
        (both, own_outliers, Some(100), Some(9), Some(OF_MESH)),
        (both, &format!("{own_pool}, {own_outliers}"), Some(7), Some(9), Some(OF_RULE)),
        (pool, own_outliers, Some(100), Some(9), Some(OF_MESH)),
        // A block that asks for nothing replaces as well.
        (both, "connectionPool: {http: {maxRetries: 0}}", None, Some(50), Some(OF_RULE)),
        (pool, "connectionPool: {http: {maxRetries: 0}}", None, None, None),
        (both, "outlierDetection: {consecutive5xxErrors: 0}", Some(100), None, Some(OF_MESH)),
        // Settings of a port inherit nothing of their rule, but what the mesh says.
        (
            both,
            &format!("{own_pool}, portLevelSettings: [{{port: {{number: 80}}, {own_outliers}}}]"),
            Some(100),
            Some(9),
            Some(OF_MESH),
        ),
    ] {
        let rule = match policy {
            "" => String::new(),
            policy => rule("shop", "own", &format!("{{host: web, trafficPolicy: {{{policy}}}}}")),
        };
        let text = format!("{SERVICE}{rule}{}", mesh_config(mesh));
        let translation = translated(&text);
        let ours = |it: &&crate::source::Complaint| it.kind != "Service";
        assert_eq!(translation.complaints.iter().find(ours), None, "{text}");
        let traffic = &translation.mesh.services[0].traffic;
        let held = serde_json::to_value(traffic.of_client("anyone", &[], 80)).unwrap();
        let found = |path: &str| held.pointer(path).cloned();
        let expected = |number: Option<u32>| number.map(serde_json::Value::from);
        assert_eq!(found("/policy/limits/max_connections"), expected(connections), "{text}");
        assert_eq!(found("/policy/outliers/consecutive_errors"), expected(errors), "{text}");
        assert_eq!(found("/policy/by"), by.map(serde_json::Value::from), "{text}");
    }
}

#[test]
fn mistakes_in_the_default_of_the_mesh_are_told() {
    for (written, expected) in [
        (
            "{outlierDetection: {interval: soon}}",
            "data.mesh, defaultTrafficPolicy.outlierDetection.interval",
        ),
        ("{outlierDetection: {intervall: 1s}}", "data.mesh, defaultTrafficPolicy.outlierDetection"),
        ("{tls: {mode: SIMPLE}}", "data.mesh, defaultTrafficPolicy"),
        ("nothing", "data.mesh, defaultTrafficPolicy"),
    ] {
        let text = format!("{SERVICE}{}", mesh_config(&format!("defaultTrafficPolicy: {written}")));
        let mut complaints = translated(&text).complaints;
        complaints.retain(|it| it.kind != "Service");
        let [complaint] = &complaints[..] else { panic!("{complaints:#?}") };
        assert!(complaint.field.starts_with(expected), "{complaint:?}");
        assert_eq!(complaint.kind, "ConfigMap");
    }
}

#[test]
fn rules_without_export_to_go_as_far_as_the_mesh_says() {
    let rule = |more: &str| rule("shop", "own", &simple("web", "RANDOM", more));
    for (default, more, others) in [
        ("['.']", "", None),
        ("['*']", "", Some("RANDOM")),
        ("[a]", "", Some("RANDOM")),
        ("['~']", "", None),
        ("['.']", ", exportTo: ['*']", Some("RANDOM")),
    ] {
        let mesh = mesh_config(&format!("defaultDestinationRuleExportTo: {default}"));
        let (traffic, told) = of(&format!("{}{mesh}", rule(more)));
        assert_eq!(holds(&traffic, "a"), others, "{default} {more}");
        assert!(told.is_empty(), "{told:?}");
    }
}
