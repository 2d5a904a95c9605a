//! Tokens that were moved here from other nodes, by key, and what is lacking: the only place where requests and the exchange
//! meet. Without a lock, and with a bound: a key that finds no place has its node's part and no more.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::time::Instant;

/// Keys of one limit that lack tokens at a time.
const PLACES: usize = 512;
/// Places in a group.
const WAYS: usize = 8;

#[derive(Debug)]
pub struct Moved {
    epoch: Instant,
    /// Somebody lacked tokens, or used moved ones, since the last look.
    is_wanted: AtomicBool,
    /// `is_wanted` was set, and the exchange was not told.
    is_news: AtomicBool,
    places: OnceLock<Box<[Place]>>,
}

/// Amounts are thousandths of tokens.
#[derive(Debug, Default)]
struct Place {
    /// 0: free.
    id: AtomicU64,
    hash: AtomicU64,
    balance: AtomicU64,
    used: AtomicU64,
    lacked: AtomicU64,
    /// When the balance is too old but for what one request costs, in nanoseconds after the epoch.
    until: AtomicU64,
}

/// What happened to a key since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lacking {
    pub id: u64,
    /// By which the bucket is found.
    pub hash: u64,
    /// Taken of what was moved here.
    pub used: u64,
    /// Wanted in vain.
    pub lacked: u64,
    /// What is left of what was moved here.
    pub balance: u64,
}

impl Default for Moved {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            is_wanted: AtomicBool::new(false),
            is_news: AtomicBool::new(false),
            places: OnceLock::new(),
        }
    }
}

impl Moved {
    /// Takes so much at once; who needs nothing asks whether there is a token. Of what is too old one request is served, which
    /// costs what this one does.
    pub(super) fn take(&self, id: u64, hash: u64, needed: u64, now: Instant) -> bool {
        let Some(place) = self.place(id, hash) else { return false };
        let least = needed.max(super::UNIT);
        let is_fresh = place.until.load(Ordering::Relaxed) > self.nanos(now);
        let take = |there: u64| {
            let of_use = if is_fresh { there } else { there.min(least) };
            (of_use >= least).then(|| of_use.saturating_sub(needed))
        };
        let taken = place.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        let count = if taken { &place.used } else { &place.lacked };
        count.fetch_add(least, Ordering::Relaxed);
        if !self.is_wanted.load(Ordering::Relaxed) && !self.is_wanted.swap(true, Ordering::Relaxed)
        {
            self.is_news.store(true, Ordering::Relaxed);
        }
        taken
    }

    /// Whether the exchange must be told that there is something to see: once until it looks.
    pub(super) fn is_first(&self) -> bool {
        self.is_news.load(Ordering::Relaxed) && self.is_news.swap(false, Ordering::Relaxed)
    }

    /// What happened since the last look; empty if nothing did and nothing is left.
    pub fn look(&self) -> Vec<Lacking> {
        self.is_wanted.store(false, Ordering::Relaxed);
        let seen = self.places.get().into_iter().flatten().filter_map(|place| {
            let id = place.id.load(Ordering::Acquire);
            (id != 0).then(|| Lacking {
                id,
                hash: place.hash.load(Ordering::Relaxed),
                used: place.used.swap(0, Ordering::Relaxed),
                lacked: place.lacked.swap(0, Ordering::Relaxed),
                balance: place.balance.load(Ordering::Relaxed),
            })
        });
        seen.collect()
    }

    /// Adds what was moved here, which may be nothing. All of the balance is of use until then. `false`: nobody wants it any
    /// more.
    pub fn give(&self, id: u64, hash: u64, amount: u64, until: Instant) -> bool {
        let Some(place) = self.own(id, hash).next() else { return false };
        let add = |there: u64| Some(there.saturating_add(amount));
        _ = place.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        place.until.store(self.nanos(until), Ordering::Relaxed);
        true
    }

    /// What is left of what was moved here.
    pub fn balance(&self, id: u64, hash: u64) -> u64 {
        self.own(id, hash).map(|place| place.balance.load(Ordering::Relaxed)).sum()
    }

