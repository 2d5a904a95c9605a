//! Which namespace is whose: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use crate::base::Str;

/// A network namespace of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its path.
    pub network_namespace: Str,
    /// Of all its interfaces, without loopback and link-local ones.
    pub addresses: Vec<IpAddr>,
    /// When it was made, as far as the file system tells.
    pub made: SystemTime,
}

/// A pod of this node whose namespace is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sought {
    /// The workload's uid.
    pub uid: Str,
    /// The pod's own UID.
    pub pod: Str,
    pub addresses: Vec<IpAddr>,
    /// Neither starting nor being deleted.
    pub ready: bool,
}

/// The namespace of each pod, by the workload's uid. A pod of several interfaces is found by any of its addresses. Of
/// several namespaces with its address the newest is its sandbox: an older one is about to vanish. Of several pods with
/// an address of one namespace it is the only one that is ready; when that does not tell, nobody's.
pub(super) fn assign<'a>(
    pods: &'a [Sought],
    candidates: &'a [Candidate],
) -> BTreeMap<&'a Str, &'a Candidate> {
    let mut claims: BTreeMap<&Str, Vec<(&Sought, &Candidate)>> = BTreeMap::new();
    for pod in pods {
        let has = |one: &&Candidate| one.addresses.iter().any(|it| pod.addresses.contains(it));
        let newest =
            candidates.iter().filter(has).max_by_key(|one| (one.made, &one.network_namespace));
        if let Some(newest) = newest {
            claims.entry(&newest.network_namespace).or_default().push((pod, newest));
        }
    }
    claims.into_values().filter_map(sole).map(|(pod, place)| (&pod.uid, place)).collect()
}

fn sole<'a>(claimants: Vec<(&'a Sought, &'a Candidate)>) -> Option<(&'a Sought, &'a Candidate)> {
    if let [one] = claimants[..] {
        return Some(one);
    }
    let mut ready = claimants.into_iter().filter(|(pod, _)| pod.ready);
    let first = ready.next()?;
    ready.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn pod(name: &str, addresses: &[&str], ready: bool) -> Sought {
        let addresses = addresses.iter().map(|one| one.parse().unwrap()).collect();
        Sought { uid: name.into(), pod: format!("{name}-uid").into(), addresses, ready }
    }

    fn candidate(name: &str, addresses: &[&str], second: u64) -> Candidate {
        let addresses = addresses.iter().map(|one| one.parse().unwrap()).collect();
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        Candidate { network_namespace: name.into(), addresses, made }
    }

    fn assigned(pods: &[Sought], candidates: &[Candidate]) -> Vec<(String, String)> {
        let found = assign(pods, candidates);
        found.iter().map(|(uid, it)| (uid.to_string(), it.network_namespace.to_string())).collect()
    }

    #[test]
    fn any_address_of_any_interface_tells() {
        let pods = [pod("a", &["10.0.0.1", "fd00::1"], true), pod("b", &["10.0.0.2"], true)];
        let candidates = [
            candidate("x", &["192.0.2.7", "fd00::1"], 1),
            candidate("y", &["10.0.0.2", "192.0.2.8"], 1),
            candidate("z", &["10.0.0.3"], 1),
        ];
        let expected = [("a", "x"), ("b", "y")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(assigned(&pods, &candidates), expected);
    }

    #[test]
    fn the_newest_sandbox_is_the_pods() {
        let candidates = [
            candidate("old", &["10.0.0.1"], 1),
            candidate("new", &["10.0.0.1"], 3),
            candidate("older", &["10.0.0.1"], 0),
        ];
        let found = assigned(&[pod("a", &["10.0.0.1"], false)], &candidates);
        assert_eq!(found, [("a".to_owned(), "new".to_owned())]);
    }

    #[test]
    fn a_namespace_that_two_claim_is_the_ready_ones_or_nobodys() {
        let candidates = [candidate("x", &["10.0.0.1"], 1)];
        let claims = |one, other| {
            let pods = [pod("a", &["10.0.0.1"], one), pod("b", &["10.0.0.1"], other)];
            assigned(&pods, &candidates)
        };
        assert_eq!(claims(false, true), [("b".to_owned(), "x".to_owned())]);
        assert_eq!(claims(true, true), []);
        assert_eq!(claims(false, false), []);
    }

    proptest! {
        #[test]
        fn a_namespace_is_one_pods_and_has_its_address(
            pods in proptest::collection::vec((proptest::collection::vec(0u8..8, 1..3), any::<bool>()), 0..6),
            places in proptest::collection::vec((proptest::collection::vec(0u8..8, 0..3), 0u64..3), 0..6),
        ) {
            let address = |last: &u8| IpAddr::from([10, 0, 0, *last]);
            let pods: Vec<Sought> = pods.iter().enumerate().map(|(at, (lasts, ready))| Sought {
                uid: format!("pod{at}").into(),
                pod: Str::default(),
                addresses: lasts.iter().map(address).collect(),
                ready: *ready,
            }).collect();
            let places: Vec<Candidate> = places.iter().enumerate().map(|(at, (lasts, second))| Candidate {
                network_namespace: format!("ns{at}").into(),
                addresses: lasts.iter().map(address).collect(),
                made: SystemTime::UNIX_EPOCH + Duration::from_secs(*second),
            }).collect();
            let found = assign(&pods, &places);
            let mut taken = std::collections::BTreeSet::new();
            for (uid, place) in found {
                prop_assert!(taken.insert(&place.network_namespace), "one namespace, two pods");
                let pod = pods.iter().find(|pod| pod.uid == *uid).unwrap();
                prop_assert!(place.addresses.iter().any(|one| pod.addresses.contains(one)));
            }
        }
    }
}
