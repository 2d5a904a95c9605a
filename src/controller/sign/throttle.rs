//! Requests of one address: as many at once as a node has pods, and then as many as the API server stands.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;
use tokio::time::Instant;

/// At once: a node's pods, each with an account of its own, and some failures.
const BURST: f64 = 500.0;
/// Each second after that: what a node can start, and far below what would trouble the API server.
const RATE: f64 = 50.0;
/// Addresses that are remembered; those that have not asked for long are forgotten first.
const MAX_ADDRESSES: usize = 10_000;

/// What each address has left.
#[derive(Default)]
pub(super) struct Throttle(Mutex<HashMap<IpAddr, Bucket>>);

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn left(self, now: Instant) -> f64 {
        (self.left + RATE * now.duration_since(self.at).as_secs_f64()).min(BURST)
    }
}

impl Throttle {
    /// Takes one; `false` when nothing is left.
    pub(super) fn admits(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        let mut buckets = self.0.lock();
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&address) {
            buckets.retain(|_, bucket| bucket.left(now) < BURST);
            // All are busy: more addresses than any cluster has nodes.
            if buckets.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let bucket = buckets.entry(address).or_insert(Bucket { left: BURST, at: now });
        let left = bucket.left(now);
        let admitted = left >= 1.0;
        *bucket = Bucket { left: if admitted { left - 1.0 } else { left }, at: now };
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_a_rate_for_each_address() {
        let throttle = Throttle::default();
        let [one, other] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let admitted = |address, count| (0..count).filter(|_| throttle.admits(address)).count();
        assert_eq!(admitted(one, 1000), 500);
        assert_eq!(admitted(other, 10), 10, "another address has its own");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(admitted(one, 1000), 100);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(admitted(one, 1000), 500, "no more than a burst is saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_not_remembered_without_end() {
        let throttle = Throttle::default();
        let address =
            |number: usize| IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap()));
        assert!((0..MAX_ADDRESSES).all(|number| throttle.admits(address(number))));
        assert!(!throttle.admits(address(MAX_ADDRESSES)), "all have asked just now");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(throttle.admits(address(MAX_ADDRESSES)), "the others are forgotten");
        assert_eq!(throttle.0.lock().len(), 1);
    }
}