    /// Throws away so much of what was moved here, because it is old.
    pub fn discard(&self, id: u64, hash: u64, amount: u64) {
        for place in self.own(id, hash) {
            let less = |there: u64| Some(there.saturating_sub(amount));
            _ = place.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// Makes room for another key, and throws away what is left. A request that is on its way takes what the next key
    /// lacks for its own: one token at the most, of the same limit.
    pub fn forget(&self, seen: &Lacking) {
        for place in self.own(seen.id, seen.hash) {
            for amount in [&place.balance, &place.used, &place.lacked, &place.until] {
                amount.store(0, Ordering::Relaxed);
            }
            place.id.store(0, Ordering::Release);
        }
    }

    fn own(&self, id: u64, hash: u64) -> impl Iterator<Item = &Place> {
        self.group(hash).iter().filter(move |it| it.id.load(Ordering::Acquire) == id)
    }

    fn place(&self, id: u64, hash: u64) -> Option<&Place> {
        _ = self.places.get_or_init(|| (0..PLACES).map(|_| Place::default()).collect());
        let group = self.group(hash);
        let is_own = |place: &&Place| place.id.load(Ordering::Acquire) == id;
        if let Some(own) = group.iter().find(is_own) {
            return Some(own);
        }
        // Two requests may give a key two places; both are seen, and are forgotten.
        let claim = |place: &&Place| {
            place.id.compare_exchange(0, id, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let claimed = group.iter().find(claim)?;
        claimed.hash.store(hash, Ordering::Relaxed);
        Some(claimed)
    }

    /// By the seeded hash, so that nobody can choose keys of one group.
    fn group(&self, hash: u64) -> &[Place] {
        let first = (hash as usize % (PLACES / WAYS)) * WAYS;
        self.places.get().and_then(|places| places.get(first..first + WAYS)).unwrap_or_default()
    }

    fn nanos(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::UNIT;
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn take(moved: &Moved, id: u64, tokens: u64) -> bool {
        moved.take(id, id, tokens * UNIT, Instant::now())
    }

    #[test]
    fn what_is_lacking_is_seen_and_what_is_given_is_taken_once() {
        let moved = Moved::default();
        assert_eq!(moved.look(), []);
        assert!(!take(&moved, 5, 2) && moved.is_first() && !moved.is_first());
        let seen = Lacking { id: 5, hash: 5, used: 0, lacked: 2 * UNIT, balance: 0 };
        assert_eq!(moved.look(), [seen]);
        assert!(moved.give(5, 5, 3 * UNIT, soon()) && !moved.give(6, 6, UNIT, soon()));
        assert!(take(&moved, 5, 0) && take(&moved, 5, 2) && !take(&moved, 5, 2));
        let seen = Lacking { used: 3 * UNIT, lacked: 2 * UNIT, balance: UNIT, ..seen };
        assert_eq!(moved.look(), [seen]);
        moved.discard(5, 5, 400);
        assert_eq!(moved.look()[0].balance, 600);
        moved.forget(&seen);
        assert_eq!(moved.look(), []);
    }

    #[test]
    fn a_flood_of_keys_finds_a_bounded_number_of_places() {
        let moved = Moved::default();
        assert!((1..=10 * PLACES as u64).all(|id| !take(&moved, id, 1)));
        let seen = moved.look();
        assert_eq!(seen.len(), PLACES);
        // Who had a place keeps it.
        assert!(moved.give(seen[0].id, seen[0].hash, UNIT, soon()) && take(&moved, seen[0].id, 1));
    }

    #[test]
    fn threads_take_no_more_than_was_given() {
        let moved = Moved::default();
        take(&moved, 9, 1);
        moved.give(9, 9, 1000 * UNIT, soon());
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| take(&moved, 9, 1)).count()))
                .collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
        let seen = moved.look()[0];
        assert_eq!((seen.used, seen.lacked, seen.balance), (1000 * UNIT, 3001 * UNIT, 0));
    }
}
