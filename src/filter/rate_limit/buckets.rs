//! Token buckets by key: a bounded number of them, without a lock.
//!
//! A bucket is one number, the time at which it is full again (the generic cell rate algorithm): taking a token moves it
//! on by the time that one token takes to come back. The table has a fixed size, and a key has its place in one group of
//! it. A key that finds no place in its group takes over the bucket that is the fullest, with what was taken from it: so
//! many keys at once share what they may have, and never get more.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::table::{Slot, Table};
use crate::base::Str;

/// Places in a group.
const WAYS: usize = 8;
/// How often it is tried to take a place that others take at the same time.
const TRIES: usize = 4;

/// How fast tokens come, and how many there are at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Rate {
    /// So many tokens come back ...
    pub tokens: u64,
    /// ... in this time.
    #[serde(serialize_with = "super::super::duration")]
    pub interval: Duration,
    pub burst: u64,
}

impl Rate {
    /// In which so many tokens come back, in nanoseconds; rounded up, so that no rate is exceeded.
    fn time(&self, tokens: u64) -> u64 {
        let time = u128::from(tokens) * self.interval.as_nanos();
        u64::try_from(time.div_ceil(u128::from(self.tokens.max(1)))).unwrap_or(u64::MAX)
    }

    /// How many tokens come back in so many nanoseconds.
    fn tokens_in(&self, time: u64) -> u64 {
        let tokens = u128::from(time) * u128::from(self.tokens);
        u64::try_from(tokens / self.interval.as_nanos().max(1)).unwrap_or(u64::MAX)
    }
}

/// The answer of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The tokens were there, and were taken.
    pub taken: bool,
    /// How many are left.
    pub left: u64,
    /// What was asked for is there after this time; nothing once it was taken.
    pub next: Duration,
    /// The bucket is full after this time.
    pub all: Duration,
}

/// The buckets of one limit. Every agent reads every limit, so the table is allocated with the first request that is
/// counted.
#[derive(Debug)]
pub struct Buckets {
    hasher: RandomState,
    epoch: Instant,
    table: OnceLock<Table>,
    /// Whose limit it is, and whether it has keys: they decide how large the table is.
    namespace: Str,
    has_keys: bool,
    /// The most that one response has cost, in whole tokens.
    dearest: AtomicU64,
}

impl Default for Buckets {
    /// Of no namespace, with keys.
    fn default() -> Self {
        Self::of(Str::default(), true)
    }
}

impl Buckets {
    /// Those of a limit of this namespace.
    pub fn new(namespace: &Str, has_keys: bool) -> Arc<Self> {
        Arc::new(Self::of(namespace.clone(), has_keys))
    }

    fn of(namespace: Str, has_keys: bool) -> Self {
        Self {
            hasher: RandomState::new(),
            epoch: Instant::now(),
            table: OnceLock::new(),
            namespace,
            has_keys,
            dearest: AtomicU64::new(0),
        }
    }

    /// By which the bucket of a key is found. Without the seed nobody can choose keys of one bucket.
    pub fn hash(&self, key: &impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Takes tokens from a key's bucket if all of them are there. None at all are there once one is.
    pub fn take(&self, hash: u64, rate: Rate, tokens: u64) -> Taken {
        self.take_at(hash, rate, tokens, self.now())
    }

    /// Takes tokens that were used already, though they may not be there. A bucket never owes more than `debt`.
    pub fn charge(&self, hash: u64, rate: Rate, tokens: u64, debt: u64) {
        self.charge_at(hash, rate, tokens, debt, self.now());
    }

    /// Gives tokens back that were taken just now.
    pub fn give_back(&self, hash: u64, rate: Rate, tokens: u64) {
        let time = rate.time(tokens);
        let given = |full_at: u64| Some(full_at.saturating_sub(time));
        _ = self.slot(hash).full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, given);
    }

    /// Notes what a response cost.
    pub fn costs(&self, tokens: u64) {
        // Nearly always it is known, and other threads read it.
        if tokens > self.dearest() {
            self.dearest.fetch_max(tokens, Ordering::Relaxed);
        }
    }

