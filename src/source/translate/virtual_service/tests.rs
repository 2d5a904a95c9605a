//! Which VirtualService holds for whom, and what its rules become.

mod bounds;
mod streams;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::{Changes, Context, Routes, Sources, VirtualServices};
use crate::base::TrustDomains;
use crate::model::{BackendRef, Service};
use crate::route::{self, Client, Head, Selection, Who};
use crate::source::tests::{objects, translated};
use crate::source::{Severity, TranslateSettings, Translation, Translator};
use crate::world::{MeshNames, World, WorldStore};

/// A Service `web` of two versions and a Service `other`, with a waypoint, and clients of two namespaces.
const MESH: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{name: http, port: 80}, {name: http-admin, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.0.0.2, selector: {app: other}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web, version: v1}}
spec: {serviceAccountName: web, containers: []}
status: {phase: Running, podIP: 10.1.0.1, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, namespace: shop, labels: {app: web, version: v2}}
spec: {serviceAccountName: web, containers: []}
status: {phase: Running, podIP: 10.1.0.2, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: near, namespace: shop, labels: {app: near, team: a}}
spec: {serviceAccountName: near, containers: []}
status: {phase: Running, podIP: 10.1.0.3, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: clients, labels: {app: far}}
spec: {serviceAccountName: far, containers: []}
status: {phase: Running, podIP: 10.1.0.4, conditions: [{type: Ready, status: 'True'}]}
---
";

fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

fn virtual_service(namespace: &str, name: &str, spec: &Value) -> String {
    object("VirtualService", namespace, name, spec)
}

/// One rule for everything, to a Service of the same namespace.
fn to(host: &str, destination: &str, more: Value) -> Value {
    let mut spec = json!({
        "hosts": [host],
        "http": [{"route": [{"destination": {"host": destination, "port": {"number": 8080}}}]}],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

struct Meshed {
    translation: Translation,
    world: Arc<World>,
}

fn meshed(objects: &[String]) -> Meshed {
    let translation = translated(&format!("{MESH}{}", objects.concat()));
    let trust_domains = TrustDomains::new("cluster.local".into(), &[]);
    let names = MeshNames { trust_domains, root_namespace: "istio-system".into() };
    let world = WorldStore::new(names).publish(translation.mesh.clone());
    Meshed { translation, world }
}

/// A request of a client to `web`.
#[derive(Clone, Copy)]
struct Ask<'a> {
    client: &'a str,
    port: u16,
    method: &'a str,
    target: &'a str,
    headers: &'a [(&'static str, &'static str)],
}

const ASK: Ask<'_> =
    Ask { client: "shop/near", port: 80, method: "GET", target: "/", headers: &[] };

impl Meshed {
    fn complaints(&self) -> Vec<(Severity, String, String)> {
        let all = self.translation.complaints.iter().filter(|it| it.kind == "VirtualService");
        all.map(|it| (it.severity, it.field.clone(), it.reason.clone())).collect()
    }

    fn fields(&self) -> Vec<String> {
        self.complaints().into_iter().map(|(_, field, _)| field).collect()
    }

    fn web(&self) -> &Arc<Service> {
        self.world.service(&crate::base::ObjectKey::new("shop", "web")).unwrap()
    }

    /// The name of the rule that holds, with the object.
    fn rule(&self, ask: Ask<'_>) -> String {
        let mut headers =
            HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("web"))]);
        for (name, value) in ask.headers {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let (path, query) = ask
            .target
            .split_once('?')
            .map_or((ask.target, None), |(path, query)| (path, Some(query)));
        let method = Method::from_bytes(ask.method.as_bytes()).unwrap();
        let namespace = ask.client.split('/').next().unwrap();
        let uid = format!("Kubernetes//Pod/{}", ask.client);
        let client = Client { namespace, who: Who::Workload(&uid), selected_by: None };
        let head = Head { method: &method, path, query, headers: &headers, client };
        match route::select(&self.world, self.web(), ask.port, namespace, &head) {
            Selection::NoRoutes => "no routes".to_owned(),
            Selection::NoMatch(_) => "no match".to_owned(),
            Selection::Rule { route, rule } => format!("{}.{}", route.key, route.rules[rule].name),
        }
    }

    fn held(&self, client: &str) -> String {
        self.rule(Ask { client, ..ASK })
    }
}

