//! How many connections each peer holds at one workload, so that no peer can take all places of the others.
//!
//! A peer is an address: it is known before anything is proven, and pods have one. Invariant: an address is in the map
//! while somebody holds a place of it and never longer, so that the map is as large as the connections are many.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A count that is about to leave the map takes nobody in any more.
const GONE: usize = usize::MAX;

/// The peers of one workload; reading and counting take no lock.
pub struct Peers {
    limit: usize,
    counts: papaya::HashMap<IpAddr, Arc<AtomicUsize>>,
}

/// One place of a peer; given back when dropped.
pub struct PeerPlace {
    peers: Arc<Peers>,
    address: IpAddr,
    count: Arc<AtomicUsize>,
}

impl Peers {
    /// `limit`: places of one address at a time.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, counts: papaya::HashMap::new() })
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// A place for one more connection of this address, unless it has as many as it may.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<PeerPlace> {
        loop {
            let count = self.counts.pin().get_or_insert_with(address, Arc::default).clone();
            let entered = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
                (held < self.limit).then(|| held + 1)
            });
            match entered {
                Ok(_) => return Some(PeerPlace { peers: self.clone(), address, count }),
                // Whoever made it so removes it from the map right now.
                Err(GONE) => std::hint::spin_loop(),
                Err(_) => return None,
            }
        }
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        let was_last = self.count.fetch_sub(1, Ordering::AcqRel) == 1;
        // Somebody may have entered again meanwhile, and then it stays.
        if was_last
            && self.count.compare_exchange(0, GONE, Ordering::AcqRel, Ordering::Acquire).is_ok()
        {
            self.peers.counts.pin().remove(&self.address);
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
        let peers = Peers::new(2);
        let held: Vec<_> = (0..3).map(|_| peers.enter(address(1))).collect();
        assert_eq!(held.iter().flatten().count(), 2);
        let other = peers.enter(address(2));
        assert!(other.is_some());
        drop(held);
        assert!(peers.enter(address(1)).is_some(), "given back when dropped");
        drop(other);
        assert!(peers.counts.pin().is_empty(), "nobody is remembered");
    }

    #[test]
    fn nothing_is_lost_when_many_come_and_go() {
        let peers = Peers::new(3);
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
        assert!(peers.counts.pin().is_empty());
        let held: Vec<_> = (0..4).map(|_| peers.enter(address(1))).collect();
        assert_eq!(held.iter().flatten().count(), 3, "all places are free again");
    }
}
