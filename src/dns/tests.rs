use hickory_proto::rr::{DNSClass, RecordType};
use proptest::prelude::*;

use super::resolve::{Asker, Place, Resolution, resolve};
use crate::model::{AppProtocol, PortMapping, Service, ServicePort, Workload};
use crate::world::World;
use crate::world::fixture::{Fixture, service, workload};

const DOMAIN: &str = "cluster.local";

/// `web`: IPv4 only; `both`: two families; `peers`: headless with a ready endpoint and one that is not.
fn shop() -> std::sync::Arc<World> {
    let pod = workload("web", "10.0.0.1");
    let unready = Workload { ready: false, ..workload("late", "10.0.0.2") };
    let mut both = service("other/both", "10.96.0.2", &[&pod]);
    both.vips.push("fd00:96::2".parse().unwrap());
    let peers = Service { vips: Vec::new(), ..service("peers", "10.96.0.3", &[&pod, &unready]) };
    let front = service("web", "10.96.0.1", &[&pod]);
    let base = Fixture::default().service(front).service(both).service(peers);
    base.workload(pod).workload(unready).build()
}

fn asked(name: &str, kind: RecordType) -> Resolution {
    asked_in(&shop(), "shop", (name, kind, DNSClass::IN))
}

fn asked_in(world: &World, namespace: &str, asked: (&str, RecordType, DNSClass)) -> Resolution {
    resolve(&Asker { world, namespace, cluster_domain: DOMAIN, alone: true }, asked)
}

fn addresses(texts: &[&str]) -> Resolution {
    let addresses = texts.iter().map(|text| text.parse().unwrap()).collect();
    Resolution::Addresses { addresses, canonical: None }
}

fn aliased(canonical: &str, texts: &[&str]) -> Resolution {
    let addresses = texts.iter().map(|text| text.parse().unwrap()).collect();
    Resolution::Addresses { addresses, canonical: Some(canonical.to_owned()) }
}

/// The pods of a StatefulSet find one another by their own DNS names.
#[test]
fn endpoints_of_a_headless_service_have_names() {
    let pods = [workload("db-0", "10.0.0.1"), workload("db-1", "10.0.0.2")];
    let mut db = Service { vips: Vec::new(), ..service("db", "10.96.0.3", &[&pods[0], &pods[1]]) };
    for (at, endpoint) in db.endpoints.iter_mut().enumerate() {
        endpoint.hostname = Some(format!("db-{at}").into());
    }
    db.endpoints[1].ready = false;
    let mut web = service("web", "10.96.0.1", &[&pods[0]]);
    web.endpoints[0].hostname = Some("db-0".into());
    let world = Fixture::default().service(db).service(web).build();
    let asked = |name: &str| asked_in(&world, "shop", (name, RecordType::A, DNSClass::IN));
    for name in
        ["db-0.db.shop.svc.cluster.local.", "DB-0.db.shop.svc.", "db-0.db.shop.", "db-0.db."]
    {
        assert_eq!(asked(name), addresses(&["10.0.0.1"]), "{name}");
    }
    assert_eq!(asked("db-1.db.shop.svc.cluster.local."), addresses(&[]), "it is not ready");
    for name in
        ["db-2.db.shop.svc.cluster.local.", "db-0.web.shop.svc.cluster.local.", "x.db-0.db."]
    {
        assert_eq!(asked(name), Resolution::Forward, "{name}");
    }
}

/// A host of an entry `namespace/entry` with one address, or none.
fn host(entry: &str, host: &str, vip: Option<&str>) -> Service {
    let base = service(&format!("{entry}/{host}"), "192.0.2.1", &[]);
    Service {
        entry: Some("entry".into()),
        hostname: host.into(),
        vips: vip.iter().map(|vip| vip.parse().unwrap()).collect(),
        ..base
    }
}

/// Asked from `namespace` in a world of these hosts, beside the shop's Service `web`.
fn asked_of(hosts: &[Service], namespace: &str, name: &str) -> Resolution {
    let base = Fixture::default().service(service("web", "10.96.0.1", &[]));
    let world = hosts.iter().cloned().fold(base, Fixture::service).build();
    asked_in(&world, namespace, (name, RecordType::A, DNSClass::IN))
}