#[test]
fn the_clients_namespace_then_the_services_then_the_root() {
    let full = "web.shop.svc.cluster.local";
    let far = "other.shop.svc.cluster.local";
    let own = virtual_service("shop", "own", &to("web", "other", json!({})));
    let theirs = virtual_service("clients", "theirs", &to(full, far, json!({})));
    let short = virtual_service("clients", "short", &to("web", far, json!({})));
    let root = virtual_service("istio-system", "root", &to("*.local", far, json!({})));
    let hidden = virtual_service("shop", "own", &to("web", "other", json!({"exportTo": ["."]})));
    let given =
        virtual_service("shop", "own", &to("web", "other", json!({"exportTo": ["clients"]})));
    let nobody = virtual_service("clients", "theirs", &to(full, far, json!({"exportTo": ["~"]})));
    for (objects, near, distant) in [
        (vec![&own], "shop/own.0", "shop/own.0"),
        (vec![&own, &theirs], "shop/own.0", "clients/theirs.0"),
        (vec![&theirs], "no routes", "clients/theirs.0"),
        (vec![&short], "no routes", "no routes"),
        (vec![&root], "istio-system/root.0", "istio-system/root.0"),
        (vec![&root, &own], "shop/own.0", "shop/own.0"),
        (vec![&root, &hidden], "shop/own.0", "istio-system/root.0"),
        (vec![&root, &given], "istio-system/root.0", "shop/own.0"),
        (vec![&root, &nobody], "istio-system/root.0", "istio-system/root.0"),
    ] {
        let names: Vec<String> = objects.into_iter().cloned().collect();
        let mesh = meshed(&names);
        assert_eq!(mesh.held("shop/near"), near, "{names:?}");
        assert_eq!(mesh.held("clients/far"), distant, "{names:?}");
    }
}

#[test]
fn the_most_specific_host_then_the_oldest_holds_alone() {
    let of = |name: &str, host: &str, more: Value| {
        virtual_service("shop", name, &to(host, "other", more))
    };
    let mesh = meshed(&[
        of("a", "*.local", json!({})),
        of("b", "web", json!({})),
        of("c", "web", json!({})),
    ]);
    assert_eq!(mesh.held("shop/near"), "shop/b.0");
    let complaints = mesh.complaints();
    let conflicts: Vec<_> = complaints.iter().filter(|(_, field, _)| field.is_empty()).collect();
    assert_eq!(conflicts.len(), 1, "{complaints:?}");
    assert!(conflicts[0].2.contains("shop/b"), "{complaints:?}");
    // Both are seen by others.
    let mesh = meshed(&[
        of("a", "web", json!({"exportTo": ["."]})),
        of("b", "web", json!({"exportTo": ["clients"]})),
    ]);
    assert_eq!((&*mesh.held("shop/near"), &*mesh.held("clients/far")), ("shop/a.0", "shop/b.0"));
    assert!(mesh.complaints().is_empty(), "{:?}", mesh.complaints());
}

#[test]
fn routes_of_gateway_api_come_first_and_both_are_told() {
    let own = virtual_service("shop", "own", &to("web", "other", json!({})));
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\n\
                 spec: {parentRefs: [{group: '', kind: Service, name: web, port: 80}], rules: [{name: all, backendRefs: [{name: other, port: 8080}]}]}\n---\n";
    let mesh = meshed(&[own, route.to_owned()]);
    assert_eq!(mesh.held("shop/near"), "shop/r.all");
    assert_eq!(mesh.rule(Ask { port: 81, ..ASK }), "shop/own.0");
    let told: Vec<String> = mesh.translation.complaints.iter().map(ToString::to_string).collect();
    assert!(
        told.iter()
            .any(|it| it.contains("VirtualService shop/own: spec.hosts[0]: the HTTPRoute shop/r")),
        "{told:?}"
    );
    assert!(
        told.iter()
            .any(|it| it
                .contains("HTTPRoute shop/r: spec.parentRefs[0]: the VirtualService shop/own")),
        "{told:?}"
    );
}

