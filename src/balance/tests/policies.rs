//! What a DestinationRule says of the selection.

use std::collections::HashSet;
use std::time::Duration;

use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::traffic::{Balancer, OutlierDetection, Policy, Ports, Warmup};

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8080))
}

fn under(policy: Policy) -> Arc<Destination> {
    Arc::new(Destination::new("Service shop/echo, port 80".into(), policy))
}

fn balanced(balancer: Balancer) -> Policy {
    Policy { balancer: Some(balancer), ..Policy::default() }
}

/// A service with endpoints of these weights, whose clients all have the policy.
fn weighted(weights: &[u32], destination: &Arc<Destination>) -> Arc<World> {
    let pods: Vec<_> = (1..=weights.len())
        .map(|n| workload(&format!("pod-{n}"), &format!("10.0.0.{n}")))
        .collect();
    let mut echo = service("echo", "10.96.0.1", &pods.iter().collect::<Vec<_>>());
    for (endpoint, weight) in echo.endpoints.iter_mut().zip(weights) {
        endpoint.weight = *weight;
    }
    echo.balancing.weighted = weights.iter().any(|weight| *weight != weights[0]);
    echo.traffic.set(None, Ports::from([(80, destination.clone())]));
    pods.into_iter().fold(Fixture::default().service(echo), Fixture::workload).build()
}

fn select(world: &World, hash: Option<u64>, like: &str, avoid: &[SocketAddr]) -> Option<Picked> {
    let echo = world.service(&key("echo")).unwrap();
    let client = client();
    pick(world, echo, 80, Caller { hash, ..by(&client) }, like.parse().unwrap(), avoid)
}

const VIP: &str = "10.96.0.1:80";

fn counts(world: &World, times: u32) -> Vec<u32> {
    let mut counts = vec![0; world.service(&key("echo")).unwrap().endpoints.len()];
    for _ in 0..times {
        let picked = select(world, None, VIP, &[]).unwrap();
        let number = (1..).find(|number| address(*number) == picked.address).unwrap();
        counts[usize::from(number) - 1] += 1;
    }
    counts
}

#[test]
fn in_turn_each_gets_exactly_its_share_by_weight() {
    let turns = under(balanced(Balancer::RoundRobin));
    assert_eq!(counts(&weighted(&[1, 1, 1], &turns), 300), [100, 100, 100]);
    let turns = under(balanced(Balancer::RoundRobin));
    let shares = counts(&weighted(&[1, 2, 7], &turns), 1000);
    for (share, expected) in shares.iter().zip([100u32, 200, 700]) {
        assert!(share.abs_diff(expected) <= 5, "{shares:?}");
    }
}

#[test]
fn at_random_load_does_not_count_and_weights_do() {
    let world = weighted(&[1, 1], &under(balanced(Balancer::Random)));
    let busy = select(&world, None, VIP, &[]).unwrap();
    let again = (0..200).any(|_| select(&world, None, VIP, &[]).unwrap().address == busy.address);
    assert!(again, "the busier one is selected as well");
    let shares = counts(&weighted(&[1, 3], &under(balanced(Balancer::Random))), 4000);
    assert!((700..1300).contains(&shares[0]), "{shares:?}");
}

#[test]
fn least_request_comes_before_session_affinity_where_a_rule_says_it() {
    let mut echo = service("echo", "10.96.0.1", &[]);
    let world = weighted(&[1, 1, 1], &under(balanced(Balancer::LeastRequest)));
    echo.clone_from(world.service(&key("echo")).unwrap());
    echo.balancing.sticky = true;
    let world = Fixture::default().service(echo).build();
    let held: Vec<_> = (0..3).map(|_| select(&world, None, VIP, &[]).unwrap()).collect();
    let distinct: HashSet<_> = held.iter().map(|picked| picked.address).collect();
    assert!(distinct.len() > 1);
}

#[test]
fn what_was_dialled_is_passed_through() {
    let world = weighted(&[1, 1, 1], &under(balanced(Balancer::Passthrough)));
    for _ in 0..20 {
        let picked = select(&world, None, "10.0.0.2:80", &[]).unwrap();
        assert_eq!(picked.address, address(2));
    }
    let others = select(&world, None, "10.0.0.2:80", &[address(2)]).unwrap();
    assert_ne!(others.address, address(2));
    drop(others);
    // The service's own address is no endpoint.
    assert!(counts(&world, 300).iter().all(|count| *count > 50));
}

#[test]
fn requests_without_a_key_are_spread_and_clients_are_known_by_their_address() {
    let header = http::HeaderName::from_static("x-user");
    let world = weighted(&[1, 1, 1], &under(balanced(Balancer::Hash(HashKey::Header(header)))));
    assert!(counts(&world, 300).iter().all(|count| *count > 50));
    let world = weighted(&[1, 1, 1], &under(balanced(Balancer::Hash(HashKey::SourceIp))));
    assert_eq!(counts(&world, 300).iter().filter(|count| **count > 0).count(), 1);
}

