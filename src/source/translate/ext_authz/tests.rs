use super::*;
use crate::model::AuthorizationPolicy;
use crate::source::tests::translated;

/// A MeshConfig with a provider `auth`, and a CUSTOM policy that names it.
fn with_provider(provider: &str) -> crate::source::Translation {
    translated(&format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
         extensionProviders:\n    - {{name: auth, {provider}}}\n---\napiVersion: security.istio.io/v1\n\
         kind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{action: CUSTOM, provider: {{name: \
         auth}}, rules: [{{to: [{{operation: {{paths: [/admin*]}}}}]}}]}}\n"
    ))
}

fn policy(translation: &crate::source::Translation) -> &AuthorizationPolicy {
    &translation.mesh.policies[0]
}

#[test]
fn every_field_of_an_http_provider_counts() {
    let translation = with_provider(
        "envoyExtAuthzHttp: {service: tools/Auth.tools.svc.cluster.local, port: 8000, timeout: 0.25s, pathPrefix: /check, \
         failOpen: true, statusOnError: '503', includeHeadersInCheck: [X-Token, 'x-a-*'], \
         includeAdditionalHeadersInCheck: {X-Mesh: 'yes'}, includeRequestBodyInCheck: {maxRequestBytes: 10, \
         allowPartialMessage: true}, headersToUpstreamOnAllow: [x-user], headersToDownstreamOnDeny: ['*-why'], \
         headersToDownstreamOnAllow: [set-cookie]}",
    );
    assert!(translation.complaints.is_empty(), "{:?}", translation.complaints);
    let exact = |name: &str| vec![StringMatch::Exact(name.into())];
    let expected = ExtAuthz {
        name: "auth".into(),
        service: ProviderService::Host {
            namespace: Some("tools".into()),
            hostname: "auth.tools.svc.cluster.local".into(),
        },
        port: 8000,
        timeout: Duration::from_millis(250),
        fail_open: true,
        status_on_error: 503,
        body: Some(CheckBody { max_bytes: 10, allow_partial: true, as_bytes: false }),
        protocol: CheckProtocol::Http(HttpCheck {
            path_prefix: "/check".into(),
            include_headers: vec![
                StringMatch::Exact("x-token".into()),
                StringMatch::Prefix("x-a-".into()),
            ],
            additional_headers: vec![("x-mesh".into(), "yes".into())],
            upstream_on_allow: exact("x-user"),
            all_upstream: false,
            downstream_on_deny: vec![StringMatch::Suffix("-why".into())],
            downstream_on_allow: exact("set-cookie"),
        }),
    };
    assert_eq!(policy(&translation).provider.as_deref(), Some(&expected));
    assert_eq!(policy(&translation).broken, None);
}

#[test]
fn defaults_are_istios() {
    let translation = with_provider("envoyExtAuthzHttp: {service: auth.tools, port: 80}");
    let provider = policy(&translation).provider.clone().expect("a provider");
    assert_eq!((provider.timeout, provider.status_on_error), (TIMEOUT, STATUS_ON_ERROR));
    assert!(!provider.fail_open && provider.body.is_none());
    assert_eq!(provider.protocol, CheckProtocol::Http(HttpCheck::default()));
}

/// The policy denies then, and both objects tell why.
#[test]
fn a_provider_that_cannot_be_asked_is_none() {
    for (provider, field) in [
        ("envoyExtAuthzHttp: {service: '', port: 80}", "envoyExtAuthzHttp.service"),
        ("envoyExtAuthzHttp: {service: a/b/c, port: 80}", "envoyExtAuthzHttp.service"),
        ("envoyExtAuthzHttp: {service: a, port: 0}", "envoyExtAuthzHttp.port"),
        ("envoyExtAuthzHttp: {service: a, port: 80, timeout: 1}", ""),
        ("envoyExtAuthzHttp: {service: a, port: 80, timeout: soon}", "envoyExtAuthzHttp.timeout"),
        ("envoyExtAuthzHttp: {service: a, port: 80, timeout: 0s}", "envoyExtAuthzHttp.timeout"),
        (
            "envoyExtAuthzHttp: {service: a, port: 80, statusOnError: '200'}",
            "envoyExtAuthzHttp.statusOnError",
        ),
        (
            "envoyExtAuthzHttp: {service: a, port: 80, pathPrefix: check}",
            "envoyExtAuthzHttp.pathPrefix",
        ),
        (
            "envoyExtAuthzHttp: {service: a, port: 80, headersToUpstreamOnAllow: [x-a, '*']}",
            "envoyExtAuthzHttp.headersToUpstreamOnAllow[1]",
        ),
        (
            "envoyExtAuthzHttp: {service: a, port: 80, includeAdditionalHeadersInCheck: {host: x}}",
            "envoyExtAuthzHttp.includeAdditionalHeadersInCheck[\"host\"]",
        ),
        (
            "envoyExtAuthzHttp: {service: a, port: 80, includeRequestBodyInCheck: {maxRequestBytes: 0}}",
            "envoyExtAuthzHttp.includeRequestBodyInCheck.maxRequestBytes",
        ),
        ("zipkin: {service: a, port: 80}", "zipkin"),
    ] {
        let translation = with_provider(provider);
        assert!(policy(&translation).broken.is_some(), "{provider}");
        assert!(policy(&translation).provider.is_none(), "{provider}");
        let of = |kind: &str| {
            let mut found = translation.complaints.iter().filter(|it| it.kind == kind);
            found.next().map(|it| it.field.clone()).unwrap_or_default()
        };
        assert_eq!(of("AuthorizationPolicy"), "spec.provider.name", "{provider}");
        if !field.is_empty() {
            let expected = format!("data.mesh, extensionProviders[0].{field}");
            assert_eq!(of("ConfigMap"), expected, "{provider}");
        }
    }
}

#[test]
fn an_unknown_field_of_a_provider_is_told() {
    let translation = with_provider("envoyExtAuthzHttp: {service: a, port: 80, failClosed: true}");
    let field = "data.mesh, extensionProviders[0].envoyExtAuthzHttp.failClosed";
    assert_eq!(translation.complaints[0].field, field);
    assert!(policy(&translation).broken.is_none());
}
