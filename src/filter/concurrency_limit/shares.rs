//! What each client has in progress of one limit: a bounded number of counts, without a lock.
//!
//! A client has its place in one group of a table of fixed size, where a count is free again once it is zero. A client that finds no
//! place in its group shares the count of another. So many clients at once share what they may have, and never get more.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Counts of one limit: as many as a limit of some hundred requests has clients, in 16 KiB.
const SLOTS: usize = 1024;
/// Places in a group.
const WAYS: usize = 8;
/// How often it is tried to take a place that others take at the same time.
const TRIES: usize = 4;

/// How many times what is free one client may have. With 8, a client alone gets eight ninths, and leaves a ninth to the next one;
/// `n` of them get `8 / (8n + 1)` each. The rule is known from switches that share a buffer ("dynamic thresholds", Choudhury and
/// Hahne 1998).
const TIMES: u32 = 8;

#[derive(Debug, Default)]
pub(super) struct Shares {
    slots: OnceLock<Box<[Slot]>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// The client's hash. It means nothing while the count is 0.
    tag: AtomicU64,
    count: AtomicU32,
}

/// The count of a client that this request is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    slot: u16,
    /// Requests of the client before this one.
    pub(super) before: u32,
}

impl Shares {
    /// Counts a request of the client with this hash.
    pub(super) fn enter(&self, hash: u64) -> Seat {
        let slots = self.slots.get_or_init(|| (0..SLOTS).map(|_| Slot::default()).collect());
        let first = (hash as usize % (SLOTS / WAYS)) * WAYS;
        let group = &slots[first..first + WAYS];
        let mut at = 0;
        for _ in 0..TRIES {
            at = find(group, hash);
            let before = group[at].count.fetch_add(1, Ordering::Relaxed);
            let tag = group[at].tag.load(Ordering::Relaxed);
            if tag == hash || before > 0 {
                return Seat { slot: (first + at) as u16, before };
            }
            if group[at]
                .tag
                .compare_exchange(tag, hash, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                return Seat { slot: (first + at) as u16, before };
            }
            group[at].count.fetch_sub(1, Ordering::Relaxed);
        }
        let before = group[at].count.fetch_add(1, Ordering::Relaxed);
        Seat { slot: (first + at) as u16, before }
    }

    pub(super) fn leave(&self, seat: Seat) {
        if let Some(slot) = self.slots.get().and_then(|slots| slots.get(usize::from(seat.slot))) {
            slot.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    pub(super) fn sum(&self) -> u32 {
        let slots = self.slots.get().map_or(&[][..], |slots| slots);
        slots.iter().map(|slot| slot.count.load(Ordering::Relaxed)).sum()
    }
}

/// The client's place in its group; else one that is free; else the one with the fewest.
fn find(group: &[Slot], hash: u64) -> usize {
    let mut best = (u32::MAX, 0);
    for (at, slot) in group.iter().enumerate() {
        let count = slot.count.load(Ordering::Relaxed);
        if count > 0 && slot.tag.load(Ordering::Relaxed) == hash {
            return at;
        }
        if count < best.0 {
            best = (count, at);
        }
    }
    best.1
}

/// Whether a client may have one more, where so many are free. Its first is always let in; for each further one a place must be
/// left to others. `namespace` and `identity`: what they have already.
pub(super) fn is_fair(free: u32, namespace: u32, identity: u32) -> bool {
    let to_share = free.saturating_sub(1).saturating_mul(TIMES);
    let of_namespace = to_share.saturating_sub(namespace);
    (namespace == 0 || of_namespace > 0)
        && (identity == 0 || identity < of_namespace.saturating_mul(TIMES))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most that so many clients with boundless demand get of a limit, each.
    fn saturated(limit: u32, clients: usize) -> Vec<u32> {
        let mut have = vec![0; clients];
        loop {
            let before = have.clone();
            for at in 0..clients {
                let free = limit - have.iter().sum::<u32>();
                if free > 0 && is_fair(free, have[at], have[at]) {
                    have[at] += 1;
                }
            }
            if have == before {
                return have;
            }
        }
    }

    #[test]
    fn a_client_alone_leaves_room_for_the_next() {
        for (limit, most) in [(1, 1), (2, 1), (3, 2), (10, 8), (100, 87), (1000, 876)] {
            assert_eq!(saturated(limit, 1), [most], "{limit}");
        }
    }

    #[test]
    fn several_have_equal_shares_and_leave_room_as_well() {
        for (limit, clients) in [(100, 2), (100, 5), (1000, 20)] {
            let have = saturated(limit, clients);
            let (least, most) = (have.iter().min().unwrap(), have.iter().max().unwrap());
            assert!(most - least <= 1, "{have:?}");
            assert!(have.iter().sum::<u32>() < limit, "{have:?}");
        }
    }

    /// Service accounts cost a namespace nothing, so they share what it has.
    #[test]
    fn many_identities_of_a_namespace_get_no_more_than_one() {
        let (limit, mut namespace) = (100, 0);
        while is_fair(limit - namespace, namespace, 0) {
            namespace += 1;
        }
        assert_eq!((namespace, saturated(limit, 1)[0]), (88, 87));
    }

    #[test]
    fn one_identity_leaves_room_to_others_of_its_namespace() {
        let (limit, mut one) = (100, 0);
        while is_fair(limit - one, one, one) {
            one += 1;
        }
        assert!(is_fair(limit - one, one, 0), "{one}");
        assert!(one >= 80, "{one}");
    }

    #[test]
    fn counts_are_by_client_and_return_to_nothing() {
        let shares = Shares::default();
        let seats: Vec<Seat> = (0..4).map(|_| shares.enter(7)).collect();
        assert_eq!(seats.iter().map(|seat| seat.before).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(shares.enter(7 + 1).before, 0);
        seats.into_iter().for_each(|seat| shares.leave(seat));
        assert_eq!((shares.enter(7).before, shares.sum()), (0, 2));
    }

    /// A flood of clients fills no more than its group, and shares the counts there.
    #[test]
    fn more_clients_than_places_share_them() {
        let shares = Shares::default();
        let group = (SLOTS / WAYS) as u64;
        let befores: Vec<u32> = (0..100).map(|at| shares.enter(at * group + 1).before).collect();
        assert!(befores[WAYS..].iter().all(|before| *before > 0), "{befores:?}");
        assert_eq!(shares.sum(), 100);
    }

    #[test]
    fn threads_that_come_and_go_leave_nothing() {
        let shares = Shares::default();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let shares = &shares;
                scope.spawn(move || {
                    for round in 0..5_000u64 {
                        let seat = shares.enter((round * 7 + thread) % 40 * 128);
                        shares.leave(seat);
                    }
                });
            }
        });
        assert_eq!(shares.sum(), 0);
    }
}
