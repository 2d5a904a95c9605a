//! Which Sidecar, or MeshConfig, says where a workload of namespace `shop` with the labels `app=cart` may connect.

use crate::source::tests::translated;

/// `namespace/name`, whether it selects `app=cart`, and its `outboundTrafficPolicy`.
type Written = (&'static str, bool, &'static str);

const NONE: &str = "";
const ANY: &str = "outboundTrafficPolicy: {mode: ALLOW_ANY}";
const ONLY: &str = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}";

fn sidecar((key, selects, policy): &Written, second: usize) -> String {
    let (namespace, name) = key.split_once('/').expect("namespace/name");
    let selector = if *selects { "workloadSelector: {labels: {app: cart}}, " } else { "" };
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata:\n  namespace: {namespace}\n  name: {name}\n  \
         creationTimestamp: \"2026-01-01T00:00:{second:02}Z\"\nspec: {{{selector}{policy}}}\n"
    )
}

fn mesh_config(policy: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
         {{{policy}}}\n---\n"
    )
}

/// Whether `cart` is bound to the registry, and the fields that are complained of.
fn effective(mesh: &str, sidecars: &[Written]) -> (bool, Vec<String>) {
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: cart, namespace: shop, labels: {app: cart}}\n";
    let sidecars = sidecars.iter().enumerate().map(|(second, it)| sidecar(it, second));
    let text = mesh_config(mesh) + pod + &sidecars.collect::<String>();
    let translation = translated(&text);
    let fields = translation.complaints.iter().map(|it| it.field.clone()).collect();
    (translation.mesh.workloads[0].registry_only, fields)
}

#[test]
fn the_nearest_sidecar_decides_as_a_whole_and_mesh_config_where_it_says_nothing() {
    const OWN: &str = "shop/own";
    const LOCAL: &str = "shop/local";
    const ROOT: &str = "istio-system/root";
    let cases: &[(&str, &[Written], bool)] = &[
        (NONE, &[], false),
        (ANY, &[], false),
        (ONLY, &[], true),
        // The first value of the enumeration is its default, in both.
        ("outboundTrafficPolicy: {}", &[], true),
        (NONE, &[(LOCAL, false, "outboundTrafficPolicy: {}")], true),
        // Each level by itself.
        (NONE, &[(ROOT, false, ONLY)], true),
        (NONE, &[(LOCAL, false, ONLY)], true),
        (NONE, &[(OWN, true, ONLY)], true),
        // The narrower one decides, in both directions.
        (ONLY, &[(ROOT, false, ANY)], false),
        (NONE, &[(ROOT, false, ONLY), (LOCAL, false, ANY)], false),
        (NONE, &[(LOCAL, false, ONLY), (OWN, true, ANY)], false),
        (NONE, &[(LOCAL, false, ANY), (OWN, true, ONLY)], true),
        // One that says nothing hands over to MeshConfig, and not to a wider one.
        (NONE, &[(LOCAL, false, ONLY), (OWN, true, NONE)], false),
        (ONLY, &[(LOCAL, false, ANY), (OWN, true, NONE)], true),
        // Another namespace's is nobody's business here, nor is the root namespace's with a selector.
        (NONE, &[("evil/other", false, ONLY), ("evil/more", true, ONLY)], false),
        (ONLY, &[("evil/other", false, ANY), (ROOT, true, ANY)], true),
        // Of several at one level the oldest.
        (NONE, &[("shop/z", true, ONLY), ("shop/a", true, ANY)], true),
    ];
    for (mesh, sidecars, expected) in cases {
        let (registry_only, _) = effective(mesh, sidecars);
        assert_eq!(registry_only, *expected, "{mesh:?} {sidecars:?}");
    }
}

#[test]
fn a_second_sidecar_of_a_namespace_and_fields_without_effect_are_named() {
    let (registry_only, fields) =
        effective(NONE, &[("shop/a", false, ONLY), ("shop/b", false, ANY)]);
    assert!(registry_only);
    assert_eq!(fields, [""]);
    let rest = "ingress: [{port: {number: 80}}], egress: [{hosts: [./*]}], inboundConnectionPool: {tcp: {maxConnections: 1}}, \
                outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: x}}";
    let (registry_only, fields) = effective(ONLY, &[("shop/a", false, rest)]);
    assert!(!registry_only);
    let named = ["egress", "inboundConnectionPool", "ingress", "outboundTrafficPolicy.egressProxy"];
    assert_eq!(fields, named.map(|field| format!("spec.{field}")));
}

#[test]
fn a_mode_that_is_not_known_opens_nothing() {
    let (registry_only, fields) = effective("outboundTrafficPolicy: {mode: ALOW_ANY}", &[]);
    assert!(registry_only);
    assert_eq!(fields, ["data.mesh, outboundTrafficPolicy.mode"]);
    // The API server rejects such a Sidecar, and so does a directory.
    let wrong = "outboundTrafficPolicy: {mode: ALOW_ANY}";
    let (registry_only, fields) = effective(ONLY, &[("shop/a", false, wrong)]);
    assert!(registry_only);
    assert!(!fields.is_empty());
}
