//! Namespaces that are named after pods: pure.
//!
//! Only root of this machine can name a namespace (`ip netns add`, a bind mount below `/run/netns`), so a name proves
//! the owner as a manifest does, and no pod can set it. Container runtimes choose random names; if a runtime answers,
//! it is queried instead.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Candidate;
use crate::base::Str;

/// A pod of this node whose namespace is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sought {
    /// The workload's uid.
    pub uid: Str,
    /// The pod's own UID.
    pub pod: Str,
    pub namespace: Str,
    pub name: Str,
    pub addresses: Vec<IpAddr>,
}

/// The namespace of each pod after which one is named, by the workload's uid: after its UID, or after its name if no
/// other pod of `all` has that name. A pod's author chooses its name, so the namespace must also have the address that
/// the API reports: a pod that is named like another workload's namespace does not get it.
pub(super) fn named<'a>(
    sought: &'a [Sought],
    all: &[Str],
    candidates: &'a [Candidate],
) -> BTreeMap<&'a Str, &'a Candidate> {
    let mut found = BTreeMap::new();
    for pod in sought {
        let is_alone = all.iter().filter(|name| **name == pod.name).count() <= 1;
        let bears = |one: &&Candidate| {
            let name = one.network_namespace.rsplit('/').next().unwrap_or_default();
            (!pod.pod.is_empty() && name == pod.pod) || (is_alone && name == pod.name)
        };
        let mut places = candidates.iter().filter(bears);
        let (Some(place), None) = (places.next(), places.next()) else { continue };
        if place.addresses.iter().any(|it| pod.addresses.contains(it)) {
            found.insert(&pod.uid, place);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sock::NamespaceId;

    fn pod(namespace: &str, name: &str, address: &str) -> Sought {
        Sought {
            uid: format!("{namespace}/{name}").into(),
            pod: format!("uid-of-{name}").into(),
            namespace: namespace.into(),
            name: name.into(),
            addresses: vec![address.parse().unwrap()],
        }
    }

    fn place(name: &str, addresses: &[&str]) -> Candidate {
        Candidate {
            network_namespace: format!("/run/netns/{name}").into(),
            id: NamespaceId { device: 4, inode: name.len() as u64, cookie: None },
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_name_decides_and_an_address_confirms() {
        let billing = || pod("shop", "billing", "10.0.0.11");
        let attacker = || pod("evil", "attacker", "10.0.0.66");
        let own = place("attacker", &["10.0.0.66"]);
        let taken = place("attacker", &["10.0.0.66", "10.0.0.11"]);
        let right = place("billing", &["10.0.0.11"]);
        for (case, pods, places, expected) in [
            ("each its own", vec![billing(), attacker()], vec![own, right.clone()], {
                vec![("evil/attacker", "attacker"), ("shop/billing", "billing")]
            }),
            (
                "a neighbour's address is not its identity",
                vec![billing()],
                vec![taken.clone()],
                vec![],
            ),
            (
                "nor is it when the neighbour's namespace is there",
                vec![billing(), attacker()],
                vec![taken, right.clone()],
                vec![("evil/attacker", "attacker"), ("shop/billing", "billing")],
            ),
            (
                "a pod that is called like a namespace of another one",
                vec![pod("evil", "cni-1", "10.0.0.66")],
                vec![place("cni-1", &["10.0.0.11"])],
                vec![],
            ),
            (
                "two pods of one name",
                vec![billing(), pod("evil", "billing", "10.0.0.66")],
                vec![place("billing", &["10.0.0.11", "10.0.0.66"])],
                vec![],
            ),
            (
                "by its UID",
                vec![billing(), pod("evil", "billing", "10.0.0.66")],
                vec![place("uid-of-billing", &["10.0.0.12"])],
                vec![],
            ),
            (
                "two namespaces",
                vec![billing()],
                vec![right, place("uid-of-billing", &["10.0.0.11"])],
                vec![],
            ),
            ("by its UID alone", vec![billing()], vec![place("uid-of-billing", &["10.0.0.11"])], {
                vec![("shop/billing", "uid-of-billing")]
            }),
        ] {
            let all: Vec<Str> = pods.iter().map(|it| it.name.clone()).collect();
            let found = named(&pods, &all, &places);
            let found: Vec<(&str, &str)> = found
                .iter()
                .map(|(uid, it)| (uid.as_str(), it.network_namespace.rsplit('/').next().unwrap()))
                .collect();
            assert_eq!(found, expected, "{case}");
        }
    }

    #[test]
    fn a_name_of_a_pod_that_is_known_already_is_taken() {
        let all = ["billing".into(), "billing".into()];
        let sought = [pod("shop", "billing", "10.0.0.11")];
        assert!(named(&sought, &all, &[place("billing", &["10.0.0.11"])]).is_empty());
    }
}