/// HTTPMatchRequest, field by field.
#[test]
fn matches() {
    let matched = |matched: Value| {
        let route = json!([{"destination": {"host": "other", "port": {"number": 8080}}}]);
        let rules = json!([{"name": "yes", "match": [matched], "route": route}, {"name": "no", "route": route}]);
        meshed(&[virtual_service("shop", "own", &json!({"hosts": ["web"], "http": rules}))])
    };
    let target = |target: &'static str| Ask { target, ..ASK };
    let headers = |headers: &'static [(&'static str, &'static str)]| Ask { headers, ..ASK };
    for (written, ask, expected) in [
        (json!({"uri": {"exact": "/a"}}), target("/a?b"), true),
        (json!({"uri": {"exact": "/a"}}), target("/a/b"), false),
        (json!({"uri": {"exact": "/a"}}), target("/A"), false),
        (json!({"uri": {"exact": "/a"}, "ignoreUriCase": true}), target("/A"), true),
        (json!({"uri": {"prefix": "/a"}}), target("/abc"), true),
        (json!({"uri": {"prefix": "/a/b"}}), target("/a/bc/d"), true),
        (json!({"uri": {"prefix": "/a/b/"}}), target("/a/b"), false),
        (json!({"uri": {"prefix": "/"}}), target("/x"), true),
        (json!({"uri": {"prefix": "/A"}, "ignoreUriCase": true}), target("/aX"), true),
        (json!({"uri": {"prefix": "/A"}}), target("/aX"), false),
        (json!({"uri": {"regex": "/a|/b.*"}}), target("/bx"), true),
        (json!({"uri": {"regex": "/a|/b.*"}}), target("/ax"), false),
        (json!({"scheme": {"exact": "http"}}), ASK, true),
        (json!({"scheme": {"exact": "https"}}), ASK, false),
        (json!({"method": {"exact": "POST"}}), Ask { method: "POST", ..ASK }, true),
        (json!({"method": {"exact": "POST"}}), ASK, false),
        (json!({"method": {"regex": "GET|HEAD"}}), ASK, true),
        (json!({"method": {"prefix": "P"}}), Ask { method: "PATCH", ..ASK }, true),
        (json!({"authority": {"exact": "web"}}), ASK, true),
        (json!({"authority": {"prefix": "other"}}), ASK, false),
        (json!({"headers": {"x-user": {"exact": "jason"}}}), headers(&[("x-user", "jason")]), true),
        (json!({"headers": {"x-user": {"exact": "jason"}}}), headers(&[("x-user", "bob")]), false),
        (json!({"headers": {"x-user": {"prefix": "j"}}}), headers(&[("x-user", "jason")]), true),
        (json!({"headers": {"x-user": {"regex": "j.*n"}}}), headers(&[("x-user", "jason")]), true),
        (json!({"headers": {"x-user": {}}}), headers(&[("x-user", "")]), true),
        (json!({"headers": {"x-user": null}}), headers(&[("x-user", "a")]), true),
        (json!({"headers": {"x-user": {"regex": "*"}}}), headers(&[("x-user", "a")]), true),
        (json!({"headers": {"x-user": {}}}), ASK, false),
        (json!({"headers": {"uri": {"exact": "/nowhere"}}}), ASK, true),
        (json!({"withoutHeaders": {"x-user": {}}}), ASK, true),
        (json!({"withoutHeaders": {"x-user": {}}}), headers(&[("x-user", "a")]), false),
        (json!({"withoutHeaders": {"x-user": {"exact": "a"}}}), headers(&[("x-user", "b")]), true),
        (json!({"withoutHeaders": {"x-user": {"exact": "a"}}}), headers(&[("x-user", "a")]), false),
        (json!({"withoutHeaders": {"x-user": {"exact": "a"}}}), ASK, true),
        (json!({"withoutHeaders": {"x-user": {"exact": ""}}}), ASK, false),
        (json!({"port": 80}), ASK, true),
        (json!({"port": 81}), ASK, false),
        (json!({"port": 81}), Ask { port: 81, ..ASK }, true),
        (json!({"queryParams": {"q": {"exact": "1"}}}), target("/?q=1"), true),
        (json!({"queryParams": {"q": {"exact": ""}}}), target("/?q"), true),
        (json!({"queryParams": {"q": {"regex": "[0-9]+"}}}), target("/?q=12"), true),
        (json!({"queryParams": {"q": {"regex": "[0-9]+"}}}), target("/?q=a12"), false),
        (json!({"queryParams": {"q": {}}}), target("/?q=x"), true),
        (json!({"queryParams": {"q": {}}}), target("/?p=x"), false),
        (json!({"sourceNamespace": "shop"}), ASK, true),
        (json!({"sourceNamespace": "shop"}), Ask { client: "clients/far", ..ASK }, false),
        (json!({"sourceLabels": {"app": "near", "team": "a"}}), ASK, true),
        (json!({"sourceLabels": {"app": "near", "team": "b"}}), ASK, false),
        (json!({"sourceLabels": {"app": "far"}}), Ask { client: "clients/far", ..ASK }, true),
        (json!({"sourceLabels": {"app": "near"}}), Ask { client: "shop/gone", ..ASK }, false),
        (json!({"gateways": ["mesh", "my-gateway"]}), ASK, true),
        (json!({"gateways": ["my-gateway"]}), ASK, false),
        (
            json!({"uri": {"prefix": "/a"}, "headers": {"x-user": {"exact": "a"}}}),
            target("/a"),
            false,
        ),
    ] {
        let found = matched(written.clone()).rule(ask);
        let expected = if expected { "shop/own.yes" } else { "shop/own.no" };
        assert_eq!(found, expected, "{written} {} {:?}", ask.target, ask.headers);
    }
}

