use proptest::prelude::*;

use super::*;
use crate::model::{PolicyTarget, Scope};
use crate::policy::values;
use crate::source::tests::translated;

fn policy_in(namespace: &str, spec: &str) -> crate::source::Translation {
    translated(&format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: {namespace}}}\n\
         spec: {{{spec}}}\n"
    ))
}

fn broken(spec: &str) -> (model::AuthorizationPolicy, String) {
    let translation = policy_in("shop", spec);
    let policy = (*translation.mesh.policies[0]).clone();
    assert!(
        translation.complaints.iter().any(|it| it.severity == crate::source::Severity::Error),
        "{spec}"
    );
    let why = policy.broken.clone().unwrap_or_else(|| panic!("{spec} is understood: {policy:?}"));
    (policy, why.to_string())
}

#[test]
fn what_cannot_be_carried_out_breaks_the_policy() {
    let from = |field: &str| format!("rules: [{{from: [{{source: {{{field}}}}}]}}]");
    let to = |field: &str| format!("rules: [{{to: [{{operation: {{{field}}}}}]}}]");
    let when = |field: &str| format!("rules: [{{when: [{{{field}}}]}}]");
    let source = "spec.rules[0].from[0].source";
    let operation = "spec.rules[0].to[0].operation";
    for (spec, place) in [
        ("action: CUSTOM".to_owned(), "spec.provider.name".to_owned()),
        ("action: CUSTOM, provider: {name: x}".to_owned(), "spec.provider.name".to_owned()),
        ("provider: {name: x}".to_owned(), "spec.provider".to_owned()),
        (from("requestPrincipals: ['']"), format!("{source}.requestPrincipals[0]")),
        (from("notRequestPrincipals: ['*a*']"), format!("{source}.notRequestPrincipals[0]")),
        (from("trustDomains: ['']"), format!("{source}.trustDomains[0]")),
        (from("ipBlocks: [10.0.0.0/8, 10.0.0.0/33]"), format!("{source}.ipBlocks[1]")),
        (from("remoteIpBlocks: [example.com]"), format!("{source}.remoteIpBlocks[0]")),
        (from("principals: ['']"), format!("{source}.principals[0]")),
        (from("principals: ['*a*']"), format!("{source}.principals[0]")),
        (from("serviceAccounts: ['ns/*']"), format!("{source}.serviceAccounts[0]")),
        (from("serviceAccounts: [a/b/c]"), format!("{source}.serviceAccounts[0]")),
        (from(""), source.to_owned()),
        (to(""), operation.to_owned()),
        (to("ports: ['0']"), format!("{operation}.ports[0]")),
        (to("notPorts: [http]"), format!("{operation}.notPorts[0]")),
        (to("paths: ['/{**}/{*}']"), format!("{operation}.paths[0]")),
        (to("paths: ['/{*}/a*']"), format!("{operation}.paths[0]")),
        (to("paths: ['/{name}']"), format!("{operation}.paths[0]")),
        (to("methods: [GET, '']"), format!("{operation}.methods[1]")),
        ("rules: [{from: []}]".to_owned(), "spec.rules[0].from".to_owned()),
        ("rules: [{to: []}]".to_owned(), "spec.rules[0].to".to_owned()),
        (
            when("key: 'request.auth.claims[a][]', values: [a]"),
            "spec.rules[0].when[0].key".to_owned(),
        ),
        (
            when("key: connection.sni, values: ['*a*']"),
            "spec.rules[0].when[0].values[0]".to_owned(),
        ),
        (when("key: 'request.headers[a b]', values: [a]"), "spec.rules[0].when[0].key".to_owned()),
        (when("key: source.ip"), "spec.rules[0].when[0]".to_owned()),
        (when("key: source.ip, values: [x]"), "spec.rules[0].when[0].values[0]".to_owned()),
        (
            when("key: destination.port, notValues: ['65536']"),
            "spec.rules[0].when[0].notValues[0]".to_owned(),
        ),
    ] {
        let (policy, why) = broken(&spec);
        assert!(why.starts_with(&format!("{place}: ")), "{spec}: {why}");
        assert_eq!(policy.scope, Scope::Namespace, "{spec}");
    }
}

#[test]
fn a_broken_policy_is_never_scoped_too_narrowly() {
    for (spec, expected) in [
        ("selector: {matchLabels: {a: b}}, action: CUSTOM", Scope::Workloads),
        (
            "targetRefs: [{kind: Service, name: s}], action: CUSTOM",
            Scope::Targets(vec![PolicyTarget::Service("s".into())]),
        ),
        (
            "selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: s}]",
            Scope::Namespace,
        ),
        ("targetRefs: [{kind: Serivce, name: s}]", Scope::Namespace),
        ("targetRefs: [{kind: Service, name: s, namespace: other}]", Scope::Namespace),
        (
            "targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}]",
            Scope::Namespace,
        ),
    ] {
        assert_eq!(broken(spec).0.scope, expected, "{spec}");
    }
    let root = policy_in("istio-system", "action: CUSTOM");
    assert_eq!(root.mesh.policies[0].scope, Scope::Mesh);
}

