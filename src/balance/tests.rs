use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::model::{Balancing, Locality, Preference};
use crate::world::fixture::{Fixture, key, service, workload};

fn three() -> Arc<World> {
    let pods: Vec<_> =
        (1..=3).map(|n| workload(&format!("pod-{n}"), &format!("10.0.0.{n}"))).collect();
    let service = service("echo", "10.96.0.1", &pods.iter().collect::<Vec<_>>());
    pods.into_iter().fold(Fixture::default().service(service), Fixture::workload).build()
}

fn client() -> Workload {
    workload("client", "10.0.9.1")
}

fn by(workload: &Workload) -> Caller<'_> {
    Caller { workload, address: "10.0.9.1".parse().unwrap(), hash: None, subset: None }
}

fn pick_from(world: &World, avoid: &[SocketAddr]) -> Option<Picked> {
    let service = world.service(&key("echo")).unwrap();
    pick(world, service, 80, by(&client()), "10.96.0.1:80".parse().unwrap(), avoid)
}

#[test]
fn all_endpoints_get_their_share() {
    let world = three();
    let mut counts: HashMap<SocketAddr, u32> = HashMap::new();
    for _ in 0..3000 {
        *counts.entry(pick_from(&world, &[]).unwrap().address).or_default() += 1;
    }
    assert_eq!(counts.len(), 3);
    assert!(counts.values().all(|count| (800..1200).contains(count)), "{counts:?}");
}

#[test]
fn connections_that_stay_spread_evenly() {
    let world = three();
    let held: Vec<Picked> = (0..300).map(|_| pick_from(&world, &[]).unwrap()).collect();
    let mut counts: HashMap<SocketAddr, u32> = HashMap::new();
    held.iter().for_each(|picked| *counts.entry(picked.address).or_default() += 1);
    assert!(counts.values().all(|count| (95..=105).contains(count)), "{counts:?}");
}

#[test]
fn avoids_what_failed_unless_nothing_else_is_there() {
    let world = three();
    let all: Vec<SocketAddr> = (1..=3).map(|n| SocketAddr::from(([10, 0, 0, n], 8080))).collect();
    for _ in 0..50 {
        assert_eq!(pick_from(&world, &all[..2]).unwrap().address, all[2]);
    }
    assert!(pick_from(&world, &all).is_some());
}

/// Drawing at random seldom finds them.
#[test]
fn few_of_many_are_found_and_share_evenly() {
    let pods: Vec<_> = (1..=200)
        .map(|n| {
            let ready = n <= 3;
            let pod = workload(&format!("pod-{n}"), &format!("10.0.0.{n}"));
            crate::model::Workload { ready, ..pod }
        })
        .collect();
    let service = service("echo", "10.96.0.1", &pods.iter().collect::<Vec<_>>());
    let world = pods.into_iter().fold(Fixture::default().service(service), Fixture::workload);
    let world = world.build();
    let mut counts: HashMap<SocketAddr, u32> = HashMap::new();
    for _ in 0..3000 {
        *counts.entry(pick_from(&world, &[]).unwrap().address).or_default() += 1;
    }
    assert_eq!(counts.len(), 3);
    assert!(counts.values().all(|count| (800..1200).contains(count)), "{counts:?}");
}

#[test]
fn unready_endpoints_and_unknown_ports_are_not_chosen() {
    let pod = crate::model::Workload { ready: false, ..workload("pod", "10.0.0.1") };
    let fixture = Fixture::default().service(service("echo", "10.96.0.1", &[&pod])).workload(pod);
    assert!(pick_from(&fixture.build(), &[]).is_none());
    let world = three();
    let service = world.service(&key("echo")).unwrap();
    assert!(
        pick(&world, service, 81, by(&client()), "10.96.0.1:81".parse().unwrap(), &[]).is_none()
    );
}