#[test]
fn the_first_match_of_the_list_holds_however_specific_others_are() {
    let route = json!([{"destination": {"host": "other", "port": {"number": 8080}}}]);
    let rules = json!([
        {"name": "one", "match": [{"uri": {"prefix": "/a"}}, {"name": "named", "uri": {"exact": "/x"}}], "route": route},
        {"name": "two", "match": [{"uri": {"exact": "/a/b"}, "method": {"exact": "GET"}}], "route": route},
        {"name": "three", "match": [{"uri": {"prefix": "/c"}}], "route": route},
    ]);
    let mesh = meshed(&[virtual_service("shop", "own", &json!({"hosts": ["web"], "http": rules}))]);
    for (target, expected) in [
        ("/a/b", "shop/own.one"),
        ("/x", "shop/own.one.named"),
        ("/cc", "shop/own.three"),
        ("/d", "no match"),
    ] {
        assert_eq!(mesh.rule(Ask { target, ..ASK }), expected, "{target}");
    }
}

#[test]
fn a_port_without_a_rule_goes_to_the_service_itself() {
    let route = json!([{"destination": {"host": "other", "port": {"number": 8080}}}]);
    let rules = json!([{"match": [{"port": 81}], "route": route}]);
    let mesh = meshed(&[virtual_service("shop", "own", &json!({"hosts": ["web"], "http": rules}))]);
    assert_eq!(mesh.held("shop/near"), "no routes");
    assert_eq!(mesh.rule(Ask { port: 81, ..ASK }), "shop/own.0");
}

/// What a destination without a port leads to: the only port of the service, else the one that was addressed.
#[test]
fn ports_of_destinations() {
    let ports = |host: &str| {
        let spec =
            json!({"hosts": ["web"], "http": [{"route": [{"destination": {"host": host}}]}]});
        let mesh = meshed(&[virtual_service("shop", "own", &spec)]);
        let mut ports: Vec<(Option<u16>, u16)> = Vec::new();
        for route in &mesh.translation.mesh.routes {
            let BackendRef::Service { port, .. } = &route.rules[0].backends[0].target else {
                panic!("it leads to a service");
            };
            ports.push((route.parents[0].port, *port));
        }
        ports
    };
    assert_eq!(ports("other"), [(None, 8080)]);
    assert_eq!(ports("web"), [(Some(80), 80), (Some(81), 81)]);
}