#[test]
fn hosts_of_entries_are_known_and_the_most_specific_wildcard_wins() {
    let hosts = [
        host("shop/a", "*.example.com", Some("240.240.0.1")),
        host("shop/b", "*.eu.example.com", Some("240.240.0.2")),
        host("shop/c", "api.eu.example.com", Some("240.240.0.3")),
    ];
    for (name, expected) in [
        ("www.example.com.", Some("240.240.0.1")),
        ("a.b.example.com.", Some("240.240.0.1")),
        ("WWW.EU.example.com.", Some("240.240.0.2")),
        ("x.y.eu.example.com.", Some("240.240.0.2")),
        ("eu.example.com.", Some("240.240.0.1")),
        ("api.eu.example.com.", Some("240.240.0.3")),
        ("example.com.", None),
        ("example.org.", None),
        ("com.", None),
    ] {
        let expected = expected.map_or(Resolution::Forward, |vip| addresses(&[vip]));
        assert_eq!(asked_of(&hosts, "elsewhere", name), expected, "{name}");
    }
}

#[test]
fn the_clients_namespace_comes_before_kubernetes_and_that_before_all_others() {
    let name = "web.shop.svc.cluster.local";
    let hosts = [
        host("near/e", name, Some("240.240.0.1")),
        host("far/e", name, Some("240.240.0.2")),
        host("far/e", "db.example", Some("240.240.0.3")),
        host("near/e", "db.example", Some("240.240.0.4")),
    ];
    for (namespace, expected) in
        [("near", "240.240.0.1"), ("far", "240.240.0.2"), ("elsewhere", "10.96.0.1")]
    {
        assert_eq!(asked_of(&hosts, namespace, name), addresses(&[expected]), "{namespace}");
    }
    assert_eq!(asked_of(&hosts, "near", "db.example"), addresses(&["240.240.0.4"]));
    assert_eq!(asked_of(&hosts, "elsewhere", "db.example"), addresses(&["240.240.0.3"]));
}

/// Other namespaces' entries are no answer, unless everybody sees them; and then no short name of a Service either.
#[test]
fn entries_answer_those_who_see_them() {
    use crate::model::Visibility;
    let hidden = |entry: &str, name: &str, vip| Service {
        visibility: Visibility::Namespaces(vec!["evil".into()]),
        ..host(entry, name, Some(vip))
    };
    let web = "web.shop.svc.cluster.local";
    let hosts = [
        hidden("evil/a", "api.example", "240.240.0.1"),
        hidden("evil/b", "*.example", "240.240.0.2"),
        hidden("evil/c", web, "240.240.0.3"),
        hidden("evil/d", "web.shop", "240.240.0.4"),
        host("far/e", "*.far.example", Some("240.240.0.5")),
        host("far/f", "web.shop", Some("240.240.0.6")),
    ];
    for (name, of_evil, of_others) in [
        ("api.example", Some("240.240.0.1"), None),
        ("x.example", Some("240.240.0.2"), None),
        ("x.far.example", Some("240.240.0.5"), Some("240.240.0.5")),
        (web, Some("240.240.0.3"), Some("10.96.0.1")),
        ("web.shop", Some("240.240.0.4"), Some("10.96.0.1")),
    ] {
        for (namespace, expected) in [("evil", of_evil), ("shop", of_others), ("x", of_others)] {
            let expected = expected.map_or(Resolution::Forward, |vip| addresses(&[vip]));
            assert_eq!(asked_of(&hosts, namespace, name), expected, "{namespace} {name}");
        }
    }
}

/// Names with fewer than five dots get the search path of Kubernetes first.
#[test]
fn a_search_domain_behind_a_full_name_is_seen_through() {
    let hosts = [
        host("shop/a", "api.example.com", Some("240.240.0.1")),
        host("shop/b", "*.example.org", Some("240.240.0.2")),
        host("shop/c", "web", Some("240.240.0.3")),
    ];
    let asked = |name: &str| asked_of(&hosts, "ns", name);
    for domain in ["ns.svc.cluster.local.", "svc.cluster.local.", "cluster.local."] {
        let name = format!("api.example.com.{domain}");
        assert_eq!(asked(&name), aliased("api.example.com.", &["240.240.0.1"]), "{name}");
        let name = format!("www.example.org.{domain}");
        assert_eq!(asked(&name), aliased("www.example.org.", &["240.240.0.2"]), "{name}");
    }
    let name = "web.shop.svc.cluster.local.ns.svc.cluster.local.";
    assert_eq!(asked(name), aliased("web.shop.svc.cluster.local.", &["10.96.0.1"]));
    for name in ["api.example.com.other.svc.cluster.local.", "web.svc.cluster.local."] {
        assert_eq!(asked(name), Resolution::Forward, "{name}");
    }
}

