use std::sync::Arc;

use crate::model::{Binding, Preference, Resolution, Service, Visibility};
use crate::source::TranslateSettings;
use crate::source::tests::{translated, translated_with};

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: a, labels: {app: p}}\n\
    status: {podIP: 10.0.0.9}\n---\n";

fn entry(name: &str, created: &str, spec: &str) -> String {
    let created = match created {
        "" => String::new(),
        time => format!(", creationTimestamp: '{time}'"),
    };
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
         metadata: {{name: {name}, namespace: a{created}}}\nspec: {spec}\n---\n"
    )
}

fn services(text: &str) -> Vec<Arc<Service>> {
    translated(text).mesh.services.into_iter().filter(|it| it.entry.is_some()).collect()
}

fn only(text: &str) -> Arc<Service> {
    let mut found = services(text);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn complaints(text: &str) -> String {
    let complaints = translated(text).complaints;
    complaints.iter().map(|it| format!("{}: {it}\n", it.severity)).collect()
}

#[test]
fn the_oldest_entry_has_the_host_and_kubernetes_before_it() {
    let spec = "{hosts: [x.example], addresses: [192.0.2.1], ports: [{number: 80}]}";
    let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    for (one, other, winner) in
        [(old, new, "one"), (new, old, "two"), (old, old, "one"), ("", new, "two"), ("", "", "one")]
    {
        let text = entry("one", one, spec) + &entry("two", other, spec);
        assert_eq!(*only(&text).name(), winner, "{one} {other}");
        let said = complaints(&text);
        assert!(said.contains(&format!("belongs to ServiceEntry a/{winner}/x.example")), "{said}");
    }
    let kubernetes = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: a}\n\
                      spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n---\n";
    let host = "{hosts: [S.a.svc.cluster.local.], addresses: [192.0.2.1]}";
    let text = entry("one", old, host) + kubernetes;
    assert!(services(&text).is_empty());
    assert!(complaints(&text).contains("belongs to Service a/s already"));
}

#[test]
fn addresses_are_allotted_where_dns_needs_one() {
    let spec = |addresses: &str, resolution: &str| {
        format!(
            "{{hosts: [x.example], addresses: [{addresses}], resolution: {resolution}, \
             endpoints: [{{address: 192.0.2.9}}], ports: [{{number: 80}}]}}"
        )
    };
    let vips = |text: &str| only(text).vips.iter().map(ToString::to_string).collect::<Vec<_>>();
    for resolution in ["STATIC", "DNS", "DNS_ROUND_ROBIN"] {
        let allotted = vips(&entry("e", "", &spec("", resolution)));
        assert!(allotted[0].starts_with("240.240.") && allotted[1].starts_with("2001:2::"));
        assert_eq!(vips(&entry("e", "", &spec("192.0.2.1", resolution))), ["192.0.2.1"]);
        assert!(vips(&entry("e", "", &spec("192.0.2.0/24", resolution))).is_empty());
    }
    assert!(vips(&entry("e", "", &spec("", "NONE"))).is_empty());
    let opted_out = entry("e", "", &spec("", "STATIC")).replace(
        "namespace: a",
        "namespace: a, labels: {networking.istio.io/enable-autoallocate-ip: 'false'}",
    );
    assert!(vips(&opted_out).is_empty());
}

#[test]
fn addresses_are_single_ones_or_networks() {
    let spec = "{hosts: [x.example], addresses: [192.0.2.1, 192.0.2.77/24, 'fd00::1', 'fd00::/64', \
                192.0.2.2/32, nonsense], ports: [{number: 80}]}";
    let text = entry("e", "", spec);
    let service = only(&text);
    let texts = |it: &mut dyn Iterator<Item = String>| it.collect::<Vec<_>>();
    assert_eq!(
        texts(&mut service.vips.iter().map(ToString::to_string)),
        ["192.0.2.1", "fd00::1", "192.0.2.2"]
    );
    assert_eq!(
        texts(&mut service.networks.iter().map(ToString::to_string)),
        ["192.0.2.0/24", "fd00::/64"]
    );
    assert!(complaints(&text).contains("spec.addresses[5]: \"nonsense\" is neither"));
}