fn hashed(weights: &[u32]) -> Arc<World> {
    weighted(weights, &under(balanced(Balancer::Hash(HashKey::SourceIp))))
}

/// Where each of these keys leads.
fn places(world: &World, keys: &[u64]) -> Vec<SocketAddr> {
    keys.iter().map(|key| select(world, Some(*key), VIP, &[]).unwrap().address).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// One endpoint more or less moves the keys that it gets or had, and no other.
    #[test]
    fn an_endpoint_more_moves_only_what_it_gets(endpoints in 1usize..12, seed: u64) {
        let keys: Vec<u64> = (0..200).map(|n| seed.wrapping_add(n)).collect();
        let (few, more) = (hashed(&vec![1; endpoints]), hashed(&vec![1; endpoints + 1]));
        let new = address(u8::try_from(endpoints + 1).unwrap());
        for (before, after) in places(&few, &keys).into_iter().zip(places(&more, &keys)) {
            prop_assert!(before == after || after == new);
        }
    }

    /// By weight, within five standard deviations.
    #[test]
    fn keys_are_spread_by_weight(weights in prop::collection::vec(1u32..5, 2..8), seed: u64) {
        const KEYS: u64 = 4000;
        let keys: Vec<u64> = (0..KEYS).map(|n| seed.wrapping_add(n)).collect();
        let world = hashed(&weights);
        let places = places(&world, &keys);
        let all = f64::from(weights.iter().sum::<u32>());
        for (number, weight) in (1u8..).zip(&weights) {
            let count = places.iter().filter(|place| **place == address(number)).count() as f64;
            let share = f64::from(*weight) / all;
            let deviation = (KEYS as f64 * share * (1.0 - share)).sqrt();
            prop_assert!((count - KEYS as f64 * share).abs() < 5.0 * deviation, "{weights:?} {count}");
        }
    }
}

fn fail(world: &World, number: u8) {
    let others: Vec<_> = (1..=9).filter(|other| *other != number).map(address).collect();
    for _ in 0..5 {
        let mut picked = select(world, None, VIP, &others).unwrap();
        assert_eq!(picked.address, address(number));
        picked.ended(Ended::Unreached);
    }
}

