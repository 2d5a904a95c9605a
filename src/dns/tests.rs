use hickory_proto::rr::{DNSClass, RecordType};
use proptest::prelude::*;

use super::resolve::{Resolution, resolve};
use crate::model::{Service, Workload};
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
    resolve(&shop(), "shop", DOMAIN, (name, kind, DNSClass::IN))
}

fn addresses(texts: &[&str]) -> Resolution {
    Resolution::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
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
    assert_eq!(resolve(&shop(), "shop", DOMAIN, chaos), Resolution::Forward);
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
