//! Rules of connections.

use serde_json::{Value, json};

use super::{meshed, virtual_service};
use crate::model::BackendRef;
use crate::route;

/// TLSMatchAttributes and L4MatchAttributes, field by field, over the decision on a connection.
#[test]
fn rules_of_connections() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\n\
                   spec: {clusterIP: 10.0.0.9, ports: [{name: tcp, port: 5432}, {name: http, port: 80}]}\n---\n";
    let decided = |spec: Value, client: &str, port: u16| {
        let mesh = meshed(&[service.to_owned(), virtual_service("shop", "own", &spec)]);
        assert!(mesh.complaints().is_empty(), "{:?}", mesh.complaints());
        let client = mesh.world.workload(&format!("Kubernetes//Pod/{client}")).unwrap();
        let to = |route: &crate::model::StreamRoute| match &route.backends[0].target {
            BackendRef::Service { service, port } => format!("{}:{port}", service.name),
            BackendRef::Invalid { why, .. } => why.to_string(),
        };
        match route::decide(&mesh.world, client, format!("10.0.0.9:{port}").parse().unwrap()) {
            route::Decision::Service { .. } => "service".to_owned(),
            route::Decision::Routed { routes: route::Streams::Tcp(route), .. } => to(&route),
            route::Decision::Routed { routes: route::Streams::Named { rules, rest }, .. } => {
                let rules: Vec<String> = rules
                    .iter()
                    .map(|(names, route)| format!("{} {}", names.len(), to(route)))
                    .collect();
                format!(
                    "{} or {}",
                    rules.join(", "),
                    rest.map_or("service".to_owned(), |it| to(&it))
                )
            }
            other => format!("{other:?}"),
        }
    };
    let to = |host: &str| json!([{"destination": {"host": host, "port": {"number": 8080}}}]);
    let tcp = |matched: Value| json!({"hosts": ["db"], "tcp": [{"match": [matched], "route": to("other")}]});
    let (near, far) = ("shop/near", "clients/far");
    for (spec, client, port, expected) in [
        (json!({"hosts": ["db"], "tcp": [{"route": to("other")}]}), near, 5432, "other:8080"),
        (json!({"hosts": ["db"], "tcp": [{"route": to("other")}]}), near, 80, "service"),
        (tcp(json!({"port": 5432})), near, 5432, "other:8080"),
        (tcp(json!({"port": 5433})), near, 5432, "service"),
        (tcp(json!({"destinationSubnets": ["10.0.0.0/24"]})), near, 5432, "other:8080"),
        (tcp(json!({"destinationSubnets": ["10.0.0.9"]})), near, 5432, "other:8080"),
        (tcp(json!({"destinationSubnets": ["10.0.1.0/24"]})), near, 5432, "service"),
        (tcp(json!({"sourceLabels": {"app": "near"}})), near, 5432, "other:8080"),
        (tcp(json!({"sourceLabels": {"app": "near"}})), far, 5432, "service"),
        (tcp(json!({"sourceNamespace": "clients"})), far, 5432, "other:8080"),
        (tcp(json!({"sourceNamespace": "clients"})), near, 5432, "service"),
        (tcp(json!({"gateways": ["mesh"]})), near, 5432, "other:8080"),
        (tcp(json!({"gateways": ["mine"]})), near, 5432, "service"),
        (
            json!({"hosts": ["db"], "tls": [{"match": [{"sniHosts": ["a.example", "*.b.example"]}], "route": to("other")}]}),
            near,
            5432,
            "2 other:8080 or service",
        ),
        (
            json!({
                "hosts": ["db"],
                "tls": [{"match": [{"sniHosts": ["a.example"], "sourceNamespace": "clients"}], "route": to("other")}],
                "tcp": [{"route": [{"destination": {"host": "web", "port": {"number": 80}}}]}],
            }),
            far,
            5432,
            "1 other:8080 or web:80",
        ),
        (
            json!({
                "hosts": ["db"],
                "tls": [{"match": [{"sniHosts": ["a.example"], "sourceNamespace": "clients"}], "route": to("other")}],
                "tcp": [{"route": [{"destination": {"host": "web", "port": {"number": 80}}}]}],
            }),
            near,
            5432,
            "web:80",
        ),
        (
            json!({"hosts": ["db"], "exportTo": ["clients"], "tcp": [{"route": to("other")}]}),
            near,
            5432,
            "service",
        ),
        (
            json!({"hosts": ["db"], "exportTo": ["clients"], "tcp": [{"route": to("other")}]}),
            far,
            5432,
            "other:8080",
        ),
    ] {
        assert_eq!(decided(spec.clone(), client, port), expected, "{spec} {client}");
    }
}
