//! Subsets of endpoints.

use super::*;
use crate::traffic::{Balancer, Policy, Ports};

/// Four endpoints: two of `v1`, one of `v2`, none of `v3`.
fn world(policies: [Option<Balancer>; 2]) -> Arc<World> {
    let pods: Vec<_> =
        (1..=4).map(|n| workload(&format!("pod-{n}"), &format!("10.0.0.{n}"))).collect();
    let mut echo = service("echo", "10.96.0.1", &pods.iter().collect::<Vec<_>>());
    let selected_by = [vec![0], vec![0], vec![1], vec![]];
    for (endpoint, numbers) in echo.endpoints.iter_mut().zip(selected_by) {
        endpoint.subsets = numbers.into_iter().collect();
    }
    let [all, ports] = policies.map(|balancer| {
        let policy = |balancer| Policy { balancer: Some(balancer), ..Policy::default() };
        let under =
            |policy| Arc::new(Destination::new("Service shop/echo, port 80".into(), policy));
        balancer.map(|it| Ports::from([(80, under(policy(it)))])).unwrap_or_default()
    });
    echo.traffic.set(None, all);
    let named = (0..).zip(["v1", "v2", "v3"]).map(|(number, name)| {
        (Str::from(name), Subset { labels: Some(number), ports: ports.clone() })
    });
    let everything = ("all".into(), Subset { labels: None, ports: ports.clone() });
    echo.traffic.set_subsets(None, named.chain([everything]).collect());
    pods.into_iter().fold(Fixture::default().service(echo), Fixture::workload).build()
}

/// How many of a hundred clients get each endpoint.
fn counts(world: &World, subset: Option<&str>, avoid: &[SocketAddr]) -> [u32; 4] {
    let echo = world.service(&key("echo")).unwrap();
    let client = client();
    let subset = subset.map(|name| echo.subset(&client, name).unwrap());
    let mut counts = [0; 4];
    for _ in 0..100 {
        let like = "10.96.0.1:80".parse().unwrap();
        let caller = Caller { subset, ..by(&client) };
        let Some(picked) = pick(world, echo, 80, caller, like, avoid) else { continue };
        let number = (1u8..).find(|it| picked.address.ip() == IpAddr::from([10, 0, 0, *it]));
        counts[usize::from(number.unwrap()) - 1] += 1;
    }
    counts
}

#[test]
fn only_the_endpoints_of_the_subset_are_selected() {
    let turns = || Some(Balancer::RoundRobin);
    for policies in [[None, None], [turns(), None], [None, turns()], [turns(), turns()]] {
        let world = world(policies);
        let [one, two, three, four] = counts(&world, Some("v1"), &[]);
        assert_eq!((one + two, three, four), (100, 0, 0));
        assert!(one > 0 && two > 0, "{one} {two}");
        assert_eq!(counts(&world, Some("v2"), &[]), [0, 0, 100, 0]);
        // Not even where its own were tried already.
        let tried = [SocketAddr::from(([10, 0, 0, 3], 8080))];
        assert_eq!(counts(&world, Some("v2"), &tried), [0, 0, 100, 0]);
        assert_eq!(counts(&world, Some("v3"), &[]), [0; 4]);
        for subset in [None, Some("all")] {
            assert!(counts(&world, subset, &[]).iter().all(|count| *count > 0));
        }
    }
}

#[test]
fn its_policy_is_its_own() {
    let world = world([Some(Balancer::Random), Some(Balancer::RoundRobin)]);
    assert_eq!(counts(&world, Some("v1"), &[]), [50, 50, 0, 0]);
    assert_eq!(counts(&world, Some("all"), &[]), [25; 4]);
}

#[test]
fn what_is_missing_is_said() {
    let world = world([None, None]);
    let echo = world.service(&key("echo")).unwrap();
    let client = client();
    let caller = Caller { subset: echo.subset(&client, "v3"), ..by(&client) };
    let why = nobody(echo, 80, &caller);
    assert_eq!(
        why,
        "Service shop/echo has no ready endpoint with the labels of the subset on port 80"
    );
}
