//! Counts each peer's connections to one workload, so that no peer can use up the connections of others.
//!
//! A peer is an address: it is known before authentication, and pods have one. Invariant: an address is in the map only
//! while it holds a slot, so that the size of the map is bounded by the number of connections. All workloads share one
//! map: a map of this kind takes some 20 KiB even while it is empty.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A count that is about to leave the map accepts no more.
const GONE: usize = usize::MAX;

/// The peers of all workloads of this agent; reads and counts take no lock.
#[derive(Default)]
pub struct PeerTable {
    counts: papaya::HashMap<Key, Arc<AtomicUsize>>,
    next: AtomicU64,
}

/// The workload, and the peer.
type Key = (u64, IpAddr);

/// The peers of one workload, on one of its listeners.
pub struct Peers {
    table: Arc<PeerTable>,
    /// Its key in the table.
    id: u64,
    limit: usize,
}

/// One slot of a peer; released when dropped.
pub struct PeerPlace {
    table: Arc<PeerTable>,
    key: Key,
    count: Arc<AtomicUsize>,
}

impl PeerTable {
    /// `limit`: concurrent slots of one address.
    pub fn peers(self: &Arc<Self>, limit: usize) -> Peers {
        Peers { table: self.clone(), id: self.next.fetch_add(1, Ordering::Relaxed), limit }
    }
}

impl Peers {
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// A slot for one more connection of this address, unless it is at its limit.
    pub fn enter(&self, address: IpAddr) -> Option<PeerPlace> {
        let key = (self.id, address);
        loop {
            let count = self.table.counts.pin().get_or_insert_with(key, Arc::default).clone();
            let entered = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
                (held < self.limit).then(|| held + 1)
            });
            match entered {
                Ok(_) => return Some(PeerPlace { table: self.table.clone(), key, count }),
                // Another thread is removing it from the map right now.
                Err(GONE) => std::hint::spin_loop(),
                Err(_) => return None,
            }
        }
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        let was_last = self.count.fetch_sub(1, Ordering::AcqRel) == 1;
        // Another connection may have entered meanwhile; then it stays.
        if was_last
            && self.count.compare_exchange(0, GONE, Ordering::AcqRel, Ordering::Acquire).is_ok()
        {
            self.table.counts.pin().remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn each_peer_has_its_own_places() {
        let table = Arc::<PeerTable>::default();
        let (peers, elsewhere) = (table.peers(2), table.peers(2));
        let held: Vec<_> = (0..3).map(|_| peers.enter(address(1))).collect();
        assert_eq!(held.iter().flatten().count(), 2);
        let other = peers.enter(address(2));
        assert!(other.is_some());
        let same = elsewhere.enter(address(1));
        assert!(same.is_some(), "places of another workload are others");
        drop((held, same));
        assert!(peers.enter(address(1)).is_some(), "given back when dropped");
        drop(other);
        assert!(table.counts.pin().is_empty(), "nobody is remembered");
    }

    #[test]
    fn nothing_is_lost_when_many_come_and_go() {
        let table = Arc::<PeerTable>::default();
        let peers = table.peers(3);
        let most = AtomicUsize::new(0);
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Some(place) = peers.enter(address(1)) {
                            let now = inside.fetch_add(1, Ordering::AcqRel) + 1;
                            most.fetch_max(now, Ordering::AcqRel);
                            inside.fetch_sub(1, Ordering::AcqRel);
                            drop(place);
                        }
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert!(table.counts.pin().is_empty());
        let held: Vec<_> = (0..4).map(|_| peers.enter(address(1))).collect();
        assert_eq!(held.iter().flatten().count(), 3, "all places are free again");
    }
}