    /// The most that a response has cost so far.
    pub fn dearest(&self) -> u64 {
        self.dearest.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        nanos(self.epoch.elapsed())
    }

    fn take_at(&self, hash: u64, rate: Rate, tokens: u64, now: u64) -> Taken {
        let (time, most) = (rate.time(tokens), rate.time(rate.burst));
        // Who takes nothing asks whether there is something.
        let least = time.max(rate.time(1));
        let full_at = &self.slot(hash).full_at;
        let mut before = full_at.load(Ordering::Relaxed);
        loop {
            let missing = before.saturating_sub(now);
            let told = |taken, missing: u64, next| {
                let left = rate.tokens_in(most.saturating_sub(missing)).min(rate.burst);
                Taken { taken, left, next, all: Duration::from_nanos(missing) }
            };
            let lacking = missing.saturating_add(least).saturating_sub(most);
            if lacking > 0 {
                return told(false, missing, Duration::from_nanos(lacking));
            }
            let after = before.max(now).saturating_add(time);
            match full_at.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return told(true, missing.saturating_add(time), Duration::ZERO),
                Err(now_there) => before = now_there,
            }
        }
    }

    fn charge_at(&self, hash: u64, rate: Rate, tokens: u64, debt: u64, now: u64) {
        let time = rate.time(tokens);
        let latest = now.saturating_add(rate.time(rate.burst)).saturating_add(rate.time(debt));
        let charged = |before: u64| {
            let after = before.max(now).saturating_add(time);
            Some(after.min(latest).max(before))
        };
        _ = self.slot(hash).full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, charged);
    }

    fn slot(&self, hash: u64) -> &Slot {
        let tag = hash.max(1);
        let table = self.table.get_or_init(|| Table::new(&self.namespace, self.has_keys));
        let slots = &table.slots[..];
        let first = (hash as usize % (slots.len() / WAYS)) * WAYS;
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

    use super::super::table::KEYS;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(per_second: u64, burst: u64) -> Rate {
        Rate { tokens: per_second, interval: Duration::from_secs(1), burst }
    }

    fn taken(buckets: &Buckets, key: u32, rate: Rate, now: u64, asked: u32) -> usize {
        let hash = buckets.hash(&key);
        (0..asked).filter(|_| buckets.take_at(hash, rate, 1, now).taken).count()
    }

    /// A tenant may write any number of limits, for pods that run elsewhere.
    #[test]
    fn a_limit_that_counts_nothing_has_no_table() {
        let (buckets, rate) = (Buckets::default(), rate(1, 1));
        assert!(buckets.table.get().is_none());
        assert_eq!(taken(&buckets, 1, rate, 0, 2), 1);
        assert_eq!(buckets.table.get().map(|table| table.slots.len()), Some(KEYS));
    }

    #[test]
    fn a_bucket_has_its_burst_and_fills_with_time() {
        let (buckets, rate) = (Buckets::default(), rate(10, 20));
        assert_eq!(taken(&buckets, 1, rate, 0, 100), 20);
        assert_eq!(taken(&buckets, 1, rate, SECOND / 2, 100), 5);
        assert_eq!(taken(&buckets, 1, rate, 100 * SECOND, 100), 20, "never more than it holds");
        let (next, all) = (Duration::from_millis(100), Duration::from_secs(2));
        let expected = Taken { taken: false, left: 0, next, all };
        assert_eq!(buckets.take_at(buckets.hash(&1u32), rate, 1, 100 * SECOND), expected);
    }

    #[test]
    fn what_costs_more_takes_more_and_what_costs_nothing_asks() {
        let (buckets, rate) = (Buckets::default(), rate(10, 20));
        let hash = buckets.hash(&1u32);
        let take = |tokens, now| buckets.take_at(hash, rate, tokens, now);
        assert_eq!((take(15, 0).left, take(6, 0).taken, take(5, 0).taken), (5, false, true));
        assert!(!take(0, 0).taken, "nothing is there");
        assert_eq!(take(5, 0).next, Duration::from_millis(500));
        assert!(take(0, SECOND / 10).taken);
        buckets.give_back(hash, rate, 5);
        assert!(take(5, SECOND / 10).taken);
    }

    #[test]
    fn a_rate_that_no_whole_number_of_nanoseconds_divides_is_not_exceeded() {
        let rate = Rate { tokens: 1_000_000, interval: Duration::from_micros(1500), burst: 1 };
        assert_eq!(rate.time(1), 2);
        assert_eq!(rate.time(1_000_000), 1_500_000, "many at once are exact");
    }

    #[test]
    fn what_was_used_is_owed_up_to_a_bound() {
        let (buckets, rate) = (Buckets::default(), rate(1, 10));
        let hash = buckets.hash(&1u32);
        buckets.charge_at(hash, rate, u64::MAX, 5, 0);
        assert_eq!(taken(&buckets, 1, rate, 5 * SECOND, 1), 0);
        assert_eq!(taken(&buckets, 1, rate, 6 * SECOND, 2), 1);
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

    /// What is done to a bucket: a time goes by, then this happens.
    #[derive(Clone, Debug)]
    enum Step {
        Take(u64),
        /// Takes, and gives back.
        Return(u64),
        Charge(u64),
    }

    fn step() -> impl Strategy<Value = (u64, Step)> {
        let does = prop_oneof![
            (0u64..20).prop_map(Step::Take),
            (1u64..20).prop_map(Step::Return),
            (0u64..1000).prop_map(Step::Charge),
        ];
        (0u64..2 * SECOND, does)
    }

    proptest! {
        /// Over any time no more passes than the burst and what comes back meanwhile, whatever is charged or given back; and
        /// what is owed is back after the burst's and the debt's time.
        #[test]
        fn never_more_than_the_rate(
            steps in proptest::collection::vec(step(), 1..40),
            tokens in 1u64..50,
            interval in 1u64..3 * SECOND,
            burst in 1u64..50,
            debt in 0u64..100,
        ) {
            let buckets = Buckets::default();
            let rate = Rate { tokens, interval: Duration::from_nanos(interval), burst };
            let (hash, mut now, mut passed) = (buckets.hash(&1u32), 0, 0);
            for (later, step) in steps {
                now += later;
                match step {
                    Step::Take(tokens) if buckets.take_at(hash, rate, tokens, now).taken => passed += tokens,
                    Step::Take(_) => {}
                    Step::Return(tokens) => {
                        if buckets.take_at(hash, rate, tokens, now).taken {
                            buckets.give_back(hash, rate, tokens);
                        }
                    }
                    Step::Charge(tokens) => buckets.charge_at(hash, rate, tokens, debt, now),
                }
                let owed = buckets.take_at(hash, rate, burst + 1, now).all;
                prop_assert!(nanos(owed) <= rate.time(burst) + rate.time(debt), "{owed:?}");
            }
            let most = burst + rate.tokens_in(now) + 1;
            prop_assert!(passed <= most, "{passed} of {most}");
        }

        /// However many keys come and go: all together get no more than the places hold, and what comes back there.
        #[test]
        fn keys_that_come_and_go_get_no_more_than_the_places(
            steps in proptest::collection::vec((0u64..SECOND, 0u32..200_000), 1..400),
            burst in 1u64..3,
        ) {
            let (buckets, rate) = (Buckets::default(), rate(1, burst));
            // Of one group, so that keys drive out each other.
            let groups = (KEYS / WAYS) as u64;
            let (mut now, mut passed) = (0, 0);
            for (later, key) in steps {
                now += later / 100;
                passed += u64::from(buckets.take_at(u64::from(key) * groups, rate, 1, now).taken);
            }
            prop_assert!(passed <= WAYS as u64 * (burst + now / SECOND + 1), "{passed}");
        }
    }
}
