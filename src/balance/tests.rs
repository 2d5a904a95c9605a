use std::collections::HashMap;

use super::*;
use crate::world::fixture::{Fixture, key, service, workload};

fn three() -> Arc<World> {
    let pods: Vec<_> =
        (1..=3).map(|n| workload(&format!("pod-{n}"), &format!("10.0.0.{n}"))).collect();
    let service = service("echo", "10.96.0.1", &pods.iter().collect::<Vec<_>>());
    pods.into_iter().fold(Fixture::default().service(service), Fixture::workload).build()
}

fn pick_from(world: &World, avoid: &[SocketAddr]) -> Option<Picked> {
    let service = world.service(&key("echo")).unwrap();
    pick(world, service, 80, "10.96.0.1:80".parse().unwrap(), avoid)
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

#[test]
fn unready_endpoints_and_unknown_ports_are_not_chosen() {
    let pod = crate::model::Workload { ready: false, ..workload("pod", "10.0.0.1") };
    let fixture = Fixture::default().service(service("echo", "10.96.0.1", &[&pod])).workload(pod);
    assert!(pick_from(&fixture.build(), &[]).is_none());
    let world = three();
    let service = world.service(&key("echo")).unwrap();
    assert!(pick(&world, service, 81, "10.96.0.1:81".parse().unwrap(), &[]).is_none());
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
        let picked = pick(&world, service, 80, like.parse().unwrap(), &[]).unwrap();
        assert_eq!(picked.address, expected.parse::<SocketAddr>().unwrap());
    }
    let single = three();
    let service = single.service(&key("echo")).unwrap();
    assert!(pick(&single, service, 80, "[fd00:96::1]:80".parse().unwrap(), &[]).is_some());
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