#[test]
fn the_clients_family_is_preferred() {
    let mut pod = workload("pod", "10.0.0.1");
    pod.addresses.push("fd00::1".parse().unwrap());
    let world =
        Fixture::default().service(service("echo", "10.96.0.1", &[&pod])).workload(pod).build();
    let service = world.service(&key("echo")).unwrap();
    for (like, expected) in
        [("10.96.0.1:80", "10.0.0.1:8080"), ("[fd00:96::1]:80", "[fd00::1]:8080")]
    {
        let picked = pick(&world, service, 80, by(&client()), like.parse().unwrap(), &[]).unwrap();
        assert_eq!(picked.address, expected.parse::<SocketAddr>().unwrap());
    }
    let single = three();
    let service = single.service(&key("echo")).unwrap();
    assert!(
        pick(&single, service, 80, by(&client()), "[fd00:96::1]:80".parse().unwrap(), &[])
            .is_some()
    );
}

#[test]
fn the_busiest_of_many_is_never_chosen_and_is_free_again_when_dropped() {
    let world = three();
    let busy = pick_from(&world, &[]).unwrap();
    for _ in 0..100 {
        assert_ne!(pick_from(&world, &[]).unwrap().address, busy.address);
    }
    let address = busy.address;
    drop(busy);
    assert!((0..200).any(|_| pick_from(&world, &[]).unwrap().address == address));
}

#[test]
fn an_endpoint_without_a_workload_is_chosen_and_counted() {
    let mut outside = service("echo", "10.96.0.1", &[&workload("pod", "192.0.2.1")]);
    outside.endpoints[0].workload = None;
    let world = Fixture::default().service(outside).build();
    let picked = pick_from(&world, &[]).unwrap();
    assert_eq!(picked.address, "192.0.2.1:8080".parse::<SocketAddr>().unwrap());
    assert!(picked.workload.is_none());
    assert_eq!(world.load_of(None, picked.address.ip()).unwrap().in_flight(), 1);
}

/// A client on node `a` of zone `z1`, and one pod each on its node, in its zone, its region, and far away.
fn spread(balancing: Balancing, ready: [bool; 4]) -> (Workload, Arc<World>) {
    let at = |name: &str, address: &str, node: &str, region: &str, zone: &str| Workload {
        node: node.into(),
        locality: Locality { region: region.into(), zone: zone.into(), ..Locality::default() },
        ..workload(name, address)
    };
    let client = at("client", "10.0.9.1", "a", "r1", "z1");
    let pods = [
        at("here", "10.0.0.1", "a", "r1", "z1"),
        at("zone", "10.0.0.2", "b", "r1", "z1"),
        at("region", "10.0.0.3", "c", "r1", "z2"),
        at("far", "10.0.0.4", "d", "r2", "z1"),
    ];
    let mut echo = service("echo", "10.96.0.1", &pods.iter().collect::<Vec<_>>());
    echo.balancing = balancing;
    echo.endpoints.iter_mut().zip(ready).for_each(|(endpoint, ready)| endpoint.ready = ready);
    let world = pods.into_iter().fold(Fixture::default().service(echo), Fixture::workload).build();
    (client, world)
}

/// The last numbers of the addresses that are chosen, in order.
fn chosen(client: &Workload, world: &World) -> Vec<u8> {
    let service = world.service(&key("echo")).unwrap();
    let pick = |_| pick(world, service, 80, by(client), "10.96.0.1:80".parse().unwrap(), &[]);
    let last = |picked: Picked| match picked.address.ip() {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(_) => 0,
    };
    let chosen: std::collections::BTreeSet<u8> = (0..200).filter_map(pick).map(last).collect();
    chosen.into_iter().collect()
}

