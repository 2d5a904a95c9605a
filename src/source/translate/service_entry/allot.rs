//! Addresses for entries that give none, from the ranges of Istio's controller for automatic allocation: 240.240.0.0/16
//! and 2001:2::/48, neither of which is routed anywhere.
//!
//! Every agent allots alike without asking another, and an entry keeps its address while others come and go: the
//! address follows from namespace and host. Where two fall together the older entry has it, and the younger one
//! takes the next that is free. Entries that no client sees together cannot fall together: those that only their own namespace
//! sees are allotted among themselves, so that no namespace can use up what another needs, or move another's entries by giving
//! their addresses to its own.
//!
//! Services that say no address, as they stand in files, are allotted theirs first.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Host;
use crate::base::{ObjectKey, Str};
use crate::model::Visibility;

/// How many hosts get addresses: neither the first nor the last address of the IPv4 range is allotted.
const SLOTS: u16 = u16::MAX - 1;

/// What every host got.
pub(super) struct Allotments(HashMap<ObjectKey, [IpAddr; 2]>);

impl Allotments {
    /// For those of the hosts that want an address, in their order. `services`: the addresses of Services, some of which are
    /// allotted too.
    pub(super) fn of(hosts: &[Host<'_>], services: impl Iterator<Item = IpAddr>) -> Self {
        let mut given: HashMap<Option<&Str>, HashSet<IpAddr>> = HashMap::new();
        for host in hosts {
            given.entry(scope(host)).or_default().extend(&host.entry.addresses.exact);
        }
        let mut allotted = HashMap::new();
        let mut common = given.remove(&None).unwrap_or_default();
        common.extend(services);
        let mut common = Allotment::without(common);
        let wanting = || hosts.iter().filter(|host| host.wants_address());
        let mut allot = |allotment: &mut Allotment, host: &Host<'_>| {
            if let Some(pair) = allotment.next(&host.entry.key.namespace, &host.name) {
                allotted.insert(host.key(), pair);
            }
        };
        for host in wanting().filter(|host| scope(host).is_none()) {
            allot(&mut common, host);
        }
        let mut own: HashMap<&Str, Allotment> = HashMap::new();
        for host in wanting() {
            let Some(namespace) = scope(host) else { continue };
            let allotment = own.entry(namespace).or_insert_with(|| {
                let mut taken = given.remove(&Some(namespace)).unwrap_or_default();
                taken.extend(&common.taken);
                Allotment::without(taken)
            });
            allot(allotment, host);
        }
        Self(allotted)
    }

    /// One address of each family; `None` when all were taken.
    pub(super) fn get(&self, service: &ObjectKey) -> Option<[IpAddr; 2]> {
        self.0.get(service).copied()
    }
}

/// The only namespace that sees a host, its own.
fn scope<'a>(host: &'a Host<'_>) -> Option<&'a Str> {
    let own = &host.entry.key.namespace;
    match &host.visibility {
        Visibility::Namespaces(seen) if seen.iter().all(|namespace| namespace == own) => Some(own),
        _ => None,
    }
}

/// What is allotted, or was given by an operator and is not free.
pub(in crate::source::translate) struct Allotment {
    taken: HashSet<IpAddr>,
    /// Nothing is left, so that nobody looks again: one entry may have more hosts than there are addresses, and every agent
    /// allots for all of them after each change.
    used_up: bool,
}

impl Allotment {
    pub(in crate::source::translate) fn without(taken: HashSet<IpAddr>) -> Self {
        Self { taken, used_up: false }
    }

    /// One address of each family; `None` when all are taken.
    pub(in crate::source::translate) fn next(
        &mut self,
        namespace: &str,
        host: &str,
    ) -> Option<[IpAddr; 2]> {
        if self.used_up {
            return None;
        }
        let start = hash(namespace, host) % u64::from(SLOTS);
        let slots = (0..u64::from(SLOTS)).map(|step| (start + step) % u64::from(SLOTS) + 1);
        let mut pairs = slots.filter_map(|slot| Some(addresses(u16::try_from(slot).ok()?)));
        let pair = pairs.find(|pair| pair.iter().all(|it| !self.taken.contains(it)));
        self.used_up = pair.is_none();
        self.taken.extend(pair.iter().flatten());
        pair
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

    /// One entry of a tenant may have more hosts than there are addresses.
    #[test]
    fn hosts_without_an_address_left_cost_next_to_nothing() {
        let mut allotment = Allotment::without((1..=SLOTS).flat_map(addresses).collect());
        assert_eq!(allotment.next("evil", "first"), None);
        assert!(allotment.used_up, "the next one would look through all addresses again");
        assert!((0..20_000).all(|host| allotment.next("evil", &host.to_string()).is_none()));
    }
}
