//! Golden tests: each `tests/golden/source/<name>.yaml` and what it is translated to, `<name>.snap`.

use std::path::PathBuf;

use super::*;
use crate::base::ObjectKey;

pub(super) fn key(text: &str) -> ObjectKey {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    ObjectKey::new(namespace, name)
}

pub(super) fn file(name: &str, text: &str) -> File {
    File { name: name.into(), documents: Ok(parse(text).into()) }
}

pub(crate) fn translated(text: &str) -> Translation {
    translated_with(text, &TranslateSettings::default())
}

pub(super) fn objects(text: &str) -> Objects {
    Objects::from_files(&[file("test.yaml", text)], &Objects::default())
}

pub(super) fn translated_with(text: &str, settings: &TranslateSettings) -> Translation {
    translate(&objects(text), settings)
}

fn golden(name: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/source");
    let file_name = format!("{name}.yaml");
    let text = std::fs::read_to_string(folder.join(&file_name)).expect("the golden input is there");
    let objects = Objects::from_files(&[file(&file_name, &text)], &Objects::default());
    let translation = translate(&objects, &TranslateSettings::default());
    let complaints: Vec<String> = translation.complaints.iter().map(in_words).collect();
    let mut insta = insta::Settings::clone_current();
    insta.set_snapshot_path(folder);
    insta.set_prepend_module_to_snapshot(false);
    insta.set_omit_expression(true);
    insta.bind(|| insta::assert_yaml_snapshot!(name, (&translation.mesh, complaints)));
}

/// With the condition of a route's status.
fn in_words(complaint: &Complaint) -> String {
    let words = format!("{}: {complaint}", complaint.severity);
    let Some(condition @ Condition { kind, reason, parent }) = complaint.condition else {
        return words;
    };
    let parent = parent.map(|index| format!(" of parent {index}")).unwrap_or_default();
    format!("{words} [{}={} {}{parent}]", kind.name(), condition.status(), reason.name())
}

#[test]
fn bookinfo() {
    golden("bookinfo");
}

#[test]
fn waypoint_bindings() {
    golden("waypoint-bindings");
}

#[test]
fn services_and_workloads() {
    golden("services");
}

#[test]
fn service_entries() {
    golden("service-entries");
}

#[test]
fn routes() {
    golden("routes");
}

#[test]
fn route_filters() {
    golden("route-filters");
}

#[test]
fn traffic_policies() {
    golden("traffic-policies");
}

#[test]
fn grpc_routes() {
    golden("grpc-routes");
}

#[test]
fn stream_routes() {
    golden("stream-routes");
}

#[test]
fn authorization_policies() {
    golden("authorization-policies");
}

#[test]
fn what_does_not_do_what_it_seems_to_do() {
    golden("complaints");
}

#[test]
fn kinds_that_are_not_carried_out() {
    golden("unserved");
}

#[test]
fn destination_rules() {
    golden("destination-rules");
}

#[test]
fn virtual_services() {
    golden("virtual-services");
}

#[test]
fn telemetry() {
    golden("telemetry");
}

#[test]
fn refused_documents() {
    golden("refused");
}

#[test]
fn real_files() {
    golden("real-files");
}

#[test]
fn unreadable_documents() {
    golden("unreadable");
}

#[test]
fn the_translation_is_a_function_of_the_objects() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/source");
    let one = check(&folder, &TranslateSettings::default()).expect("the directory is there");
    let two = check(&folder, &TranslateSettings::default()).expect("the directory is there");
    assert!(one.says_the_same_as(&two));
    assert!(!one.mesh.workloads.is_empty());
    assert!(one.complaints.is_sorted());
    assert!(check(&folder.join("missing"), &TranslateSettings::default()).is_err());
}

#[test]
fn routes_that_did_not_change_go_on_where_they_were() {
    use std::sync::atomic::Ordering::Relaxed;
    let text = |weight| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{port: 80}}]}}\n\
             ---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec:\n  \
             parentRefs: [{{group: '', kind: Service, name: s}}]\n  \
             rules: [{{backendRefs: [{{name: s, port: 80, weight: {weight}}}]}}]\n"
        )
    };
    let turn = |translation: &Translation| translation.mesh.routes[0].rules[0].turn.clone();
    let (mut objects, mut translator) =
        (Objects::default(), Translator::new(TranslateSettings::default()));
    let mut follow = |text: String| {
        let now = Objects::from_files(&[file("test.yaml", &text)], &objects);
        let changed = now.differing(&std::mem::replace(&mut objects, now.clone()));
        translator.translate(&now, Some(&changed))
    };
    let first = follow(text(1));
    turn(&first).store(7, Relaxed);
    // Read anew, it is another object that says the same.
    let same = follow(text(1));
    assert_eq!(turn(&same).load(Relaxed), 7);
    let changed = follow(text(2));
    turn(&changed).store(1, Relaxed);
    assert_eq!(turn(&first).load(Relaxed), 7);
}

