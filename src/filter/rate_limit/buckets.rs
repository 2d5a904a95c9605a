//! Token buckets by key: a bounded number of them, without a lock.
//!
//! A bucket is one number, the time at which it is full again (the generic cell rate algorithm): taking a token moves it
//! on by the time that one token takes to come back. The table has a fixed size, and a key has its place in one group of
//! it. A key that finds no place in its group takes over the bucket that is the fullest, with what was taken from it: so
//! many keys at once share what they may have, and never get more.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Keys of one limit: as many as a few thousand clients of a hundred pods have, in 128 KiB.
const KEYS: usize = 8192;
/// Places in a group.
const WAYS: usize = 8;
/// How often it is tried to take a place that others take at the same time.
const TRIES: usize = 4;

/// How fast tokens come, and how many there are at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In which one token comes back.
    pub token: Duration,
    pub burst: u32,
}

/// The answer of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A token was taken.
    Token,
    /// There is none; one comes back after this time, and all after that.
    None { next: Duration, all: Duration },
}

/// The buckets of one limit. Every agent reads every limit, so the table is allocated with the first request that is
/// counted.
#[derive(Debug)]
pub struct Buckets {
    hasher: RandomState,
    epoch: Instant,
    slots: OnceLock<Box<[Slot]>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// The key's hash; 0 while the bucket is free. Without the seed, an attacker cannot choose keys of one group.
    tag: AtomicU64,
    /// When the bucket is full again, in nanoseconds after the epoch.
    full_at: AtomicU64,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { hasher: RandomState::new(), epoch: Instant::now(), slots: OnceLock::new() }
    }
}

impl Buckets {
    /// Takes a token from the key's bucket.
    pub fn take(&self, key: &impl Hash, rate: Rate) -> Taken {
        self.take_at(key, rate, nanos(self.epoch.elapsed()))
    }

    fn take_at(&self, key: &impl Hash, rate: Rate, now: u64) -> Taken {
        let token = nanos(rate.token).max(1);
        let most = token.saturating_mul(u64::from(rate.burst));
        let full_at = &self.slot(self.hasher.hash_one(key)).full_at;
        let mut before = full_at.load(Ordering::Relaxed);
        loop {
            let after = before.max(now).saturating_add(token);
            let missing = after - now;
            if missing > most {
                let all = Duration::from_nanos(missing - token);
                return Taken::None { next: Duration::from_nanos(missing - most), all };
            }
            match full_at.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Taken::Token,
                Err(now_there) => before = now_there,
            }
        }
    }

    fn slot(&self, hash: u64) -> &Slot {
        let tag = hash.max(1);
        let slots = self.slots.get_or_init(|| (0..KEYS).map(|_| Slot::default()).collect());
        let first = (hash as usize % (KEYS / WAYS)) * WAYS;
        let group = &slots[first..first + WAYS];
        let mut fullest = &group[0];
        for _ in 0..TRIES {
            if let Some(own) = group.iter().find(|slot| slot.tag.load(Ordering::Relaxed) == tag) {
                return own;
            }
            let free = |slot: &&Slot| slot.full_at.load(Ordering::Relaxed);
            fullest = group.iter().min_by_key(free).unwrap_or(fullest);
            let old = fullest.tag.load(Ordering::Relaxed);
            let taken =
                fullest.tag.compare_exchange(old, tag, Ordering::Relaxed, Ordering::Relaxed);
            if taken.is_ok() {
                break;
            }
        }
        fullest
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { token: Duration::from_secs(1) / per_second, burst }
    }

    fn taken(buckets: &Buckets, key: u32, rate: Rate, now: u64, asked: u32) -> usize {
        (0..asked).filter(|_| buckets.take_at(&key, rate, now) == Taken::Token).count()
    }

    /// A tenant may write any number of limits, for pods that run elsewhere.
    #[test]
    fn a_limit_that_counts_nothing_has_no_table() {
        let (buckets, rate) = (Buckets::default(), rate(1, 1));
        assert!(buckets.slots.get().is_none());
        assert_eq!(taken(&buckets, 1, rate, 0, 2), 1);
        assert_eq!(buckets.slots.get().map(|slots| slots.len()), Some(KEYS));
    }

    #[test]
    fn a_bucket_has_its_burst_and_fills_with_time() {
        let (buckets, rate) = (Buckets::default(), rate(10, 20));
        assert_eq!(taken(&buckets, 1, rate, 0, 100), 20);
        assert_eq!(taken(&buckets, 1, rate, SECOND / 2, 100), 5);
        assert_eq!(taken(&buckets, 1, rate, 100 * SECOND, 100), 20, "never more than it holds");
        let (next, all) = (Duration::from_millis(100), Duration::from_secs(2));
        assert_eq!(buckets.take_at(&1, rate, 100 * SECOND), Taken::None { next, all });
    }

    #[test]
    fn keys_have_buckets_of_their_own() {
        let (buckets, rate) = (Buckets::default(), rate(1, 3));
        for key in 0..100 {
            assert_eq!(taken(&buckets, key, rate, 0, 10), 3, "{key}");
        }
    }

    /// However many keys come, what may pass is bounded by the places.
    #[test]
    fn a_flood_of_keys_gets_no_more_than_the_places_have() {
        let (buckets, rate) = (Buckets::default(), rate(1, 2));
        let keys = 0..4 * KEYS as u32;
        let passed: usize = keys.map(|key| taken(&buckets, key, rate, SECOND, 2)).sum();
        assert!(passed <= 2 * KEYS, "{passed}");
    }

    #[test]
    fn the_idlest_are_forgotten_first() {
        let (buckets, rate) = (Buckets::default(), rate(1, 100));
        assert_eq!(taken(&buckets, 0, rate, 0, 100), 100);
        for key in 1..2 * KEYS as u32 {
            taken(&buckets, key, rate, 0, 1);
        }
        assert_eq!(taken(&buckets, 0, rate, 0, 1), 0, "who has used the most is known the longest");
    }

    #[test]
    fn threads_that_take_at_once_get_no_more_than_there_is() {
        let (buckets, rate) = (Buckets::default(), rate(1, 1000));
        let passed: usize = std::thread::scope(|scope| {
            let take = || scope.spawn(|| taken(&buckets, 1, rate, 0, 1000));
            let threads: Vec<_> = (0..4).map(|_| take()).collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }

    proptest! {
        /// Over any time no more passes than the burst and what comes back meanwhile.
        #[test]
        fn never_more_than_the_rate(
            steps in proptest::collection::vec((0u64..2 * SECOND, 1u32..20), 1..20),
            per_second in 1u32..50,
            burst in 1u32..50,
        ) {
            let (buckets, rate) = (Buckets::default(), rate(per_second, burst));
            let (mut now, mut passed) = (0, 0);
            for (later, asked) in steps {
                now += later;
                passed += taken(&buckets, 1, rate, now, asked) as u64;
            }
            let come = now / nanos(rate.token) + 1;
            prop_assert!(passed <= u64::from(burst) + come, "{passed} of {burst} and {come}");
        }
    }
}