#[test]
fn near_endpoints_come_first_and_far_ones_when_these_are_gone() {
    let with = |preference| Balancing { preference, ..Balancing::default() };
    for (preference, ready, expected) in [
        (Preference::None, [true; 4], &[1, 2, 3, 4][..]),
        (Preference::SameNode, [true; 4], &[1]),
        (Preference::SameNode, [false, true, true, true], &[2]),
        (Preference::SameZone, [true; 4], &[1, 2]),
        (Preference::SameZone, [false, false, true, true], &[3]),
        (Preference::SameZone, [false, false, false, true], &[4]),
        (Preference::SameZone, [false; 4], &[]),
    ] {
        let (client, world) = spread(with(preference), ready);
        assert_eq!(chosen(&client, &world), expected, "{preference:?} {ready:?}");
    }
    let (client, world) = spread(with(Preference::SameZone), [true; 4]);
    let unknown = Workload { locality: Locality::default(), node: "".into(), ..client };
    assert_eq!(chosen(&unknown, &world), [1, 2, 3, 4], "who knows nothing of itself takes all");
}

/// Trap 16 of the reference.
#[test]
fn trap_16_local_without_an_endpoint_on_the_node_has_none() {
    let local = Balancing { local_only: true, ..Balancing::default() };
    let (client, world) = spread(local, [true; 4]);
    assert_eq!(chosen(&client, &world), [1]);
    let (client, world) = spread(local, [false, true, true, true]);
    assert!(chosen(&client, &world).is_empty());
    let why = nobody(world.service(&key("echo")).unwrap(), 80, &by(&client));
    assert!(why.contains("on node a (internalTrafficPolicy is Local)"), "{why}");
}

#[test]
fn a_sticky_service_gives_a_client_one_endpoint_and_moves_few_when_one_goes() {
    let sticky = Balancing { sticky: true, ..Balancing::default() };
    let (client, world) = spread(sticky, [true; 4]);
    let (_, fewer) = spread(sticky, [true, true, true, false]);
    let of = |world: &World, number: u8| {
        let service = world.service(&key("echo")).unwrap();
        let caller = Caller {
            workload: &client,
            address: IpAddr::from([10, 1, 0, number]),
            hash: None,
            subset: None,
        };
        let like = "10.96.0.1:80".parse().unwrap();
        let picks = (0..5).map(|_| pick(world, service, 80, caller, like, &[]).unwrap().address);
        let picks: std::collections::HashSet<SocketAddr> = picks.collect();
        assert_eq!(picks.len(), 1);
        picks.into_iter().next().unwrap()
    };
    let mut counts: HashMap<SocketAddr, u32> = HashMap::new();
    for number in 0..=255 {
        let (before, after) = (of(&world, number), of(&fewer, number));
        *counts.entry(before).or_default() += 1;
        assert!(before == after || before.ip() == IpAddr::from([10, 0, 0, 4]));
    }
    assert!(counts.len() == 4 && counts.values().all(|count| *count > 30), "{counts:?}");
}

#[test]
fn one_that_is_being_deleted_serves_where_nobody_else_is_ready() {
    let mut pods = [workload("leaving", "10.0.0.1"), workload("stays", "10.0.0.2")];
    pods[0].ready = false;
    let mut echo = service("echo", "10.96.0.1", &pods.iter().collect::<Vec<_>>());
    echo.endpoints[0].terminating = true;
    let fixture = |echo: &Service| {
        pods.iter().cloned().fold(Fixture::default().service(echo.clone()), Fixture::workload)
    };
    assert_eq!(chosen(&client(), &fixture(&echo).build()), [2]);
    echo.endpoints[1].ready = false;
    assert_eq!(chosen(&client(), &fixture(&echo).build()), [1]);
}

#[test]
fn shares_are_kept() {
    let mut mesh = Fixture::default();
    let pods = [workload("a", "10.0.0.1"), workload("b", "10.0.0.2")];
    let mut echo = service("echo", "10.96.0.1", &[&pods[0], &pods[1]]);
    (echo.endpoints[0].weight, echo.balancing.weighted) = (4, true);
    mesh = pods.into_iter().fold(mesh.service(echo), Fixture::workload);
    let world = mesh.build();
    let first = "10.0.0.1:8080".parse().unwrap();
    let drawn = (0..5000).filter(|_| pick_from(&world, &[]).unwrap().address == first).count();
    assert!((3800..4200).contains(&drawn), "{drawn} of 5000, and 4000 are its share");
}