/// Whatever one wrong or missing character makes of a policy's text, some policy is in force or denies in its place.
#[test]
fn one_wrong_character_loses_no_policy() {
    let block = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: p\n  namespace: shop\n\
                 spec:\n  action: DENY\n  rules:\n  - to:\n    - operation:\n        paths: [\"/admin*\"]\n";
    let json = "{\"kind\":\"AuthorizationPolicy\",\"apiVersion\":\"security.istio.io/v1\",\"metadata\":{\"name\":\"p\",\
                \"namespace\":\"shop\"},\"spec\":{\"action\":\"DENY\",\"rules\":[{}]}}";
    let list = format!("apiVersion: v1\nkind: List\nitems: [{json}]\n");
    let wrong = ["", "\"", "{", "}", ":", "\n", "\t", "x", "-", "]", "\\", "|", ","];
    for text in [block, json, &list] {
        for at in 0..text.len() {
            for wrong in wrong {
                for rest in [&text[at..], &text[at + 1..]] {
                    let damaged = format!("{}{wrong}{rest}", &text[..at]);
                    assert!(!translated(&damaged).mesh.policies.is_empty(), "{damaged}");
                }
            }
        }
    }
}

#[test]
fn many_objects_that_are_not_carried_out_are_counted() {
    let one = |index: usize| {
        format!(
            "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: v{index}}}\nspec: {{}}\n---\n"
        )
    };
    let complaints = translated(&(0..1000).map(one).collect::<String>()).complaints;
    assert!(complaints.len() < 30, "{}", complaints.len());
    assert!(complaints.iter().any(|it| it.object.is_none() && it.reason.starts_with("980 more")));
}

/// Objects that lead nowhere say so.
#[test]
fn what_has_no_effect_is_said() {
    let service = |rest: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: n}}\n\
             spec: {{clusterIP: 10.96.0.9, {rest} ports: [{{name: http, port: 80}}]}}\n"
        )
    };
    let slice = |port: &str, by: &str| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: x, namespace: n, \
             labels: {{kubernetes.io/service-name: s, endpointslice.kubernetes.io/managed-by: {by}}}}}\n\
             addressType: IPv4\nports: [{{name: {port}, port: 8080}}]\nendpoints: [{{addresses: [10.0.0.9]}}]\n"
        )
    };
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: n}\n\
                 spec: {rules: [{backendRefs: [{name: s, port: 80, weight: 1}]}]}\n";
    let selector = "selector: {app: s},";
    for (text, expected) in [
        (service("") + &slice("http", "me"), None),
        (service("") + &slice("web", "me"), Some("spec.ports (port 80): no EndpointSlice")),
        (service(selector) + &slice("http", "me"), Some("spec.selector: selects the endpoints")),
        (service(selector) + &slice("http", "endpointslice-controller.k8s.io"), None),
        (route.to_owned(), Some("spec.parentRefs: are missing")),
    ] {
        let complaints = translated(&text).complaints;
        let told: Vec<String> =
            complaints.iter().map(|it| format!("{}: {}", it.field, it.reason)).collect();
        match expected {
            Some(start) => assert!(told.iter().any(|it| it.starts_with(start)), "{text}: {told:?}"),
            None => assert!(told.is_empty(), "{text}: {told:?}"),
        }
    }
}

