//! Rate limits per client: a burst, a sustained rate, and a number of concurrent requests.
//!
//! An authenticated agent uses its node's share. Everybody else uses the share of their address, which is small: it
//! only covers authentication.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Tracked clients; the least recent ones are forgotten first.
const MAX_CLIENTS: usize = 10_000;

/// The burst, and the rate per second after that.
#[derive(Clone, Copy, Debug)]
pub(in crate::controller) struct Rate {
    pub(in crate::controller) burst: f64,
    pub(in crate::controller) each_second: f64,
}

/// The tokens that each client has left.
pub(in crate::controller) struct Throttle<K> {
    rate: Rate,
    buckets: Mutex<HashMap<K, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn left(self, rate: Rate, now: Instant) -> f64 {
        (self.left + rate.each_second * now.duration_since(self.at).as_secs_f64()).min(rate.burst)
    }
}

impl<K: Eq + Hash> Throttle<K> {
    pub(in crate::controller) fn new(rate: Rate) -> Self {
        Self { rate, buckets: Mutex::default() }
    }

    /// Takes one token; `false` if none is left.
    pub(in crate::controller) fn admits(&self, client: K) -> bool {
        let (rate, now) = (self.rate, Instant::now());
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_CLIENTS && !buckets.contains_key(&client) {
            buckets.retain(|_, bucket| bucket.left(rate, now) < rate.burst);
            // All are busy: more than any cluster has nodes.
            if buckets.len() >= MAX_CLIENTS {
                return false;
            }
        }
        let bucket = buckets.entry(client).or_insert(Bucket { left: rate.burst, at: now });
        let left = bucket.left(rate, now);
        let admitted = left >= 1.0;
        *bucket = Bucket { left: if admitted { left - 1.0 } else { left }, at: now };
        admitted
    }
}

/// The requests of each client in flight.
pub(in crate::controller) struct InFlight<K: Eq + Hash> {
    limit: usize,
    counts: Mutex<HashMap<K, usize>>,
}

/// One of them, until it is dropped.
pub(in crate::controller) struct Turn<'a, K: Clone + Eq + Hash> {
    of: &'a InFlight<K>,
    client: K,
}

impl<K: Clone + Eq + Hash> InFlight<K> {
    pub(in crate::controller) fn new(limit: usize) -> Self {
        Self { limit, counts: Mutex::default() }
    }

    /// `None` if the client is at its limit.
    pub(in crate::controller) fn begin(&self, client: K) -> Option<Turn<'_, K>> {
        let mut counts = self.counts.lock();
        let count = counts.entry(client.clone()).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Turn { of: self, client })
    }
}

impl<K: Clone + Eq + Hash> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        let mut counts = self.of.counts.lock();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: Rate = Rate { burst: 500.0, each_second: 50.0 };

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_a_rate_for_each_client() {
        let throttle = Throttle::new(RATE);
        let admitted = |client, count| (0..count).filter(|_| throttle.admits(client)).count();
        assert_eq!(admitted("one", 1000), 500);
        assert_eq!(admitted("other", 10), 10, "another one has its own");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(admitted("one", 1000), 100);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(admitted("one", 1000), 500, "no more than a burst is saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn clients_are_not_remembered_without_end() {
        let throttle = Throttle::new(RATE);
        assert!((0..MAX_CLIENTS).all(|number| throttle.admits(number)));
        assert!(!throttle.admits(MAX_CLIENTS), "all have asked just now");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(throttle.admits(MAX_CLIENTS), "the others are forgotten");
        assert_eq!(throttle.buckets.lock().len(), 1);
    }

    #[test]
    fn so_many_at_a_time_for_each_client() {
        let flights = InFlight::new(2);
        let (first, second) = (flights.begin("one"), flights.begin("one"));
        assert!(first.is_some() && second.is_some() && flights.begin("one").is_none());
        assert!(flights.begin("other").is_some());
        drop(first);
        assert!(flights.begin("one").is_some());
        drop(second);
        assert!(flights.counts.lock().is_empty());
    }
}
