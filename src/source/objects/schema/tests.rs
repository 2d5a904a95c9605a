use serde_json::json;

use super::*;

fn objection(kind: Kind, spec: Value) -> String {
    let object = json!({"metadata": {"name": "x"}, "spec": spec});
    match check(kind, &object) {
        Ok(()) => String::new(),
        Err(error) => error.field,
    }
}

/// One rule of an HTTPRoute, with a backend that is right.
fn of_rule(rule: Value) -> String {
    let mut rule = rule;
    rule.as_object_mut()
        .unwrap()
        .entry("backendRefs")
        .or_insert(json!([{"name": "b", "port": 80}]));
    objection(Kind::HTTPRoute, json!({"rules": [rule]}))
}

#[test]
fn telemetry_policies_are_as_the_api_takes_them() {
    let target = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "wp"}]);
    let of = |tracing: Value| {
        objection(Kind::XTelemetryPolicy, json!({"targetRefs": target.clone(), "tracing": tracing}))
    };
    let provider = json!({"backendRef": {"name": "otel", "port": 4317}});
    for (tracing, field) in [
        (json!({}), ""),
        (json!({"mode": "Disabled"}), ""),
        (json!({"mode": "Enabled", "provider": provider}), ""),
        (json!({"mode": "Enabled"}), "spec.tracing.provider"),
        (json!({"mode": "Disabled", "provider": provider}), "spec.tracing.provider"),
        (json!({"spanName": "x"}), "spec.tracing.spanName"),
        (
            json!({"mode": "Enabled", "provider": provider, "samplingRate": {"numerator": 101}}),
            "spec.tracing.samplingRate.numerator",
        ),
        (
            json!({"mode": "Enabled", "provider": provider, "parentBasedSampling": {"mode": "Disabled", "samplingRate": {"numerator": 1}}}),
            "spec.tracing.parentBasedSampling.samplingRate",
        ),
        (
            json!({"mode": "Enabled", "provider": provider, "spanName": "a  b"}),
            "spec.tracing.spanName",
        ),
        (
            json!({"mode": "Enabled", "provider": provider, "attributes": [{"name": "a", "sourceType": "Header", "literalValue": "x"}]}),
            "spec.tracing.attributes[0].headerName",
        ),
        (
            json!({"mode": "Enabled", "provider": provider, "attributes": [{"name": "a", "sourceType": "Attribute", "attributeKey": "A"}]}),
            "spec.tracing.attributes[0].attributeKey",
        ),
    ] {
        assert_eq!(of(tracing.clone()), field, "{tracing}");
    }
    assert_eq!(objection(Kind::XTelemetryPolicy, json!({"targetRefs": target})), "spec.tracing");
}