#[test]
fn ports_of_endpoints_go_by_name_then_by_target_port() {
    let spec = "{hosts: [x.example], resolution: STATIC, \
        ports: [{number: 80, name: http, targetPort: 8080}, {number: 5432, name: tcp-db, protocol: TCP}, \
        {number: 53, name: dns, protocol: UDP}, {number: 443, name: x, protocol: HTTPS}], \
        endpoints: [{address: 192.0.2.1, ports: {http: 9090}, weight: 3, locality: r/z/s}, {address: 10.0.0.9}]}";
    let service = only(&(POD.to_owned() + &entry("e", "", spec)));
    let targets = |index: usize| -> Vec<u16> {
        service.endpoints[index].ports.iter().map(|it| it.target).collect()
    };
    assert_eq!((targets(0), targets(1)), (vec![9090, 5432, 443], vec![8080, 5432, 443]));
    let protocols: Vec<_> = service.ports.iter().map(|it| format!("{:?}", it.protocol)).collect();
    assert_eq!(protocols, ["Http", "Tcp", "Tcp"]);
    let [one, pod] = &service.endpoints[..] else { panic!("{service:?}") };
    assert_eq!(
        (one.weight, one.locality.region.as_str(), one.locality.subzone.as_str()),
        (3, "r", "s")
    );
    assert!(service.balancing.weighted && one.workload.is_none());
    assert_eq!(pod.workload.as_deref(), Some("Kubernetes//Pod/a/p"), "found by its address");
}

#[test]
fn a_selector_takes_pods_and_workload_entries() {
    let other = "apiVersion: networking.istio.io/v1beta1\nkind: WorkloadEntry\n\
        metadata: {name: vm, namespace: a, labels: {tier: x}}\n\
        spec: {address: 192.0.2.5, ports: {http: 8181}, labels: {app: p}, serviceAccount: vm}\n---\n";
    let spec = "{hosts: [x.example], resolution: STATIC, ports: [{number: 80, name: http}], \
        workloadSelector: {labels: {app: p}}}";
    let service = only(&(POD.to_owned() + other + &entry("e", "", spec)));
    let found: Vec<_> = service
        .endpoints
        .iter()
        .map(|it| (it.addresses[0].to_string(), it.ports[0].target, it.workload.is_some()))
        .collect();
    let expected = [("10.0.0.9".to_owned(), 80, true), ("192.0.2.5".to_owned(), 8181, false)];
    assert_eq!(found, expected);
}

#[test]
fn a_kubernetes_service_selects_workload_entries_too() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: a}\n\
        spec: {clusterIP: 10.96.0.1, selector: {app: p}, ports: [{name: http, port: 80, targetPort: 8080}, \
        {name: admin, port: 81, targetPort: adm}, {name: x, port: 82, targetPort: nowhere}]}\n---\n\
        apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: vm, namespace: a}\n\
        spec: {address: 192.0.2.5, ports: {adm: 9001}, labels: {app: p}, locality: r/z}\n---\n";
    let services = translated(&(POD.to_owned() + text)).mesh.services;
    let [pod, vm] = &services[0].endpoints[..] else { panic!("{services:?}") };
    assert!(pod.workload.is_some() && vm.workload.is_none());
    let ports: Vec<_> = vm.ports.iter().map(|it| (it.port, it.target)).collect();
    assert_eq!((ports, vm.locality.zone.as_str()), (vec![(80, 8080), (81, 9001)], "z"));
}