fn detecting(outliers: OutlierDetection) -> Arc<Destination> {
    under(Policy { outliers: Some(outliers), ..Policy::default() })
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_gets_nothing_until_it_returns() {
    let world = weighted(&[1, 1, 1], &detecting(OutlierDetection::default()));
    fail(&world, 2);
    let shares = counts(&world, 300);
    assert!(shares[1] == 0 && shares[0] > 50 && shares[2] > 50, "{shares:?}");
    tokio::time::advance(Duration::from_secs(40)).await;
    let others = [address(1), address(3)];
    select(&world, None, VIP, &others).unwrap().ended(Ended::Served);
    assert!(counts(&world, 300)[1] > 50);
}

#[tokio::test(start_paused = true)]
async fn a_retry_prefers_a_healthy_endpoint_to_an_ejected_one() {
    let world = weighted(&[1, 1], &detecting(OutlierDetection::default()));
    fail(&world, 1);
    let picked = select(&world, None, VIP, &[address(2)]).unwrap();
    assert_eq!(picked.address, address(2));
}

#[tokio::test(start_paused = true)]
async fn the_last_endpoint_is_left_unless_the_policy_says_100_percent() {
    for (max_ejection_percent, expected) in [(99, true), (100, false)] {
        let outliers = OutlierDetection { max_ejection_percent, ..OutlierDetection::default() };
        let world = weighted(&[1, 1], &detecting(outliers));
        fail(&world, 1);
        // With the first one ejected, the second is the only one that may be avoided no more.
        for _ in 0..5 {
            if let Some(mut picked) = select(&world, None, VIP, &[]) {
                picked.ended(Ended::Broken);
            }
        }
        assert_eq!(select(&world, None, VIP, &[]).is_some(), expected);
    }
}

/// `internalTrafficPolicy: Local` and one endpoint on the node: it is the last one there.
#[tokio::test(start_paused = true)]
async fn the_last_endpoint_of_the_node_is_left_unless_the_policy_says_100_percent() {
    for (max_ejection_percent, expected) in [(99, true), (100, false)] {
        let outliers = OutlierDetection { max_ejection_percent, ..OutlierDetection::default() };
        let world = weighted(&[1, 1, 1], &detecting(outliers));
        let mut echo = Service::clone(world.service(&key("echo")).unwrap());
        echo.balancing.local_only = true;
        for endpoint in &mut echo.endpoints[1..] {
            endpoint.node = "other".into();
        }
        let world = Fixture::default().service(echo).build();
        fail(&world, 1);
        let picked = select(&world, None, VIP, &[]);
        assert_eq!(picked.map(|it| it.address), expected.then(|| address(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn where_too_few_are_healthy_all_are_used() {
    for (min_health_percent, expected) in [(60, 0), (70, 50)] {
        let outliers = OutlierDetection { min_health_percent, ..OutlierDetection::default() };
        let world = weighted(&[1, 1, 1], &detecting(outliers));
        fail(&world, 2);
        let shares = counts(&world, 300);
        assert!(shares[1] >= expected && (expected > 0 || shares[1] == 0), "{shares:?}");
    }
}

/// It gets one request at a time, and all of them after the first success.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_returns_is_probed_first() {
    for balancer in
        [Balancer::LeastRequest, Balancer::RoundRobin, Balancer::Random, Balancer::Passthrough]
    {
        let outliers = Some(OutlierDetection::default());
        let policy = Policy { balancer: Some(balancer.clone()), outliers, ..Policy::default() };
        let world = weighted(&[1, 1, 1], &under(policy));
        fail(&world, 2);
        tokio::time::advance(Duration::from_secs(40)).await;
        let mut held: Vec<Picked> =
            (0..300).map(|_| select(&world, None, VIP, &[]).unwrap()).collect();
        held.retain(|picked| picked.address == address(2));
        assert_eq!(held.len(), 1, "{balancer:?}");
        held[0].ended(Ended::Answered(StatusCode::OK));
        drop(held);
        let count =
            (0..300).filter(|_| select(&world, None, VIP, &[]).unwrap().address == address(2));
        assert!(count.count() > 50, "{balancer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_tells_something_about_the_endpoint_counts() {
    let status = |code: u16| Ended::Answered(StatusCode::from_u16(code).unwrap());
    for (how, counts) in [
        (Ended::Unreached, true),
        (Ended::Broken, true),
        (Ended::TimedOut, true),
        (status(500), true),
        (status(429), false),
        (Ended::Served, false),
        (Ended::NotTried, false),
        (Ended::Stale, false),
        (Ended::Denied, false),
        (Ended::GivenUp, false),
    ] {
        let destination = detecting(OutlierDetection::default());
        let world = weighted(&[1, 1], &destination);
        for _ in 0..20 {
            select(&world, None, VIP, &[address(2)]).unwrap().ended(how);
        }
        assert_eq!(destination.ejected().is_some(), counts, "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_namespaces_clients_have_a_policy_of_their_own() {
    let (strict, lax) = (
        detecting(OutlierDetection::default()),
        detecting(OutlierDetection { consecutive_errors: 0, ..OutlierDetection::default() }),
    );
    let world = weighted(&[1, 1], &lax);
    let mut echo = Service::clone(world.service(&key("echo")).unwrap());
    echo.traffic.set(Some(client().key.namespace.clone()), Ports::from([(80, strict.clone())]));
    let world = Fixture::default().service(echo).build();
    fail(&world, 1);
    assert!(strict.ejected().is_some() && lax.ejected().is_none());
}

/// While the fourth of four is at half of its share. Six standard deviations.
#[tokio::test(start_paused = true)]
async fn a_new_endpoint_gets_its_part_of_its_share() {
    for (balancer, weights) in [
        (Balancer::RoundRobin, [1, 1, 1, 1]),
        (Balancer::RoundRobin, [2, 2, 2, 2]),
        (Balancer::LeastRequest, [1, 1, 1, 1]),
        (Balancer::PeakEwma, [1, 1, 1, 1]),
    ] {
        const ALL: u32 = 7000;
        let warmup =
            Some(Warmup { duration: Duration::from_secs(100), least: 0.1, aggression: 1.0 });
        let policy = Policy { balancer: Some(balancer.clone()), warmup, ..Policy::default() };
        let destination = under(policy);
        destination.follow(&[1, 2, 3].map(|number| (address(number), true)));
        destination.follow(&[1, 2, 3, 4].map(|number| (address(number), true)));
        tokio::time::advance(Duration::from_secs(50)).await;
        let shares = counts(&weighted(&weights, &destination), ALL);
        assert!(shares[3].abs_diff(ALL / 7) < 180, "{balancer:?}: {shares:?}");
        assert!(shares[0].abs_diff(ALL * 2 / 7) < 230, "{balancer:?}: {shares:?}");
        tokio::time::advance(Duration::from_secs(60)).await;
        let shares = counts(&weighted(&weights, &destination), ALL);
        assert!(shares[3].abs_diff(ALL / 4) < 220, "{balancer:?}: {shares:?}");
    }
}

/// Those that are all new share as if none were.
#[tokio::test(start_paused = true)]
async fn where_all_are_new_each_gets_its_share() {
    for balancer in [Balancer::RoundRobin, Balancer::LeastRequest] {
        let warmup =
            Some(Warmup { duration: Duration::from_secs(100), least: 0.0, aggression: 1.0 });
        let policy = Policy { balancer: Some(balancer), warmup, ..Policy::default() };
        let destination = under(policy);
        destination.follow(&[(address(9), true)]);
        destination.follow(&[1, 2, 3].map(|number| (address(number), true)));
        let shares = counts(&weighted(&[1, 1, 1], &destination), 3000);
        assert!(shares.iter().all(|share| share.abs_diff(1000) < 160), "{shares:?}");
    }
}