#[test]
fn what_the_api_takes_passes() {
    for rule in [
        json!({}),
        json!({"timeouts": {"request": "10s", "backendRequest": "9s500ms"}, "retry": {"codes": [503], "backoff": "1s"}}),
        json!({"timeouts": {"request": "0s", "backendRequest": "9s"}}),
        json!({"matches": [{"path": {"value": "/a%20b"}, "headers": [{"name": "A_b", "value": "a b"}], "method": "GET"}]}),
        json!({"filters": [{"type": "CORS", "cors": {"allowOrigins": ["https://*.example:443"], "allowMethods": ["*"], "maxAge": 1}}]}),
        json!({"filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}]}),
        json!({"filters": [{"type": "ExtensionRef", "extensionRef": {"group": "g", "kind": "K", "name": "n"}}]}),
        json!({"backendRefs": [{"name": "b", "kind": "Hostname", "group": "networking.istio.io"}]}),
    ] {
        assert_eq!(of_rule(rule.clone()), "", "{rule}");
    }
    let parents = json!([{"name": "a", "kind": "Service", "group": "", "port": 80}, {"name": "a", "kind": "Service", "group": "", "port": 81}]);
    assert_eq!(
        objection(Kind::HTTPRoute, json!({"parentRefs": parents, "hostnames": ["*.a.example"]})),
        ""
    );
    for (kind, spec) in [
        (
            Kind::GRPCRoute,
            json!({"rules": [{"matches": [{"method": {"service": "a.B", "method": "C"}}]}]}),
        ),
        (
            Kind::Gateway,
            json!({"gatewayClassName": "istio-waypoint", "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]}),
        ),
        (
            Kind::AuthorizationPolicy,
            json!({"action": "DENY", "targetRefs": [{"kind": "Service", "group": "", "name": "s"}], "rules": [{}]}),
        ),
        (
            Kind::PeerAuthentication,
            json!({"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"80": {"mode": "STRICT"}}}),
        ),
        (
            Kind::ServiceEntry,
            json!({"hosts": ["a.example"], "ports": [{"name": "a", "number": 80}], "resolution": "STATIC", "endpoints": [{"address": "1.2.3.4", "ports": {"a": 81}}]}),
        ),
        (
            Kind::Service,
            json!({"clusterIP": "None", "ports": [{"port": 80, "targetPort": "web"}], "selector": {"a": ""}}),
        ),
    ] {
        assert_eq!(objection(kind, spec.clone()), "", "{spec}");
    }
}

#[test]
fn fields_of_a_rule_are_held_against_the_schema() {
    let filter =
        |kind: &str, member: &str, of: Value| json!({"filters": [{"type": kind, member: of}]});
    let redirect = |of: Value| json!({"filters": [{"type": "RequestRedirect", "requestRedirect": of}], "backendRefs": []});
    for (rule, field) in [
        (json!({"timeouts": {"request": "10"}}), "timeouts.request"),
        (json!({"timeouts": {"backendRequest": "1.5s"}}), "timeouts.backendRequest"),
        (json!({"timeouts": {"request": "1s", "backendRequest": "2s"}}), "timeouts.backendRequest"),
        (json!({"retry": {"codes": [200]}}), "retry.codes[0]"),
        (json!({"retry": {"backoff": "fast"}}), "retry.backoff"),
        (json!({"name": "A b"}), "name"),
        (json!({"matches": [{"path": {"value": "/a/.."}}]}), "matches[0].path.value"),
        (json!({"matches": [{"path": {"value": "/a b"}}]}), "matches[0].path.value"),
        (
            json!({"matches": [{"headers": [{"name": "a", "value": ""}]}]}),
            "matches[0].headers[0].value",
        ),
        (
            json!({"matches": [{"queryParams": [{"name": "a", "value": "b"}, {"name": "a", "value": "c"}]}]}),
            "matches[0].queryParams",
        ),
        (json!({"backendRefs": [{"name": "b"}]}), "backendRefs[0].port"),
        (json!({"backendRefs": [{"name": "b", "port": 0}]}), "backendRefs[0].port"),
        (
            json!({"backendRefs": [{"name": "b", "port": 80, "namespace": "A"}]}),
            "backendRefs[0].namespace",
        ),
        (
            filter(
                "RequestHeaderModifier",
                "requestHeaderModifier",
                json!({"set": [{"name": "a", "value": "\u{e9}"}]}),
            ),
            "filters[0].requestHeaderModifier.set[0].value",
        ),
        (
            filter(
                "RequestMirror",
                "requestMirror",
                json!({"backendRef": {"name": "b", "port": 80}, "percent": 101}),
            ),
            "filters[0].requestMirror.percent",
        ),
        (
            filter(
                "RequestMirror",
                "requestMirror",
                json!({"backendRef": {"name": "b", "port": 80}, "fraction": {"numerator": 2, "denominator": 1}}),
            ),
            "filters[0].requestMirror.fraction",
        ),
        (
            filter("CORS", "cors", json!({"allowOrigins": ["example"]})),
            "filters[0].cors.allowOrigins[0]",
        ),
        (
            filter("CORS", "cors", json!({"allowHeaders": ["*", "a"]})),
            "filters[0].cors.allowHeaders",
        ),
        (filter("CORS", "urlRewrite", json!({})), "filters[0].urlRewrite"),
        (filter("Whatever", "cors", json!({})), "filters[0].type"),
        (
            filter("URLRewrite", "urlRewrite", json!({"hostname": "A"})),
            "filters[0].urlRewrite.hostname",
        ),
        (
            filter(
                "URLRewrite",
                "urlRewrite",
                json!({"path": {"type": "ReplaceFullPath", "replacePrefixMatch": "/"}}),
            ),
            "filters[0].urlRewrite.path.replaceFullPath",
        ),
        (redirect(json!({"scheme": "ftp"})), "filters[0].requestRedirect.scheme"),
        (redirect(json!({"statusCode": 300})), "filters[0].requestRedirect.statusCode"),
        (redirect(json!({"port": 65536})), "filters[0].requestRedirect.port"),
        (filter("RequestRedirect", "requestRedirect", json!({})), "backendRefs"),
    ] {
        assert_eq!(of_rule(rule.clone()), format!("spec.rules[0].{field}"), "{rule}");
    }
}

#[test]
fn objects_are_held_against_the_schema() {
    let many = |length: usize, of: Value| Value::Array(vec![of; length]);
    let parent = json!({"name": "a", "kind": "Service", "group": ""});
    for (kind, spec, field) in [
        (Kind::HTTPRoute, json!({"rules": []}), "spec.rules"),
        (Kind::HTTPRoute, json!({"rules": many(17, json!({}))}), "spec.rules"),
        (
            Kind::HTTPRoute,
            json!({"rules": many(3, json!({"matches": many(43, json!({}))}))}),
            "spec.rules",
        ),
        (Kind::HTTPRoute, json!({"rules": many(2, json!({"name": "same"}))}), "spec.rules"),
        (Kind::GRPCRoute, json!({"rules": many(2, json!({"name": "same"}))}), "spec.rules"),
        (Kind::HTTPRoute, json!({"hostnames": ["UPPER"]}), "spec.hostnames[0]"),
        (Kind::HTTPRoute, json!({"parentRefs": [parent, parent]}), "spec.parentRefs"),
        (
            Kind::GRPCRoute,
            json!({"rules": [{"matches": [{"method": {"service": "a b"}}]}]}),
            "spec.rules[0].matches[0].method.service",
        ),
        (Kind::Gateway, json!({"listeners": []}), "spec.listeners"),
        (Kind::Gateway, json!({"listeners": [{"name": "a", "port": 0}]}), "spec.listeners[0].port"),
        (Kind::AuthorizationPolicy, json!({"action": "PERMIT"}), "spec.action"),
        (Kind::AuthorizationPolicy, json!({"selector": {}, "targetRefs": []}), "spec.targetRefs"),
        (
            Kind::AuthorizationPolicy,
            json!({"selector": {"matchLabels": {"a": "b*"}}}),
            "spec.selector.matchLabels.a",
        ),
        (
            Kind::AuthorizationPolicy,
            json!({"targetRefs": [{"kind": "Service", "name": "s", "namespace": "n"}]}),
            "spec.targetRefs[0].namespace",
        ),
        (
            Kind::AuthorizationPolicy,
            json!({"rules": [{"from": [{"source": {"serviceAccounts": ["a"], "namespaces": ["b"]}}]}]}),
            "spec.rules[0].from[0].source.serviceAccounts",
        ),
        (
            Kind::AuthorizationPolicy,
            json!({"rules": [{"from": [{"source": {"serviceAccounts": many(17, json!("a"))}}]}]}),
            "spec.rules[0].from[0].source.serviceAccounts",
        ),
        (Kind::PeerAuthentication, json!({"portLevelMtls": {"80": {}}}), "spec.portLevelMtls"),
        (
            Kind::PeerAuthentication,
            json!({"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"0": {}}}),
            "spec.portLevelMtls",
        ),
        (Kind::ServiceEntry, json!({"hosts": []}), "spec.hosts"),
        (Kind::ServiceEntry, json!({"hosts": ["*"]}), "spec.hosts"),
        (Kind::ServiceEntry, json!({"hosts": ["a"], "location": "HERE"}), "spec.location"),
        (
            Kind::ServiceEntry,
            json!({"hosts": ["a"], "endpoints": [{"address": "b"}]}),
            "spec.endpoints",
        ),
        (
            Kind::ServiceEntry,
            json!({"hosts": ["a"], "resolution": "DNS", "addresses": ["10.0.0.0/8"]}),
            "spec.addresses",
        ),
        (
            Kind::ServiceEntry,
            json!({"hosts": ["a"], "ports": [{"name": "a", "number": 1}, {"name": "b", "number": 1}]}),
            "spec.ports",
        ),
        (Kind::WorkloadEntry, json!({"ports": {"a": 0}, "address": "b"}), "spec.ports.a"),
        (Kind::WorkloadEntry, json!({}), "spec.address"),
        (Kind::Service, json!({"ports": [{"port": 70000}]}), "spec.ports[0].port"),
        (Kind::Service, json!({"ports": [{"port": 80}, {"port": 81}]}), "spec.ports"),
        (Kind::Service, json!({"clusterIP": "10.0.0"}), "spec.clusterIP"),
        (Kind::Service, json!({"sessionAffinity": "Cookie"}), "spec.sessionAffinity"),
    ] {
        assert_eq!(objection(kind, spec.clone()), field, "{kind} {spec}");
    }
    let labelled = json!({"metadata": {"name": "x", "labels": {"a": "b c"}}});
    assert_eq!(check(Kind::Pod, &labelled).unwrap_err().field, "metadata.labels.a");
    let slice = json!({"metadata": {"name": "x"}, "addressType": "IPv5"});
    assert_eq!(check(Kind::EndpointSlice, &slice).unwrap_err().field, "addressType");
    for (pod, field) in [
        (json!({"spec": {"serviceAccountName": "s r v"}}), "spec.serviceAccountName"),
        (json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0"}]}}), "status.podIPs"),
        (json!({"status": {"podIP": "10.0.0.999"}}), "status.podIPs"),
        (json!({"spec": {"serviceAccountName": ""}, "status": {"podIP": ""}}), ""),
        (json!({"spec": {"serviceAccountName": "a.b"}, "status": {"podIPs": [{"ip": "::1"}]}}), ""),
    ] {
        let found = check(Kind::Pod, &pod).err().map(|error| error.field).unwrap_or_default();
        assert_eq!(found, field, "{pod}");
    }
    for (kind, address, fits) in [
        ("IPv4", "10.0.0.1", true),
        ("IPv4", "10.0.0", false),
        ("IPv4", "fd00::1", false),
        ("IPv6", "fd00::1", true),
        ("FQDN", "a.example", true),
    ] {
        let slice = json!({"addressType": kind, "endpoints": [{"addresses": [address]}]});
        let field = check(Kind::EndpointSlice, &slice).map_err(|error| error.field);
        let expected = if fits { Ok(()) } else { Err("endpoints".to_owned()) };
        assert_eq!(field, expected, "{kind} {address}");
    }
}
