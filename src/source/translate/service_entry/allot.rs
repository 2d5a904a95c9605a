//! Addresses for entries that give none, from the ranges of Istio's controller for automatic allocation: 240.240.0.0/16
//! and 2001:2::/48, neither of which is routed anywhere.
//!
//! Every agent allots alike without asking another, and an entry keeps its address while others come and go: the
//! address follows from namespace and host. Where two fall together the older entry has it, and the younger one
//! takes the next that is free.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many hosts get addresses: neither the first nor the last address of the IPv4 range is allotted.
const SLOTS: u16 = u16::MAX - 1;

/// What is allotted, or was given by an operator and is not free.
pub(super) struct Allotment {
    taken: HashSet<IpAddr>,
}

impl Allotment {
    pub(super) fn without(taken: HashSet<IpAddr>) -> Self {
        Self { taken }
    }

    /// One address of each family; `None` when all are taken.
    pub(super) fn next(&mut self, namespace: &str, host: &str) -> Option<[IpAddr; 2]> {
        let start = hash(namespace, host) % u64::from(SLOTS);
        let slots = (0..u64::from(SLOTS)).map(|step| (start + step) % u64::from(SLOTS) + 1);
        let mut pairs = slots.filter_map(|slot| Some(addresses(u16::try_from(slot).ok()?)));
        let pair = pairs.find(|pair| pair.iter().all(|it| !self.taken.contains(it)))?;
        self.taken.extend(pair);
        Some(pair)
    }
}

fn addresses(slot: u16) -> [IpAddr; 2] {
    let [high, low] = slot.to_be_bytes();
    [
        Ipv4Addr::new(240, 240, high, low).into(),
        Ipv6Addr::new(0x2001, 0x2, 0, 0, 0, 0, 0, slot).into(),
    ]
}

/// FNV-1a with 64 bits: the same in every build of every agent, which the standard library's does not promise.
fn hash(namespace: &str, host: &str) -> u64 {
    let bytes = namespace.bytes().chain([b'/']).chain(host.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allotted_is_known_and_never_twice() {
        let mut allotment = Allotment::without(HashSet::new());
        // Recorded: another value would move every entry of every mesh at an upgrade.
        let first = allotment.next("shop", "api.example.com").unwrap();
        assert_eq!(first.map(|it| it.to_string()), ["240.240.26.108", "2001:2::1a6c"]);
        let mut seen = HashSet::from(first);
        for host in 0..5000 {
            for address in allotment.next("shop", &format!("{host}.example.com")).unwrap() {
                assert!(seen.insert(address), "{address} twice");
                match address {
                    IpAddr::V4(v4) => assert_eq!(v4.octets()[..2], [240, 240]),
                    IpAddr::V6(v6) => assert_eq!(v6.segments()[..3], [0x2001, 2, 0]),
                }
            }
        }
    }

    #[test]
    fn an_entry_keeps_its_address_when_others_come() {
        let alone = Allotment::without(HashSet::new()).next("a", "b.example").unwrap();
        let mut others = Allotment::without(HashSet::from([alone[1]]));
        let moved = others.next("a", "b.example").unwrap();
        assert_ne!(moved, alone, "taken");
        let mut many = Allotment::without(HashSet::new());
        for host in 0..10 {
            many.next("a", &format!("{host}")).unwrap();
        }
        assert_eq!(many.next("a", "b.example").unwrap(), alone);
    }

    #[test]
    fn the_last_one_is_found_and_then_none() {
        let all: HashSet<IpAddr> = (1..=SLOTS).flat_map(addresses).collect();
        let free = addresses(777);
        let mut one = all.clone();
        free.iter().for_each(|it| _ = one.remove(it));
        let mut allotment = Allotment::without(one);
        assert_eq!(allotment.next("a", "b"), Some(free));
        assert_eq!(allotment.next("a", "c"), None);
    }
}