/// Every host of the entry is a parent; a host of the namespace may be a backend.
#[test]
fn routes_know_entries() {
    let spec =
        "{hosts: [x.example, y.example], resolution: DNS, ports: [{number: 80, name: http}]}";
    let none = "{hosts: [z.example], ports: [{number: 80, name: http}]}";
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
        metadata: {name: r, namespace: a}\nspec:\n  \
        parentRefs: [{group: networking.istio.io, kind: ServiceEntry, name: e, sectionName: http}, \
        {group: networking.istio.io, kind: ServiceEntry, name: gone}]\n  \
        rules: [{backendRefs: [{group: networking.istio.io, kind: Hostname, name: y.example, port: 80}, \
        {group: networking.istio.io, kind: Hostname, name: z.example, port: 80}, \
        {group: networking.istio.io, kind: Hostname, name: y.example, port: 81}, \
        {group: networking.istio.io, kind: Hostname, name: w.example, port: 80}]}]\n---\n";
    let text = entry("e", "", spec) + &entry("none", "", none) + route;
    let routes = translated(&text).mesh.routes;
    let parents: Vec<_> =
        routes[0].parents.iter().map(|it| format!("{} {:?}", it.service, it.port)).collect();
    assert_eq!(parents, ["a/e/x.example Some(80)", "a/e/y.example Some(80)"]);
    let backends: Vec<_> = routes[0].rules[0]
        .backends
        .iter()
        .map(|it| match &it.target {
            crate::model::BackendRef::Service { service, port } => format!("{service} {port}"),
            crate::model::BackendRef::Invalid { .. } => "invalid".to_owned(),
        })
        .collect();
    assert_eq!(backends, ["a/e/y.example 80", "invalid", "invalid", "invalid"]);
    let said = complaints(&text);
    for expected in
        ["a/gone does not exist", "has the resolution NONE", "no such TCP port", "host w.example"]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn names_are_endpoints_where_the_resolution_is_dns() {
    let spec = |hosts: &str, endpoints: &str| {
        format!(
            "{{hosts: [{hosts}], resolution: DNS, ports: [{{number: 80}}], endpoints: [{endpoints}]}}"
        )
    };
    let names = |text: &str| -> Vec<String> {
        let service = only(text);
        assert_eq!(service.resolution, Resolution::Names);
        service.endpoints.iter().map(|it| it.name.clone().unwrap_or_default().to_string()).collect()
    };
    assert_eq!(names(&entry("e", "", &spec("X.example", ""))), ["x.example"]);
    let listed = "{address: A.example.}, {address: 192.0.2.1}, {address: 'a b'}";
    let text = entry("e", "", &spec("x.example", listed));
    assert_eq!(names(&text), ["a.example", ""]);
    assert!(complaints(&text).contains("spec.endpoints[2].address: \"a b\" is neither"));
    let wildcard = entry("e", "", &spec("'*.example'", ""));
    assert!(names(&wildcard).is_empty());
    assert!(complaints(&wildcard).contains("*.example is no name that could be resolved"));
}

/// Each of these would otherwise do something else than it says.
#[test]
fn what_cannot_be_carried_out_is_said() {
    let of = |spec: &str| complaints(&(POD.to_owned() + &entry("e", "", spec)));
    for (spec, expected) in [
        (
            "{hosts: [x.example], resolution: ELSEWHERE}",
            "error: test.yaml, document 2: ServiceEntry a/e: spec.resolution",
        ),
        ("{hosts: []}", "spec.hosts: is empty"),
        ("{hosts: ['*']}", "spec.hosts[0]: \"*\" is no host name"),
        (
            "{hosts: [x.example], exportTo: ['*']}",
            "warning: test.yaml, document 2: ServiceEntry a/e: spec.exportTo",
        ),
        ("{hosts: [x.example], location: ELSEWHERE}", "spec.location"),
        ("{hosts: [x.example], resolution: STATIC}", "spec.endpoints: are missing"),
        (
            "{hosts: [x.example], endpoints: [{address: 192.0.2.1}]}",
            "have no effect with the resolution NONE",
        ),
        ("{hosts: [x.example], ports: [{number: 0}]}", "spec.ports[0].number: 0 to 0 is no port"),
        (
            "{hosts: [x.example], resolution: STATIC, endpoints: [{address: 127.0.0.1}], ports: [{number: 1}]}",
            "127.0.0.1 is no address that others can reach",
        ),
        (
            "{hosts: [x.example], resolution: STATIC, endpoints: [{address: a.example}], ports: [{number: 1}]}",
            "is no IP address, which the resolution STATIC wants",
        ),
        (
            "{hosts: [x.example], resolution: STATIC, endpoints: [{address: 192.0.2.1, network: far}], ports: [{number: 1}]}",
            "other networks cannot be reached",
        ),
        ("{hosts: [x.example], adresses: [192.0.2.1]}", "unknown field `adresses`"),
    ] {
        let said = of(spec);
        assert!(said.contains(expected), "{spec}: {said}");
    }
    let good = "{hosts: [x.example], addresses: [192.0.2.1], ports: [{number: 80}], exportTo: [.], location: MESH_INTERNAL}";
    assert_eq!(of(good), "");
}

/// Who sees an entry: its own namespace, unless its namespace is trusted with others' traffic.
#[test]
fn an_entry_is_seen_where_it_may_claim_something() {
    let own = || Some("a".to_owned());
    let everybody = None;
    for (trusted, host, export, expected) in [
        // Not trusted.
        (&[][..], "x.example", "", own()),
        (&[], "x.example", "'*'", own()),
        (&[], "x.example", "b", Some(String::new())),
        (&[], "x.example", "., b", own()),
        (&["b"], "x.example", "", own()),
        // Trusted; `exportTo` narrows.
        (&["a"], "x.example", "", everybody.clone()),
        (&["*"], "x.example", "", everybody.clone()),
        (&["a"], "x.example", "'*', b", everybody.clone()),
        (&["a"], "x.example", ".", own()),
        (&["a"], "x.example", "b, ., b", Some("b a".to_owned())),
        (&["a"], "x.example", "'~'", Some(String::new())),
        // Names of Services belong to their namespaces.
        (&["*"], "s.b.svc.cluster.local", "", own()),
        (&["*"], "x.s.b.svc.cluster.local", "", own()),
        (&["*"], "'*.b.svc.cluster.local'", "", own()),
        (&["*"], "svc.cluster.local", "", own()),
        (&["*"], "'*.cluster.local'", "", own()),
        (&["*"], "'*.local'", "", own()),
        (&["*"], "s.a.svc.cluster.local", "", everybody.clone()),
        (&["*"], "'*.a.svc.cluster.local'", "", everybody.clone()),
        (&["*"], "cluster.local", "", everybody.clone()),
        (&["*"], "xsvc.cluster.local", "", everybody.clone()),
        (&["*"], "'*.example'", "", everybody.clone()),
    ] {
        let spec = format!("{{hosts: [{host}], exportTo: [{export}]}}");
        let trusted: Vec<_> = trusted.iter().map(|name| (*name).into()).collect();
        let settings =
            TranslateSettings { public_service_entries: trusted, ..TranslateSettings::default() };
        let translation = translated_with(&entry("e", "", &spec), &settings);
        let said = translation.complaints.iter().any(|it| it.field == "spec.hosts[0]");
        let service_name = expected == own() && host.contains("local");
        assert_eq!(said, service_name, "{host} {export}");
        let mesh = translation.mesh;
        let seen = match &mesh.services[0].visibility {
            Visibility::Everywhere => None,
            Visibility::Namespaces(names) => Some(names.join(" ")),
        };
        assert_eq!(seen, expected, "{host} {export}");
    }
    let root = entry("e", "", "{hosts: [s.b.svc.cluster.local]}")
        .replace("namespace: a", "namespace: istio-system");
    assert_eq!(only(&root).visibility, Visibility::Everywhere);
}

/// MeshConfig is the root namespace's, which has a say in everybody's traffic.
#[test]
fn mesh_config_says_who_sees_the_entries_of_a_namespace() {
    let selects = |team: &str, visibility: &str| {
        let selector = format!("namespaceSelector: {{matchLabels: {{team: {team}}}}}");
        format!("policies: [{{visibility: {visibility}, matchingRules: [{{{selector}}}]}}]")
    };
    let everybody = Visibility::Everywhere;
    let only_in =
        |names: &[&str]| Visibility::Namespaces(names.iter().map(|name| (*name).into()).collect());
    for (said, namespace, export, expected) in [
        ("".to_owned(), "a", "", only_in(&["a"])),
        ("defaultVisibility: PUBLIC".into(), "a", "", everybody.clone()),
        ("defaultVisibility: PUBLIC".into(), "a", "., b", only_in(&["a", "b"])),
        ("defaultVisibility: NAMESPACE".into(), "a", "'*'", only_in(&["a"])),
        ("defaultVisibility: NONE".into(), "a", "", only_in(&[])),
        ("".into(), "istio-system", "", everybody.clone()),
        ("defaultVisibility: NAMESPACE".into(), "istio-system", "", only_in(&["istio-system"])),
        (selects("blue", "PUBLIC"), "a", "", everybody),
        (selects("red", "PUBLIC"), "a", "", only_in(&["a"])),
        (format!("defaultVisibility: PUBLIC, {}", selects("blue", "NONE")), "a", "", only_in(&[])),
    ] {
        let spec = format!("{{hosts: [x.example], exportTo: [{export}]}}");
        let entry =
            entry("e", "", &spec).replace("namespace: a", &format!("namespace: {namespace}"));
        let labels =
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {team: blue}}\n---\n";
        let mesh = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
             data:\n  mesh: |\n    serviceEntryVisibility: {{{said}}}\n---\n"
        );
        let seen = &only(&format!("{labels}{mesh}{entry}")).visibility;
        assert_eq!(*seen, expected, "{said} {namespace} {export}");
    }
}