/// Each object alone in a mesh with one pod, and the beginning of what is said of it.
#[test]
fn what_leads_nowhere_says_what_to_do() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: n, labels: {app: s}}\nstatus: {podIP: 10.0.0.1}\n---\n";
    let of = |api: &str, kind: &str, metadata: &str, spec: &str| {
        format!(
            "apiVersion: {api}\nkind: {kind}\nmetadata: {{name: o, namespace: n{metadata}}}\n{spec}\n---\n"
        )
    };
    let entry = |spec: &str| {
        let spec = format!("spec: {{hosts: [x.example], {spec}}}");
        of("networking.istio.io/v1", "ServiceEntry", "", &spec)
    };
    let ports = "ports: [{number: 80, name: http}]";
    let other = |spec: &str| {
        of(
            "networking.istio.io/v1",
            "WorkloadEntry",
            ", labels: {app: v}",
            &format!("spec: {spec}"),
        )
    };
    let service =
        |metadata: &str, spec: &str| of("v1", "Service", metadata, &format!("spec: {{{spec}}}"));
    let selecting = |app: &str| {
        service(
            "",
            &format!("clusterIP: 10.96.0.9, selector: {{app: {app}}}, ports: [{{port: 80}}]"),
        )
    };
    let gateway = |spec: &str| {
        let listener = "{name: mesh, port: 15008, protocol: HBONE";
        let spec =
            format!("spec: {{gatewayClassName: istio-waypoint, listeners: [{listener}{spec}}}");
        of("gateway.networking.k8s.io/v1", "Gateway", "", &spec)
    };
    let slice = |labels: &str, kind: &str, address: &str| {
        let rest = format!(
            "addressType: {kind}\nendpoints: [{{addresses: [{address}]}}]\nports: [{{port: 80}}]"
        );
        of("discovery.k8s.io/v1", "EndpointSlice", labels, &rest)
    };
    let named = ", labels: {kubernetes.io/service-name: o}";
    let place = |annotations: &str, spec: &str| {
        let metadata = format!(", annotations: {{isthmus.io/network-namespace: x{annotations}}}");
        of("v1", "Pod", &metadata, spec)
    };
    let policy = |kind: &str, app: &str| {
        let spec = format!("spec: {{selector: {{matchLabels: {{app: {app}}}}}}}");
        of("security.istio.io/v1", kind, "", &spec)
    };
    for (text, expected) in [
        (
            entry(&format!("resolution: DNS, {}", ports.replace('}', ", protocol: HTPP}"))),
            "spec.ports[0].protocol: \"HTPP\" is no",
        ),
        (entry("resolution: DNS"), "spec.ports: are missing"),
        (entry(ports), "spec.addresses: x.example has no address"),
        (
            entry(&format!("resolution: STATIC, {ports}, endpoints: [{{address: 'unix:///x'}}]")),
            "spec.endpoints[0].address: \"unix:///x\" is a Unix socket",
        ),
        (
            entry(&format!(
                "resolution: STATIC, {ports}, endpoints: [{{address: 192.0.2.1, ports: {{web: 8080}}}}]"
            )),
            "spec.endpoints[0].ports[web]: no port of the entry",
        ),
        (
            entry(&format!(
                "resolution: STATIC, {ports}, workloadSelector: {{labels: {{app: t}}}}"
            )),
            "spec.workloadSelector: selects no pod",
        ),
        (other("{address: 'unix:///x'}"), "spec.address: \"unix:///x\" is a Unix socket"),
        (other("{address: '10.0.0.1:80'}"), "spec.address: \"10.0.0.1:80\" is neither"),
        (
            other("{address: db.example}") + &selecting("v"),
            "spec.selector: selects WorkloadEntries",
        ),
        (
            service(
                ", labels: {istio.io/use-waypoint: w}",
                "type: ExternalName, externalName: y.example",
            ),
            "metadata.labels[\"istio.io/use-waypoint\"]: has no effect on a Service of type ExternalName",
        ),
        (selecting("t"), "spec.selector: selects no pod"),
        (gateway("}, {name: web, port: 80, protocol: HTTP}]"), "spec.listeners[1]: has no effect"),
        (gateway(", hostname: x.example}]"), "spec.listeners[0].hostname: has no effect"),
        (gateway("}], addresses: [{value: 10.0.0.1}]"), "spec.addresses: has no effect"),
        (
            gateway("}], infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: c}}"),
            "spec.infrastructure.parametersRef: has no effect",
        ),
        (
            slice("", "IPv4", "10.0.0.1"),
            "metadata.labels[\"kubernetes.io/service-name\"]: is missing",
        ),
        (
            slice(named, "IPv4", "10.0.0.1"),
            "metadata.labels[\"kubernetes.io/service-name\"]: there is no Service n/o",
        ),
        (
            slice(named, "FQDN", "y.example")
                + &service("", "clusterIP: 10.96.0.9, ports: [{port: 80}]"),
            "spec.selector: the EndpointSlice o lists host names",
        ),
        (place(", isthmus.io/node: a", ""), "status.podIP: is missing"),
        (
            place("", "status: {podIP: 10.0.0.2}"),
            "metadata.annotations[\"isthmus.io/node\"]: is missing",
        ),
        (
            place(", isthmus.io/node: a", "spec: {hostNetwork: true}\nstatus: {podIP: 10.0.0.2}"),
            "metadata.annotations[\"isthmus.io/network-namespace\"]: \"x\" has no effect",
        ),
        (policy("AuthorizationPolicy", "t"), "spec.selector: selects no pod of the namespace"),
        (policy("RequestAuthentication", "t"), "spec.selector: selects no pod of the namespace"),
        (policy("PeerAuthentication", "t"), "spec.selector: selects no pod of the namespace"),
    ] {
        let complaints = translated(&(pod.to_owned() + &text)).complaints;
        let told: Vec<String> =
            complaints.iter().map(|it| format!("{}: {}", it.field, it.reason)).collect();
        assert!(told.iter().any(|it| it.starts_with(expected)), "{text}: {told:?}");
    }
    for text in [
        selecting("s"),
        policy("AuthorizationPolicy", "s"),
        policy("PeerAuthentication", "s"),
        gateway("}]"),
        place(", isthmus.io/node: a", "status: {podIP: 10.0.0.2}"),
    ] {
        let complaints = translated(&(pod.to_owned() + &text)).complaints;
        assert!(complaints.is_empty(), "{text}: {complaints:?}");
    }
    // Without any pod, nothing is known of what selects pods.
    let complaints = translated(&(selecting("t") + &policy("PeerAuthentication", "t"))).complaints;
    assert!(complaints.is_empty(), "{complaints:?}");
}
