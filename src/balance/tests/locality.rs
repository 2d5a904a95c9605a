//! `localityLbSetting`: which places come first, what they carry, and shares.

use std::time::Duration;

use super::*;
use crate::base::{LabelMap, Str};
use crate::traffic::{
    Distribute, Failover, Group, LocalityPolicy, OutlierDetection, PlacePattern, Policy, Ports,
};

const VIP: &str = "10.96.0.1:80";

fn place(text: &str) -> Locality {
    let mut parts = text.split('/').map(Str::from);
    let mut part = || parts.next().unwrap_or_default();
    Locality { region: part(), zone: part(), subzone: part() }
}

fn labels(text: &str) -> LabelMap {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.into(), value.into())).collect()
}

/// A client, and a service with an endpoint at each of these places, with labels, under the policy.
fn mesh(client: (&str, &str), at: &[(&str, &str)], policy: Policy) -> (Workload, Arc<World>) {
    let locality = place(client.0);
    let client = Workload { locality, labels: labels(client.1), ..super::client() };
    let pod = |(number, (at, text)): (usize, &(&str, &str))| Workload {
        locality: place(at),
        labels: labels(text),
        ..workload(&format!("pod-{number}"), &format!("10.0.0.{}", number + 1))
    };
    let pods: Vec<Workload> = at.iter().enumerate().map(pod).collect();
    let mut echo = service("echo", "10.96.0.1", &pods.iter().collect::<Vec<_>>());
    // A setting of the rule comes before it.
    echo.balancing.preference = Preference::SameZone;
    let destination = Arc::new(Destination::new("web".into(), policy));
    echo.traffic.set(None, Ports::from([(80, destination)]));
    let world = pods.into_iter().fold(Fixture::default().service(echo), Fixture::workload).build();
    (client, world)
}

fn under(locality: LocalityPolicy) -> Policy {
    let outliers = OutlierDetection { max_ejection_percent: 100, ..OutlierDetection::default() };
    Policy { locality: Some(Box::new(locality)), outliers: Some(outliers), ..Policy::default() }
}

fn select(client: &Workload, world: &World, avoid: &[SocketAddr]) -> Option<Picked> {
    let echo = world.service(&key("echo")).unwrap();
    pick(world, echo, 80, by(client), VIP.parse().unwrap(), avoid)
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8080))
}

fn eject(client: &Workload, world: &World, number: u8) {
    let others: Vec<_> = (1..=9).filter(|other| *other != number).map(address).collect();
    for _ in 0..5 {
        select(client, world, &others).unwrap().ended(Ended::Unreached);
    }
}

/// Of so many, by endpoint.
fn counts<const N: usize>(client: &Workload, world: &World, times: u32) -> [u32; N] {
    let mut counts = [0; N];
    for _ in 0..times {
        let picked = select(client, world, &[]).unwrap();
        let number = (1..).find(|number| address(*number) == picked.address).unwrap();
        counts[usize::from(number) - 1] += 1;
    }
    counts
}

/// The groups in their order, by the numbers of their endpoints.
fn order(client: (&str, &str), at: &[(&str, &str)], failover: Failover) -> Vec<Vec<usize>> {
    let (client, world) = mesh(client, at, under(LocalityPolicy::Failover(failover)));
    let service = world.service(&key("echo")).unwrap();
    let destination = service.destination(&client, 80).unwrap();
    let like = VIP.parse().unwrap();
    let table = Build {
        world: &world,
        service,
        port: 80,
        client: &client,
        subset: None,
        like,
        destination,
    }
    .table();
    let numbers = |group: &Group| -> Vec<usize> {
        group.members().iter().map(|member| member.endpoint + 1).collect()
    };
    table.groups().iter().map(numbers).collect()
}

fn by_place(regions: &[(&str, &str)]) -> Failover {
    let regions = regions.iter().map(|(from, to)| ((*from).into(), (*to).into())).collect();
    Failover { by_place: true, regions, ..Failover::default() }
}

/// Istio's `LbPriority` and `applyLocalityFailover`.
#[test]
fn near_places_come_first_and_the_next_region_before_others() {
    let at = [("r/z/s", ""), ("r/z/t", ""), ("r/y/s", ""), ("q/z/s", ""), ("p", ""), ("", "")];
    for (client, regions, expected) in [
        ("r/z/s", &[][..], &[&[1][..], &[2], &[3], &[4, 5, 6]][..]),
        ("r/z/s", &[("r", "p")], &[&[1], &[2], &[3], &[5], &[4, 6]]),
        ("r/z/s", &[("q", "p")], &[&[1], &[2], &[3], &[4, 5, 6]]),
        ("r/z", &[], &[&[1, 2], &[3], &[4, 5, 6]]),
        ("p", &[("p", "q")], &[&[5], &[4], &[1, 2, 3, 6]]),
        // A client and endpoints of which nothing is known are at one place.
        ("", &[], &[&[6], &[1, 2, 3, 4, 5]]),
        ("elsewhere", &[], &[&[1, 2, 3, 4, 5, 6]]),
    ] {
        let found = order((client, ""), &at, by_place(regions));
        assert_eq!(found, expected, "{client} {regions:?}");
    }
}