#[test]
fn mesh_config_says_the_export_of_entries_without_one() {
    for (default, export, expected) in [
        ("['.']", "", Some("a")),
        ("['.']", "'*'", None),
        ("['*']", "", None),
        ("['~']", "", Some("")),
        ("['.', b]", "", Some("a b")),
        ("[]", "", None),
    ] {
        let entry = entry("e", "", &format!("{{hosts: [x.example], exportTo: [{export}]}}"));
        let mesh = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
             data:\n  mesh: |\n    defaultServiceExportTo: {default}\n    serviceEntryVisibility: {{defaultVisibility: PUBLIC}}\n---\n"
        );
        let seen = match &only(&format!("{mesh}{entry}")).visibility {
            Visibility::Everywhere => None,
            Visibility::Namespaces(names) => Some(names.join(" ")),
        };
        assert_eq!(seen.as_deref(), expected, "{default} {export}");
    }
}

/// No namespace moves or uses up what another one's entries are allotted.
#[test]
fn entries_are_allotted_among_those_that_are_seen_together() {
    let spec = "{hosts: [api.example], resolution: STATIC, endpoints: [{address: 192.0.2.9}], \
                ports: [{number: 80}]}";
    let victim = entry("e", "2026-02-01T00:00:00Z", spec);
    let vips = only(&victim).vips.clone();
    let steal = |namespace: &str| {
        let spec = format!("{{hosts: [x.example], addresses: ['{}', '{}']}}", vips[0], vips[1]);
        let theirs = entry("theirs", "2026-01-01T00:00:00Z", &spec);
        let services = services(&(victim.clone() + &theirs.replace("namespace: a", namespace)));
        let victims = services.iter().find(|service| &*service.hostname == "api.example");
        victims.unwrap().vips.clone()
    };
    assert_eq!(steal("namespace: evil"), vips);
    assert_ne!(steal("namespace: a"), vips, "its own namespace's");
    assert_ne!(steal("namespace: istio-system"), vips, "everybody's");
}