#[test]
fn subsets_are_those_that_the_client_sees() {
    let subsets = json!([
        {"name": "v1", "labels": {"version": "v1"}},
        {"name": "v2", "labels": {"version": "v2"}},
        {"name": "all"},
    ]);
    let rule =
        object("DestinationRule", "shop", "web", &json!({"host": "web", "subsets": subsets}));
    let spec = |subset: &str| {
        let destination = json!({"host": "web", "subset": subset, "port": {"number": 80}});
        json!({"hosts": ["web"], "http": [{"route": [{"destination": destination}]}]})
    };
    let mesh = meshed(&[rule.clone(), virtual_service("shop", "own", &spec("v1"))]);
    assert!(mesh.complaints().is_empty(), "{:?}", mesh.complaints());
    let backend = &mesh.translation.mesh.routes[0].rules[0].backends[0];
    assert_eq!(backend.subset.as_deref(), Some("v1"));
    let of = |name: &str| {
        let subset = &mesh.web().traffic.subsets_of("shop", &[])[name];
        let own = mesh.web().endpoints.iter().filter(|it| subset.has(&it.subsets));
        own.map(|it| it.addresses[0].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        (of("v1"), of("v2"), of("all").len()),
        (vec!["10.1.0.1".into()], vec!["10.1.0.2".into()], 2)
    );
    let mesh = meshed(&[rule, virtual_service("shop", "own", &spec("v3"))]);
    assert_eq!(mesh.fields(), ["spec.http[0].route[0].destination.subset"]);
    let target = &mesh.translation.mesh.routes[0].rules[0].backends[0].target;
    assert!(matches!(target, BackendRef::Invalid { status, .. } if status.as_u16() == 503));
}

#[test]
fn what_is_wrong_is_told_with_its_field() {
    let route = || json!([{"destination": {"host": "other"}}]);
    let rule = |more: Value| {
        let mut rule = json!({"route": route()});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"hosts": ["web"], "http": [rule]})
    };
    for (spec, field) in [
        (json!({"hosts": ["nowhere"], "http": [{"route": route()}]}), "spec.hosts[0]"),
        (json!({"hosts": ["10.0.0.1"], "http": [{"route": route()}]}), "spec.hosts[0]"),
        (
            rule(json!({"route": [{"destination": {"host": "gone"}}]})),
            "spec.http[0].route[0].destination.host",
        ),
        (
            rule(json!({"route": [{"destination": {"host": "other", "port": {"number": 1}}}]})),
            "spec.http[0].route[0].destination.port.number",
        ),
        (rule(json!({"route": []})), "spec.http[0]"),
        (rule(json!({"redirect": {"uri": "/x"}})), "spec.http[0].redirect"),
        (rule(json!({"rewrite": {}})), "spec.http[0].rewrite"),
        (rule(json!({"timeout": "soon"})), "spec.http[0].timeout"),
        (
            rule(json!({"fault": {"abort": {"httpStatus": 7}}})),
            "spec.http[0].fault.abort.httpStatus",
        ),
        (
            rule(json!({"headers": {"request": {"set": {"a b": "1"}}}})),
            "spec.http[0].headers.request",
        ),
        (rule(json!({"corsPolicy": {"maxAge": "x"}})), "spec.http[0].corsPolicy.maxAge"),
        (rule(json!({"mirror": {"host": "gone"}})), "spec.http[0].mirror.host"),
        (rule(json!({"match": [{"statPrefix": "x"}]})), "spec.http[0].match[0].statPrefix"),
        (rule(json!({"match": [{"scheme": {"exact": "https"}}]})), "spec.http[0].match[0].scheme"),
        (
            rule(json!({"match": [{"headers": {"@request.auth.claims.a": {"exact": "b"}}}]})),
            "spec.http[0].match[0].headers[\"@request.auth.claims.a\"]",
        ),
        (
            rule(
                json!({"route": [{"destination": {"host": "other"}}, {"destination": {"host": "web", "port": {"number": 80}}}]}),
            ),
            "spec.http[0].route",
        ),
        (
            json!({"hosts": ["web"], "http": [{"delegate": {"name": "gone"}}]}),
            "spec.http[0].delegate",
        ),
        (
            json!({"hosts": ["web"], "http": [{"route": route()}, {"route": route()}]}),
            "spec.http[1]",
        ),
        (json!({"http": [{"route": route()}]}), "spec.hosts"),
        (
            json!({"hosts": ["web"], "gateways": ["mine"], "http": [{"route": route()}]}),
            "spec.gateways",
        ),
    ] {
        let mesh = meshed(&[virtual_service("shop", "own", &spec)]);
        assert_eq!(mesh.fields(), [field], "{spec}: {:?}", mesh.complaints());
    }
}