/// A policy for traffic that leaves the mesh must not deny what its namespace serves.
#[test]
fn a_service_entry_is_a_target_and_nothing_else_is_guarded_by_it() {
    let target = "targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: s}]";
    let translation = policy_in("shop", target);
    let policy = &translation.mesh.policies[0];
    let expected = Scope::Targets(vec![PolicyTarget::ServiceEntry("s".into())]);
    assert_eq!((&policy.scope, &policy.broken), (&expected, &None));
    assert!(translation.complaints[0].reason.contains("ServiceEntry shop/s does not exist"));
}

/// What a policy means is for objects to say; whom agents trust is for their settings.
#[test]
fn aliases_of_mesh_config_hold_in_policies() {
    let mesh = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
                data:\n  mesh: |\n    trustDomainAliases: [old.mesh]\n---\n";
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                  metadata: {name: p, namespace: shop}\n\
                  spec: {rules: [{from: [{source: {principals: [old.mesh/ns/a/sa/b]}}]}]}\n";
    let principals = |text: &str| {
        let translation = translated(text);
        let source = &translation.mesh.policies[0].rules[0].from[0];
        let told = translation.complaints.iter().any(|it| it.field.contains("principals"));
        (source.principals.any.iter().map(ToString::to_string).collect::<Vec<_>>(), told)
    };
    let old = "\"old.mesh/ns/a/sa/b\"".to_owned();
    assert_eq!(principals(policy), (vec![old.clone()], true));
    let both = vec![old, "\"cluster.local/ns/a/sa/b\"".to_owned()];
    assert_eq!(principals(&format!("{mesh}{policy}")), (both, false));
}

/// What the two lists of a field leave is nothing.
#[test]
fn lists_that_exclude_each_other() {
    for (rule, field) in [
        ("from: [{source: {namespaces: [a], notNamespaces: [b, a]}}]", "from[0].source.namespaces"),
        ("to: [{operation: {methods: [GET], notMethods: [GET]}}]", "to[0].operation.methods"),
        (
            "when: [{key: source.ip, values: [10.0.0.1], notValues: [10.0.0.1/32]}]",
            "when[0].values",
        ),
        ("from: [{source: {notIpBlocks: [0.0.0.0/0, '::/0']}}]", "from[0].source.notIpBlocks"),
        ("when: [{key: remote.ip, notValues: ['::/0', 0.0.0.0/0]}]", "when[0].notValues"),
        ("from: [{source: {notIpBlocks: [0.0.0.0/0]}}]", ""),
        ("to: [{operation: {notPaths: ['/*']}}]", "to[0].operation.notPaths"),
        ("to: [{operation: {notPaths: ['/{**}']}}]", "to[0].operation.notPaths"),
        ("to: [{operation: {notMethods: [GET, '*']}}]", "to[0].operation.notMethods"),
        ("to: [{operation: {notHosts: ['*']}}]", "to[0].operation.notHosts"),
        ("when: [{key: source.serviceAccount, values: [a/Curl]}]", "when[0].values"),
        ("when: [{key: 'request.headers[te]', values: [gzip]}]", "when[0].values"),
        ("from: [{source: {namespaces: [a, c], notNamespaces: [a]}}]", ""),
        ("from: [{source: {notPrincipals: ['*']}}]", ""),
        ("to: [{operation: {notPaths: ['/a*']}}]", ""),
        ("when: [{key: 'request.headers[te]', values: [trailers]}]", ""),
    ] {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: p, namespace: shop}}\nspec: {{action: DENY, rules: [{{{rule}}}]}}\n"
        );
        let complaints = translated(&text).complaints;
        let fields: Vec<&str> = complaints.iter().map(|it| it.field.as_str()).collect();
        let expected: Vec<String> = Some(field)
            .filter(|it| !it.is_empty())
            .map(|it| format!("spec.rules[0].{it}"))
            .into_iter()
            .collect();
        assert_eq!(fields, expected, "{rule}: {complaints:?}");
    }
}

proptest! {
    #[test]
    fn any_value_is_survived(value in "[ -~]{0,40}") {
        let own = Str::from("shop");
        prop_assert_eq!(values::text(&value).is_err(), value.is_empty() || (value.len() > 1 && value.starts_with('*') && value.ends_with('*')));
        let _ = (values::path(&value), values::cidr(&value), values::port(&value));
        let _ = values::service_account(&own, &value);
    }

    #[test]
    fn addresses_are_blocks_of_one(address: std::net::IpAddr) {
        let block = values::cidr(&address.to_string()).expect("an address");
        prop_assert!(block.contains(&address));
        prop_assert_eq!(block.hosts().take(2).count(), 1);
    }
}