/// The examples of Istio's reference, `failoverPriority`.
#[test]
fn the_more_of_the_first_labels_are_alike_the_nearer() {
    const NETWORK: &str = "topology.istio.io/network";
    const REGION: &str = "topology.kubernetes.io/region";
    let by_labels = |labels: &[&str], by_place| Failover {
        labels: labels
            .iter()
            .map(|label| match label.split_once('=') {
                Some((name, value)) => (name.into(), Some(value.into())),
                None => ((*label).into(), None),
            })
            .collect(),
        by_place,
        regions: if by_place { vec![("r".into(), "q".into())] } else { Vec::new() },
    };
    let client = ("r", "version=v1,app=a");
    let at = [
        ("r", "version=v1,app=a"),
        ("q", "version=v1,app=b"),
        ("p", "version=v2,app=a"),
        ("r", "version=v1"),
        ("p", ""),
    ];
    for (failover, expected) in [
        (by_labels(&["version", "app"], false), &[&[1][..], &[2, 4], &[3, 5]][..]),
        (by_labels(&["app", "version"], false), &[&[1], &[3], &[2, 4, 5]]),
        (by_labels(&["version=v2"], false), &[&[3], &[1, 2, 4, 5]]),
        (by_labels(&["version=v2", "app"], false), &[&[3], &[1, 2, 4, 5]]),
        // A label that neither has is alike.
        (by_labels(&["nothing", "version"], false), &[&[1, 2, 4], &[3, 5]]),
        // With failover, places count among those that are alike.
        (by_labels(&["version"], true), &[&[1, 4], &[2], &[3, 5]]),
    ] {
        assert_eq!(order(client, &at, failover.clone()), expected, "{failover:?}");
    }
    // Another network comes after everything else, and is ordered for itself.
    let far = format!("{NETWORK}=n,{REGION}=r");
    let (near, other) = (format!("{REGION}=r"), format!("{NETWORK}=n,{REGION}=q"));
    let at = [("", &*far), ("", &*near), ("", &*other), ("", "")];
    let found = order(("", &near), &at, by_labels(&[NETWORK, REGION], false));
    assert_eq!(found, [[2], [4], [1], [3]]);
}