#[test]
fn only_upstream_knows_the_addresses_of_an_entry_without_one() {
    use crate::model::Resolution::{Dialled, Names};
    for resolution in [Names, Dialled] {
        let bare = |name| Service { resolution, ..host("shop/a", name, None) };
        let hosts = [bare("api.example.com"), bare("*.example.org")];
        assert_eq!(asked_of(&hosts, "shop", "api.example.com."), Resolution::Forward);
        assert_eq!(asked_of(&hosts, "shop", "www.example.org."), Resolution::Forward);
    }
    let pod = workload("web", "10.0.0.1");
    let listed = service("x", "192.0.2.1", &[&pod]).endpoints;
    let hosts = [Service { endpoints: listed, ..host("shop/a", "api.example.com", None) }];
    assert_eq!(asked_of(&hosts, "shop", "api.example.com."), addresses(&["10.0.0.1"]));
}

#[test]
fn every_form_of_a_services_name_is_known() {
    for name in [
        "web.shop.svc.cluster.local.",
        "WEB.Shop.svc.cluster.local",
        "web.shop.svc.",
        "web.shop",
        "web.",
    ] {
        assert_eq!(asked(name, RecordType::A), addresses(&["10.96.0.1"]), "{name}");
    }
    assert_eq!(asked("both.other", RecordType::A), addresses(&["10.96.0.2"]));
    for name in ["both.", "web.elsewhere.", "web.shop.svc.other.", "www.example.com.", ".", ""] {
        assert_eq!(asked(name, RecordType::A), Resolution::Forward, "{name}");
    }
}

#[test]
fn a_known_name_without_the_family_is_no_data() {
    assert_eq!(asked("web.shop.", RecordType::AAAA), addresses(&[]));
    assert_eq!(asked("both.other.", RecordType::AAAA), addresses(&["fd00:96::2"]));
    assert_eq!(asked("web.shop.", RecordType::MX), Resolution::ForwardKnown);
    let chaos = ("web.shop.", RecordType::A, DNSClass::CH);
    assert_eq!(asked_in(&shop(), "shop", chaos), Resolution::Forward);
}

#[test]
fn a_headless_service_is_its_ready_endpoints() {
    assert_eq!(asked("peers.shop.", RecordType::A), addresses(&["10.0.0.1"]));
    assert_eq!(asked("peers.shop.", RecordType::AAAA), addresses(&[]));
}

proptest! {
    #[test]
    fn any_name_is_survived(name in ".{0,60}") {
        let _ = asked(&name, RecordType::A);
    }
}

/// `10 http` at port 80 leads to port 8080 of the endpoints.
fn with_port(mut service: Service) -> Service {
    service.ports =
        vec![ServicePort { name: "http".into(), port: 80, protocol: AppProtocol::Http }];
    for endpoint in &mut service.endpoints {
        endpoint.ports = vec![PortMapping { port: 80, target: 8080 }];
    }
    service
}