#[test]
fn a_match_that_cannot_be_read_rejects_the_object() {
    for matched in [json!({"uri": {"regex": "("}}), json!({"uri": {"exact": "/a", "prefix": "/b"}})]
    {
        let route = json!([{"destination": {"host": "other"}}]);
        let spec = json!({"hosts": ["web"], "http": [{"match": [matched], "route": route}]});
        let mesh = meshed(&[virtual_service("shop", "own", &spec)]);
        assert!(mesh.translation.mesh.routes.is_empty());
        let told: Vec<String> =
            mesh.translation.complaints.iter().map(ToString::to_string).collect();
        assert!(told.iter().any(|it| it.contains("match[0]")), "{told:?}");
    }
}

#[test]
fn a_rule_that_cannot_be_carried_out_answers_503() {
    let route = json!([{"destination": {"host": "other"}}]);
    let rules = json!([{"match": [{"uri": {"prefix": "/a"}}], "rewrite": {"uri": "x"}, "route": route}, {"route": route}]);
    let mesh = meshed(&[virtual_service("shop", "own", &json!({"hosts": ["web"], "http": rules}))]);
    let rules = &mesh.translation.mesh.routes[0].rules;
    assert!(matches!(rules[0].backends[0].target, BackendRef::Invalid { .. }));
    assert!(matches!(rules[1].backends[0].target, BackendRef::Service { .. }));
}