#[test]
fn what_was_dialled_is_the_endpoint_of_its_own_service_only() {
    let here = workload("here", "203.0.113.7");
    let entry = Service {
        entry: Some("echo".into()),
        vips: Vec::new(),
        networks: vec!["203.0.113.0/24".parse().unwrap()],
        resolution: Resolution::Dialled,
        ..service("echo", "10.96.0.1", &[])
    };
    let world = Fixture::default().service(entry).workload(here).build();
    let service = world.service(&key("echo")).unwrap();
    let pick =
        |dialled: &str| pick(&world, service, 1, by(&client()), dialled.parse().unwrap(), &[]);
    let picked = pick("[::ffff:203.0.113.1]:443").unwrap();
    assert_eq!(
        (picked.address.to_string().as_str(), picked.workload.is_some()),
        ("203.0.113.1:443", false)
    );
    assert!(pick("203.0.113.7:443").unwrap().workload.is_some(), "in the mesh: never in the clear");
    assert!(pick("203.0.114.1:443").is_none(), "another service's address");
}

/// A Service that lists an address of the mesh without naming its owner gets the workload's tunnel all the same.
#[test]
fn an_address_without_a_workload_is_the_workloads() {
    let pod = workload("pod", "10.0.0.1");
    let mut echo = service("echo", "10.96.0.1", &[&pod]);
    echo.endpoints[0].workload = None;
    let world = Fixture::default().service(echo).workload(pod.clone()).build();
    assert_eq!(pick_from(&world, &[]).unwrap().workload.unwrap().uid, pod.uid);
}

#[test]
fn the_family_that_was_dialled_comes_first_and_the_other_after_it() {
    let mut echo = service("echo", "10.96.0.1", &[&workload("a", "10.0.0.1")]);
    let mut other = echo.endpoints[0].clone();
    other.addresses = vec!["fd00::1".parse().unwrap()];
    echo.endpoints.extend([other.clone(), other]);
    let world = Fixture::default().service(echo).build();
    let service = world.service(&key("echo")).unwrap();
    let pick = |dialled: &str, avoid: &[SocketAddr]| {
        let dialled = dialled.parse().unwrap();
        pick(&world, service, 80, by(&client()), dialled, avoid).unwrap().address
    };
    for _ in 0..50 {
        let v4 = pick("[::ffff:10.96.0.1]:80", &[]);
        assert_eq!(v4, "10.0.0.1:8080".parse().unwrap());
        assert_eq!(pick("10.96.0.1:80", &[v4]), "[fd00::1]:8080".parse().unwrap());
        assert!(pick("[fd00:96::1]:80", &[]).is_ipv6());
    }
}

/// Anybody can write an IPv4 address as IPv6, and the kernel connects to the same place.
#[test]
fn a_workload_is_known_by_its_address_written_as_ipv6() {
    let pod = workload("pod", "10.0.0.1");
    let mut foreign = service("evil/echo", "10.96.0.2", &[&pod]);
    foreign.endpoints[0].workload = None;
    foreign.endpoints[0].addresses = vec!["::ffff:10.0.0.1".parse().unwrap()];
    let world = Fixture::default().service(foreign).workload(pod).build();
    let service = world.service(&key("evil/echo")).unwrap();
    for dialled in ["10.96.0.2:80", "[2001:db8::1]:80"] {
        let picked =
            pick(&world, service, 80, by(&client()), dialled.parse().unwrap(), &[]).unwrap();
        assert_eq!(picked.address, "10.0.0.1:8080".parse().unwrap());
        assert_eq!(picked.workload.unwrap().key, key("pod"));
    }
}

mod latency;
mod locality;
mod policies;
mod subsets;