/// As the DNS specification of Kubernetes has it.
#[test]
fn ports_of_services_have_places() {
    let pods =
        [workload("db-0", "10.0.0.1"), workload("db-1", "10.0.0.2"), workload("db-2", "10.0.0.3")];
    let headless = service("db", "10.96.0.3", &[&pods[0], &pods[1], &pods[2]]);
    let mut db = with_port(Service { vips: Vec::new(), ..headless });
    db.endpoints[0].hostname = Some("db-0".into());
    db.endpoints[2].ready = false;
    let mut web = with_port(service("web", "10.96.0.1", &[&pods[0]]));
    web.vips.push("fd00:96::1".parse().unwrap());
    let world = Fixture::default()
        .service(db)
        .service(web)
        .service(host("shop/e", "api.example", None))
        .build();
    let ask = |name: &str| asked_in(&world, "shop", (name, RecordType::SRV, DNSClass::IN));
    let place = |port, target: &str, addresses: &[&str]| Place {
        port,
        target: target.to_owned(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    };
    let of_web = || vec![place(80, "web.shop.svc.cluster.local.", &["10.96.0.1", "fd00:96::1"])];
    for name in [
        "_http._tcp.web.shop.svc.cluster.local.",
        "_HTTP._TCP.Web.shop.svc.",
        "_http._tcp.web.shop",
        "_http._tcp.web",
    ] {
        assert_eq!(ask(name), Resolution::Places { places: of_web(), canonical: None }, "{name}");
    }
    let canonical = Some("_http._tcp.web.shop.svc.cluster.local.".to_owned());
    let name = "_http._tcp.web.shop.svc.cluster.local.shop.svc.cluster.local.";
    assert_eq!(ask(name), Resolution::Places { places: of_web(), canonical });
    let places = vec![
        place(8080, "db-0.db.shop.svc.cluster.local.", &["10.0.0.1"]),
        place(8080, "10-0-0-2.db.shop.svc.cluster.local.", &["10.0.0.2"]),
    ];
    assert_eq!(
        ask("_http._tcp.db.shop.svc.cluster.local."),
        Resolution::Places { places, canonical: None }
    );
    // The targets can be asked for.
    let address = |name: &str| asked_in(&world, "shop", (name, RecordType::A, DNSClass::IN));
    assert_eq!(address("10-0-0-2.db.shop.svc.cluster.local."), addresses(&["10.0.0.2"]));
    assert_eq!(address("10-0-0-9.db.shop.svc.cluster.local."), Resolution::Forward);
    for name in ["_https._tcp.web.shop.", "_http._udp.web.shop.", "web.shop."] {
        assert_eq!(ask(name), Resolution::ForwardKnown, "{name}");
    }
    for name in [
        "_http._tcp.api.example.",
        "_http._tcp.none.shop.",
        "_http.web.shop.",
        "_http._tcp.",
        "_",
        ".",
    ] {
        assert_eq!(ask(name), Resolution::Forward, "{name}");
    }
    let in_a_cluster =
        Asker { world: &world, namespace: "shop", cluster_domain: DOMAIN, alone: false };
    let asked = ("_http._tcp.web.shop.", RecordType::SRV, DNSClass::IN);
    assert_eq!(resolve(&in_a_cluster, asked), Resolution::Forward, "its name server knows");
}

#[test]
fn an_srv_answer_brings_the_addresses_along() {
    use hickory_proto::op::{Message, MessageType, OpCode, Query};
    use hickory_proto::rr::Name;
    let name = Name::from_ascii("_http._tcp.web.shop.svc.cluster.local.").unwrap();
    let mut query = Message::new(1, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(name.clone(), RecordType::SRV));
    let target = "web.shop.svc.cluster.local.".to_owned();
    let places = vec![Place { port: 80, target, addresses: vec!["10.96.0.1".parse().unwrap()] }];
    let found = Resolution::Places { places, canonical: None };
    let answer = super::server::of_the_mesh(&query, name, &found).unwrap();
    let records = |records: &[hickory_proto::rr::Record]| {
        records.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let srv =
        "_http._tcp.web.shop.svc.cluster.local. 30 IN SRV 0 100 80 web.shop.svc.cluster.local.";
    assert_eq!(records(&answer.answers), [srv]);
    assert_eq!(records(&answer.additionals), ["web.shop.svc.cluster.local. 30 IN A 10.96.0.1"]);
}

/// Hints of addresses and keys that hide the server's name would lead clients past the entry.
#[test]
fn names_below_a_wildcard_that_is_resolved_for_its_clients_have_its_address_and_no_hints() {
    let wildcard = |resolution| Service {
        entry: Some("wide".into()),
        hostname: "*.example.org".into(),
        resolution,
        ..service("wide", "240.240.0.1", &[])
    };
    let world = |resolution| Fixture::default().service(wildcard(resolution)).build();
    let dynamic = world(crate::model::Resolution::Dynamic);
    let ask =
        |world: &World, kind| asked_in(world, "shop", ("a.B.example.org.", kind, DNSClass::IN));
    assert_eq!(ask(&dynamic, RecordType::A), addresses(&["240.240.0.1"]));
    for kind in [RecordType::AAAA, RecordType::HTTPS, RecordType::SVCB] {
        assert_eq!(ask(&dynamic, kind), addresses(&[]), "{kind}");
    }
    assert_eq!(ask(&dynamic, RecordType::TXT), Resolution::ForwardKnown);
    let names = world(crate::model::Resolution::Names);
    assert_eq!(ask(&names, RecordType::HTTPS), Resolution::ForwardKnown);
}