#[test]
fn delegates_are_used_where_they_are_exported() {
    let root = |namespace: &str| {
        let delegate = json!({"name": "part", "namespace": namespace});
        let rule = json!({"name": "root", "match": [{"uri": {"prefix": "/a"}}], "timeout": "3s", "delegate": delegate});
        virtual_service("shop", "own", &json!({"hosts": ["web"], "http": [rule]}))
    };
    let part = |namespace: &str, more: Value| {
        let destination = json!({"host": "other.shop.svc.cluster.local"});
        let mut spec = json!({"http": [
            {"name": "narrow", "match": [{"uri": {"prefix": "/a/b"}}], "route": [{"destination": destination}]},
            {"name": "rest", "route": [{"destination": destination}]},
            {"name": "wide", "match": [{"uri": {"prefix": "/b"}}], "route": [{"destination": destination}]},
        ]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        virtual_service(namespace, "part", &spec)
    };
    let mesh = meshed(&[root("parts"), part("parts", json!({}))]);
    for (target, expected) in
        [("/a/b/c", "shop/own.root-narrow"), ("/a/c", "shop/own.root-rest"), ("/b", "no match")]
    {
        assert_eq!(mesh.rule(Ask { target, ..ASK }), expected, "{target}");
    }
    assert_eq!(mesh.fields(), ["spec.http[2].match"]);
    let rules = &mesh.translation.mesh.routes[0].rules;
    let of: Vec<_> = rules.iter().map(|it| it.delegate.as_ref().map(ToString::to_string)).collect();
    assert_eq!(of, [Some("parts/part".to_owned()), Some("parts/part".to_owned())]);
    let timeout = mesh.translation.mesh.routes[0].rules[0].timeouts.request;
    assert_eq!(timeout, Some(std::time::Duration::from_secs(3)));
    let mesh = meshed(&[root("parts"), part("parts", json!({"exportTo": ["."]}))]);
    assert_eq!(mesh.held("shop/near"), "no routes");
    assert_eq!(mesh.fields(), ["spec.http[0].delegate", "spec.hosts"]);
    let mesh = meshed(&[root(""), part("shop", json!({"exportTo": ["."]}))]);
    assert_eq!(mesh.rule(Ask { target: "/a", ..ASK }), "shop/own.root-rest");
}

/// `default` in MeshConfig, by which no VirtualService is hidden from those whom its own `exportTo` names.
#[test]
fn those_without_export_to_go_as_far_as_the_mesh_says() {
    let own = |more: Value| virtual_service("shop", "own", &to("web", "other", more));
    let all = json!({"exportTo": ["*"]});
    for (default, more, near, distant) in [
        ("['.']", json!({}), "shop/own.0", "no routes"),
        ("['*']", json!({}), "shop/own.0", "shop/own.0"),
        ("[]", json!({}), "shop/own.0", "shop/own.0"),
        ("[clients]", json!({}), "no routes", "shop/own.0"),
        ("['~']", json!({}), "no routes", "no routes"),
        ("['.']", all.clone(), "shop/own.0", "shop/own.0"),
        ("['~']", json!({"exportTo": ["clients"]}), "no routes", "shop/own.0"),
    ] {
        let mesh = meshed(&[own(more.clone()), default_export(default)]);
        assert_eq!(mesh.held("shop/near"), near, "{default} {more}");
        assert_eq!(mesh.held("clients/far"), distant, "{default} {more}");
        let told = &mesh.translation.complaints;
        assert!(told.iter().all(|it| it.kind != "ConfigMap"), "{told:#?}");
    }
    // A delegate is as hidden as another one.
    let delegate = json!({"name": "part", "namespace": "parts"});
    let root = json!({"hosts": ["web"], "http": [{"name": "root", "delegate": delegate}], "exportTo": ["*"]});
    let destination = json!({"host": "other.shop.svc.cluster.local"});
    let http = json!([{"name": "part", "route": [{"destination": destination}]}]);
    for (more, held) in [(json!({}), "no routes"), (all, "shop/own.root-part")] {
        let mut part = json!({"http": http});
        part.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (root, part) =
            (virtual_service("shop", "own", &root), virtual_service("parts", "part", &part));
        let mesh = meshed(&[root, part, default_export("['.']")]);
        assert_eq!(mesh.held("shop/near"), held, "{more}");
    }
}

#[test]
fn a_changed_default_of_the_mesh_counts_at_once() {
    let own = virtual_service("shop", "own", &to("web", "other", json!({})));
    let mut translator = Translator::new(TranslateSettings::default());
    for (default, expected) in [("['*']", None), ("['.']", Some(1)), ("['*']", None)] {
        let objects = objects(&format!("{MESH}{own}{}", default_export(default)));
        let translation = translator.translate(&objects, None);
        let holds = translation.mesh.routes[0].holds.as_ref().unwrap();
        assert_eq!(holds.exported.as_ref().map(|it| it.len()), expected, "{default}");
    }
}

fn default_export(namespaces: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
         defaultVirtualServiceExportTo: {namespaces}\n---\n"
    )
}

/// The routes that a VirtualService becomes among these services, for tests with traffic.
pub(crate) fn compiled(
    services: &[Arc<Service>],
    namespace: &str,
    name: &str,
    spec: &Value,
) -> Vec<Arc<crate::model::HttpRoute>> {
    let text = virtual_service(namespace, name, spec);
    let objects = objects(&text);
    let settings = TranslateSettings::default();
    let mut cx = Context { objects: &objects, settings: &settings, complaints: Vec::new() };
    let mut all = VirtualServices::default();
    let what = (&Changes::everything(), &[][..], false);
    all.update(&mut cx, &Sources::default(), what, services, &Routes::default());
    assert!(all.complaints().is_empty(), "{:?}", all.complaints());
    all.models().to_vec()
}
