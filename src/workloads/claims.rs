//! Does this network namespace belong to that workload? The final decision over all claims, whatever their source:
//! pure.

use std::collections::BTreeMap;

use crate::base::Str;
use crate::sock::Place;

/// A workload, and the namespace that it claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub uid: Str,
    pub place: Place,
}

/// Why a claim is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "its network namespace is the agent's own or the host's, which no workload may claim; check the annotation \
         isthmus.io/network-namespace"
    )]
    Host,
    #[error(
        "its network namespace is also that of {0}, so neither gets it: both stay closed until one of them names another \
         one; check their annotations isthmus.io/network-namespace, and paths that lead to one namespace"
    )]
    Shared(Str),
}

/// The rejected claims, by workload: claims to a namespace of the `host`, and those of several workloads to one
/// namespace. Every other claim is valid.
pub fn refused(claims: &[Claim], host: &[Place]) -> BTreeMap<Str, Refusal> {
    let mut claimants: BTreeMap<Place, Vec<&Str>> = BTreeMap::new();
    for claim in claims {
        let known = claimants.entry(claim.place).or_default();
        if !known.contains(&&claim.uid) {
            known.push(&claim.uid);
        }
    }
    let mut refused = BTreeMap::new();
    for (place, uids) in claimants {
        for uid in &uids {
            let other = uids.iter().find(|other| *other != uid);
            let refusal = match other {
                _ if host.contains(&place) => Refusal::Host,
                Some(other) => Refusal::Shared((*other).clone()),
                None => continue,
            };
            refused.insert((*uid).clone(), refusal);
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(uid: &str, inode: u64) -> Claim {
        Claim { uid: uid.into(), place: (4, inode) }
    }

    #[test]
    fn a_namespace_is_one_workloads_or_nobodys() {
        let shared = |with: &str| Refusal::Shared(with.into());
        for (case, claims, expected) in [
            ("nobody", vec![], vec![]),
            ("one each", vec![claim("a", 1), claim("b", 2)], vec![]),
            ("said twice", vec![claim("a", 1), claim("a", 1)], vec![]),
            (
                "two in one",
                vec![claim("a", 1), claim("b", 1), claim("c", 2)],
                vec![("a", shared("b")), ("b", shared("a"))],
            ),
            ("the host's", vec![claim("a", 9), claim("b", 2)], vec![("a", Refusal::Host)]),
            (
                "two in the host's",
                vec![claim("a", 9), claim("b", 9)],
                vec![("a", Refusal::Host), ("b", Refusal::Host)],
            ),
        ] {
            let expected: BTreeMap<Str, Refusal> =
                expected.into_iter().map(|(uid, it)| (uid.into(), it)).collect();
            assert_eq!(refused(&claims, &[(4, 9)]), expected, "{case}");
        }
        let elsewhere = Claim { uid: "b".into(), place: (5, 1) };
        assert!(refused(&[claim("a", 1), elsewhere], &[]).is_empty(), "inodes of two devices");
    }

    proptest! {
        #[test]
        fn no_two_that_are_left_share_a_namespace(
            claims in proptest::collection::vec((0u8..6, 0u64..5), 0..12),
        ) {
            let claims: Vec<Claim> =
                claims.iter().map(|(uid, inode)| claim(&format!("w{uid}"), *inode)).collect();
            let refused = refused(&claims, &[(4, 0)]);
            let left: Vec<&Claim> =
                claims.iter().filter(|claim| !refused.contains_key(&claim.uid)).collect();
            for one in &left {
                prop_assert!(one.place.1 != 0);
                prop_assert!(left.iter().all(|it| it.place != one.place || it.uid == one.uid));
            }
        }
    }
}