#[test]
fn an_endpoint_is_never_a_virtual_address() {
    let kubernetes = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: a}\n\
                      spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n---\n";
    let spec = "{hosts: [x.example], resolution: STATIC, endpoints: [{address: 10.96.0.1}], ports: [{number: 80}]}";
    let text = kubernetes.to_owned() + &entry("e", "", spec);
    assert!(only(&text).endpoints.is_empty());
    assert!(complaints(&text).contains("is the virtual address of Service a/s"));
}

#[test]
fn an_entry_takes_no_address_of_the_mesh() {
    let kubernetes = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: a}\n\
                      spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n---\n";
    let spec = "{hosts: [x.example], addresses: [10.96.0.1, 10.0.0.9, 192.0.2.1]}";
    let said = complaints(&(kubernetes.to_owned() + POD + &entry("e", "", spec)));
    assert!(said.contains("10.96.0.1 belongs to Service a/s"), "{said}");
    assert!(said.contains("10.0.0.9 belongs to Pod a/p"), "{said}");
    assert!(!said.contains("192.0.2.1"), "{said}");
}

#[test]
fn waypoints_and_distribution_are_as_for_services() {
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
        metadata: {name: wp, namespace: a}\nspec: {gatewayClassName: istio-waypoint, \
        listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n---\n";
    let spec = "{hosts: [x.example], addresses: [192.0.2.1], ports: [{number: 80}]}";
    let bound = entry("e", "", spec).replace(
        "namespace: a",
        "namespace: a, labels: {istio.io/use-waypoint: wp}, \
         annotations: {networking.istio.io/traffic-distribution: PreferClose}",
    );
    let service = only(&(gateway.to_owned() + &bound));
    assert_eq!(service.waypoint.waypoint().map(ToString::to_string).as_deref(), Some("a/wp"));
    assert_eq!(service.balancing.preference, Preference::SameZone);
    assert!(matches!(only(&bound).waypoint, Binding::Unusable { .. }), "closed, not open");

    // What cannot be carried out is not passed by either, and what cannot be guarded is said.
    let unknown = gateway.to_owned() + &bound.replace("ports:", "resolution: ELSEWHERE, ports:");
    let service = only(&unknown);
    assert_eq!((service.resolution, service.endpoints.len()), (Resolution::Listed, 0));
    assert!(complaints(&unknown).contains("what is addressed to it is refused"));
    let bare = gateway.to_owned() + &bound.replace("addresses: [192.0.2.1], ", "");
    assert!(complaints(&bare).contains("x.example has no address"));
}

/// One object has room for a hundred thousand names, each of which would be a service in every agent.
#[test]
fn one_entry_is_not_a_hundred_thousand_services() {
    let hosts: Vec<String> = (0..1100).map(|host| format!("h{host}.example")).collect();
    let spec = format!("{{hosts: [{}], addresses: [192.0.2.1]}}", hosts.join(", "));
    let text = entry("e", "", &spec);
    assert_eq!(services(&text).len(), 1024);
    assert!(complaints(&text).contains("the last 76 are left out"), "{}", complaints(&text));
}

#[test]
fn addresses_of_names_race_where_an_annotation_says_so() {
    let told = "metadata.annotations[\"istio.io/connect-strategy\"]";
    for (strategy, resolution, races, complains) in [
        ("RACE_FIRST_TCP_CONNECT", "DNS", true, false),
        ("race_first_tcp_connect", "DNS_ROUND_ROBIN", true, false),
        ("RACE_FIRST_TCP_CONNECT", "STATIC", false, true),
        ("RACE_FIRST_TCP_CONNECT", "NONE", false, true),
        ("DEFAULT", "DNS", false, false),
        ("FASTEST", "DNS", false, true),
    ] {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: e, namespace: a, annotations: {{istio.io/connect-strategy: {strategy}}}}}\n\
             spec: {{hosts: [x.example], resolution: {resolution}, ports: [{{number: 80}}], endpoints: [{{address: 192.0.2.1}}]}}\n"
        );
        assert_eq!(only(&text).balancing.races, races, "{strategy} {resolution}");
        assert_eq!(complaints(&text).contains(told), complains, "{}", complaints(&text));
    }
}
