//! From manifests to complaints.

use crate::source::tests::translated;

/// A waypoint, a Service `srv` on port 80 (8080 at its pods), and a pod behind it.
const SHOP: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Pod
metadata: {name: srv, namespace: shop, labels: {app: srv}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 10.0.0.1}
";

fn service(name: &str, ports: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\n\
         metadata: {{name: {name}, namespace: shop, labels: {{istio.io/use-waypoint: waypoint}}}}\n\
         spec: {{clusterIP: 10.96.0.10, selector: {{app: srv}}, ports: [{ports}]}}\n"
    )
}

fn policy(scope: &str, action: &str, operation: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: p, namespace: shop}}\n\
         spec: {{{scope} action: {action}, rules: [{{to: [{{operation: {{{operation}}}}}]}}]}}\n"
    )
}

/// The complaints of the policy, each with its field.
fn complaints(text: &str) -> Vec<String> {
    let text = format!("{SHOP}{text}");
    let all = translated(&text).complaints;
    let of_policy = all.into_iter().filter(|it| it.kind == "AuthorizationPolicy");
    of_policy.map(|it| format!("{}: {}", it.field, it.reason)).collect()
}

const TO_SERVICE: &str = "targetRefs: [{kind: Service, name: srv}],";
const TO_GATEWAY: &str =
    "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}],";

#[test]
fn a_port_that_nothing_behind_the_target_has() {
    let plain = "{name: http, port: 80, targetPort: 8080}";
    let named = "{name: http, port: 80, targetPort: http}";
    let nowhere = "{name: http, port: 80, targetPort: nowhere}";
    for (ports, scope, action, operation, expected) in [
        (plain, TO_SERVICE, "DENY", "ports: ['80']", None),
        (plain, TO_SERVICE, "DENY", "ports: ['8080']", None),
        (plain, TO_SERVICE, "DENY", "ports: ['443']", Some("gets through")),
        (plain, TO_SERVICE, "ALLOW", "ports: ['443']", Some("it allows nothing")),
        (plain, TO_SERVICE, "ALLOW", "notPorts: ['443']", Some("it excludes nothing")),
        (plain, TO_GATEWAY, "DENY", "ports: ['443']", Some("(80) nor one of its endpoints (8080)")),
        (plain, TO_GATEWAY, "DENY", "ports: ['80']", None),
        (named, TO_SERVICE, "DENY", "ports: ['443']", Some("443 is neither a port")),
        // Nobody knows what pods come later.
        (nowhere, TO_SERVICE, "DENY", "ports: ['443']", None),
        // Without a target it is the pods' port.
        (plain, "", "DENY", "ports: ['80']", Some("write 8080")),
        (
            plain,
            "selector: {matchLabels: {app: srv}},",
            "DENY",
            "ports: ['80']",
            Some("write 8080"),
        ),
        (
            plain,
            "selector: {matchLabels: {app: other}},",
            "DENY",
            "ports: ['80']",
            Some("selects no pod of the namespace"),
        ),
        (plain, "", "DENY", "ports: ['8080']", None),
        (plain, "", "DENY", "ports: ['9090']", None),
        (plain, TO_SERVICE, "DENY", "hosts: ['srv:80']", None),
        (plain, TO_SERVICE, "DENY", "hosts: ['srv:443']", Some("\"srv:443\" names port 443")),
        (plain, TO_SERVICE, "DENY", "hosts: ['srv', '[::1]', '*.x:80']", None),
    ] {
        let text = service("srv", ports) + &policy(scope, action, operation);
        let said = complaints(&text);
        match expected {
            None => assert!(said.is_empty(), "{scope} {operation}: {said:?}"),
            Some(part) => {
                assert!(said.len() == 1 && said[0].contains(part), "{scope} {operation}: {said:?}");
            }
        }
    }
}