/// Envoy's priorities with its overprovisioning of 1.4. Six standard deviations of 4000.
#[tokio::test(start_paused = true)]
async fn what_a_place_cannot_carry_goes_to_the_next() {
    let at = [("r/z", ""), ("r/z", ""), ("r/z", ""), ("r/z", ""), ("r/y", ""), ("q", "")];
    for (ejected, near, next) in [
        (&[][..], 100, 0),
        // 75 percent of them carry everything, 50 percent carry 70.
        (&[1], 100, 0),
        (&[1, 2], 70, 30),
        (&[1, 2, 3], 35, 65),
        (&[1, 2, 3, 4], 0, 100),
        (&[1, 2, 3, 5], 35, 0),
    ] {
        let (client, world) =
            mesh(("r/z", ""), &at, under(LocalityPolicy::Failover(by_place(&[]))));
        ejected.iter().for_each(|number| eject(&client, &world, *number));
        let counts: [u32; 6] = counts(&client, &world, 4000);
        let of_near: u32 = counts[..4].iter().sum();
        assert!(of_near.abs_diff(near * 40) < 180, "{ejected:?}: {counts:?}");
        assert!(counts[4].abs_diff(next * 40) < 180, "{ejected:?}: {counts:?}");
        for number in ejected {
            assert_eq!(counts[usize::from(*number) - 1], 0, "{ejected:?}: {counts:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_a_place_that_failed_is_probed_when_its_time_has_come() {
    let at = [("r/z", ""), ("r/y", "")];
    let (client, world) = mesh(("r/z", ""), &at, under(LocalityPolicy::Failover(by_place(&[]))));
    eject(&client, &world, 1);
    assert_eq!(counts::<2>(&client, &world, 50), [0, 50]);
    tokio::time::advance(Duration::from_secs(40)).await;
    let mut held: Vec<_> = (0..50).map(|_| select(&client, &world, &[]).unwrap()).collect();
    let probes = held.iter().filter(|picked| picked.address == address(1)).count();
    assert_eq!(probes, 1);
    held.iter_mut().for_each(|picked| picked.ended(Ended::Served));
    assert_eq!(counts::<2>(&client, &world, 50), [50, 0]);
}

fn distribute(rules: &[(&str, &[(&str, u32)])]) -> LocalityPolicy {
    let rule = |(from, to): &(&str, &[(&str, u32)])| Distribute {
        from: PlacePattern::of(from),
        to: to.iter().map(|(to, share)| (PlacePattern::of(to), *share)).collect(),
    };
    LocalityPolicy::Distribute(rules.iter().map(rule).collect())
}

#[tokio::test(start_paused = true)]
async fn places_get_their_shares() {
    let at = [("r/z", ""), ("r/y", ""), ("r/y", ""), ("q/z", "")];
    let to: &[_] = &[("r/z/*", 70), ("r/y/*", 30)];
    for (client, rules, expected) in [
        ("r/z/s", &[("r/z/*", to)][..], [2800, 600, 600, 0]),
        // The first rule that fits.
        (
            "r/z",
            &[("q/*", &[("q/*", 100)][..]), ("r/*", to), ("*", &[("q/*", 100)])],
            [2800, 600, 600, 0],
        ),
        // Nobody says anything of these clients: all are equal.
        ("p", &[("r/*", to)], [1000; 4]),
        // A place is of the first pattern that fits, and a pattern shares by endpoints.
        ("r", &[("*", &[("r/z/*", 10), ("*", 90)])], [400, 1200, 1200, 1200]),
    ] {
        let (client, world) = mesh((client, ""), &at, under(distribute(rules)));
        let found: [u32; 4] = counts(&client, &world, 4000);
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.abs_diff(expected) < 190, "{rules:?}: {found:?}");
        }
    }
    // What no share names gets nothing, even where nothing else is.
    let (client, world) =
        mesh(("r/z", ""), &at, under(distribute(&[("*", &[("elsewhere", 100)])])));
    assert!(select(&client, &world, &[]).is_none());
    let why = nobody(world.service(&key("echo")).unwrap(), 80, &by(&client));
    assert!(why.contains("localityLbSetting.distribute"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_place_with_ejected_endpoints_gives_up_of_its_share() {
    let at = [("r/z", ""), ("r/z", ""), ("r/y", ""), ("r/y", "")];
    let rules = distribute(&[("*", &[("r/z", 50), ("r/y", 50)])]);
    let (client, world) = mesh(("r/z", ""), &at, under(rules));
    eject(&client, &world, 1);
    let found: [u32; 4] = counts(&client, &world, 4000);
    // 35 to 50, as half of the first place carries 70 percent of its share.
    assert!(found[0] == 0 && found[1].abs_diff(1647) < 200, "{found:?}");
    eject(&client, &world, 2);
    let found: [u32; 4] = counts(&client, &world, 1000);
    assert_eq!(found[0] + found[1], 0, "{found:?}");
}

#[test]
fn where_it_is_off_all_are_equal() {
    let at = [("r/z", ""), ("q/z", "")];
    let (client, world) = mesh(("r/z", ""), &at, under(LocalityPolicy::Off));
    let counts: [u32; 2] = counts(&client, &world, 1000);
    assert!(counts.iter().all(|count| *count > 300), "{counts:?}");
    let preferring = Policy { outliers: Some(OutlierDetection::default()), ..Policy::default() };
    let (client, world) = mesh(("r/z", ""), &at, preferring);
    assert_eq!(self::counts::<2>(&client, &world, 100), [100, 0], "trafficDistribution");
}

/// A table belongs to its snapshot and its place: neither another client nor another list of endpoints gets it.
#[test]
fn clients_of_different_places_get_tables_of_their_own() {
    let at = [("r/z", ""), ("q/z", "")];
    let (client, world) = mesh(("r/z", ""), &at, under(LocalityPolicy::Failover(by_place(&[]))));
    let other = Workload { locality: place("q/z"), ..client.clone() };
    for _ in 0..3 {
        assert_eq!(counts::<2>(&client, &world, 20), [20, 0]);
        assert_eq!(counts::<2>(&other, &world, 20), [0, 20]);
    }
    let mut fewer = Service::clone(world.service(&key("echo")).unwrap());
    fewer.endpoints.remove(0);
    let world = Fixture::default().service(fewer).build();
    assert_eq!(select(&client, &world, &[]).unwrap().address, address(2));
}