#[test]
fn entries_have_their_own_ports() {
    let entry = |resolution: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: vendor, namespace: shop, labels: {{istio.io/use-waypoint: waypoint}}}}\n\
             spec:\n  hosts: [api.vendor.example]\n  resolution: {resolution}\n  addresses: [192.0.2.1]\n  \
             ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8080}}]\n"
        )
    };
    let target = "targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: vendor}],";
    for (resolution, port, expected) in
        [("DNS", 80, 0), ("DNS", 8080, 0), ("DNS", 443, 1), ("NONE", 80, 0)]
    {
        let text = entry(resolution) + &policy(target, "DENY", &format!("ports: ['{port}']"));
        assert_eq!(complaints(&text).len(), expected, "{resolution} {port}");
    }
}

#[test]
fn ports_that_lead_to_one_must_be_listed_together_by_an_allow() {
    let twins = "{name: a, port: 80, targetPort: 8080}, {name: b, port: 81, targetPort: 8080}";
    for (action, ports, expected) in [
        ("ALLOW", "['80']", 1),
        ("ALLOW", "['80', '81']", 0),
        ("ALLOW", "['8080']", 0),
        ("DENY", "['80']", 0),
    ] {
        let ports_field = format!("ports: {ports}");
        let text = service("srv", twins) + &policy(TO_SERVICE, action, &ports_field);
        assert_eq!(complaints(&text).len(), expected, "{action} {ports}");
    }
}

#[test]
fn http_where_nobody_looks_at_it() {
    let tcp = "{name: tcp, port: 80, targetPort: 8080}";
    let both = "{name: tcp, port: 80, targetPort: 8080}, {name: http, port: 81, targetPort: 8081}";
    for (ports, action, expected) in [
        (tcp, "ALLOW", Some("allows nothing")),
        (tcp, "DENY", Some("is applied without its fields of HTTP")),
        (both, "ALLOW", None),
    ] {
        let text = service("srv", ports) + &policy(TO_SERVICE, action, "methods: [GET]");
        let said = complaints(&text);
        assert_eq!(said.len(), usize::from(expected.is_some()), "{said:?}");
        assert!(said.iter().all(|it| it.contains(expected.unwrap())), "{said:?}");
    }
}

/// As Istio reads them at a waypoint, each of several targets counts.
#[test]
fn one_of_several_targets_is_enough() {
    let second =
        service("other", "{name: http, port: 443, targetPort: 8443}").replace(".10,", ".11,");
    let scope = "targetRefs: [{kind: Service, name: srv}, {kind: Service, name: other}],";
    let of = |port| {
        let operation = format!("ports: ['{port}']");
        let first = service("srv", "{name: http, port: 80, targetPort: 8080}");
        complaints(&(first + &second + &policy(scope, "DENY", &operation)))
    };
    assert!(of(443).is_empty() && of(80).is_empty());
    assert!(of(22)[0].contains("Service shop/srv and 1 more (80, 443)"), "{:?}", of(22));
}

#[test]
fn an_address_that_nothing_behind_the_target_has() {
    let http = service("srv", "{name: http, port: 80, targetPort: 8080}");
    for (scope, block, complained) in [
        (TO_SERVICE, "10.96.0.10", false),
        (TO_SERVICE, "10.0.0.1", false),
        (TO_SERVICE, "10.0.0.0/8", false),
        (TO_SERVICE, "'::ffff:10.0.0.0/104'", false),
        (TO_SERVICE, "'::ffff:10.96.0.11'", true),
        (TO_SERVICE, "'fd00::/8'", true),
        (TO_SERVICE, "10.96.0.11", true),
        (TO_GATEWAY, "10.96.0.11", true),
        // Other pods may come.
        ("", "10.96.0.11", false),
    ] {
        let policy = format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: p, namespace: shop}}\nspec: {{{scope} action: DENY, \
             rules: [{{when: [{{key: destination.ip, values: [{block}]}}]}}]}}\n"
        );
        let found = complaints(&(http.clone() + &policy));
        let told = found.iter().any(|it| it.contains("holds no address of Service shop/srv"));
        assert_eq!(told, complained, "{scope} {block}: {found:?}");
    }
}
