//! Who called what within the last hour, and what became of it: counts by pair, in a table of bounded size.
//!
//! A pair is a source workload with its identity, what it called, and how that was decided. Counting takes one look-up and some
//! additions, without a lock. The least recently seen pairs go when there are too many.

mod key;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use papaya::HashMap;
use parking_lot::Mutex;

use super::latency::Buckets;
use super::summary::{Example, PairLine};
use crate::base::Seeded;
use crate::telemetry::{Flow, Verdict};
use key::{Key, Parts};

/// The memory of one pair, in bytes: its counts, its example, and names that it shares with others unless they are gone.
pub const PAIR_BYTES: usize = 3 * 1024;

/// An hour.
const MINUTES: usize = 60;
/// Which part of the table goes at once when it is full: one over this. To look for those takes a walk through all.
const PART: usize = 16;

/// The table.
pub(super) struct Pairs {
    pairs: HashMap<Key, Arc<Pair>, Seeded>,
    limit: usize,
    /// Held by who makes room.
    sweeping: Mutex<()>,
}

/// Counts of one pair.
struct Pair {
    /// For each minute of an hour: which minute, counted from 1970, in the upper half, and the count in the lower.
    minutes: [AtomicU64; MINUTES],
    /// When one ended last, in milliseconds since 1970.
    last: AtomicU64,
    total: AtomicU64,
    /// Failed, or answered with a status of 500 or more.
    unsuccessful: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    latency: Buckets,
    /// The first one.
    example: Example,
}

impl Pairs {
    pub(super) fn new(limit: usize) -> Self {
        let pairs = HashMap::builder().hasher(Seeded::default()).build();
        Self { pairs, limit, sweeping: Mutex::new(()) }
    }

    /// Counts a flow. If its pair is new: how many there are, and how many had to go for it.
    pub(super) fn count(&self, flow: &Flow) -> Option<(usize, u64)> {
        let parts = Parts::of(flow);
        let pinned = self.pairs.pin();
        if let Some(pair) = pinned.get(&parts) {
            pair.add(flow);
            return None;
        }
        let pair = pinned.get_or_insert_with(parts.own(), || Arc::new(Pair::new(flow)));
        pair.add(flow);
        let gone = if pinned.len() > self.limit { self.make_room() } else { 0 };
        Some((pinned.len(), gone))
    }

    /// Removes the least recently seen ones.
    fn make_room(&self) -> u64 {
        // One is enough, and nobody waits for it.
        let Some(_sweeping) = self.sweeping.try_lock() else { return 0 };
        let pinned = self.pairs.pin();
        let more = pinned.len().saturating_sub(self.limit);
        if more == 0 {
            return 0;
        }
        let mut seen: Vec<u64> = pinned.values().map(|pair| pair.last()).collect();
        let gone = (more + self.limit / PART).min(seen.len()).max(1);
        let (_, newest, _) = seen.select_nth_unstable(gone - 1);
        let (newest, mut left) = (*newest, gone);
        pinned.retain(|_, pair| {
            let goes = left > 0 && pair.last() <= newest;
            left -= usize::from(goes);
            !goes
        });
        (gone - left) as u64
    }

    /// Those that were seen within the last hour; the others are forgotten.
    pub(super) fn lines(&self, now: SystemTime) -> Vec<PairLine> {
        let (_sweeping, minute) = (self.sweeping.lock(), minute(millis(now)));
        let pinned = self.pairs.pin();
        pinned.retain(|_, pair| pair.of_the_hour(minute) > 0);
        let lines = pinned.iter().map(|(key, pair)| pair.line(key, minute));
        lines.collect()
    }
}

impl Pair {
    fn new(flow: &Flow) -> Self {
        Self {
            minutes: [const { AtomicU64::new(0) }; MINUTES],
            last: AtomicU64::new(0),
            total: AtomicU64::new(0),
            unsuccessful: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            latency: Buckets::default(),
            example: Example::of(flow),
        }
    }

    fn add(&self, flow: &Flow) {
        let at = millis(flow.at);
        self.last.fetch_max(at, Ordering::Relaxed);
        self.add_to_minute(minute(at));
        self.total.fetch_add(1, Ordering::Relaxed);
        let answered = flow.request.as_ref().is_none_or(|request| request.status < 500);
        if flow.verdict != Verdict::Permitted || !answered {
            self.unsuccessful.fetch_add(1, Ordering::Relaxed);
        }
        self.sent.fetch_add(flow.sent, Ordering::Relaxed);
        self.received.fetch_add(flow.received, Ordering::Relaxed);
        self.latency.add(flow.duration);
    }

    fn add_to_minute(&self, minute: u64) {
        let Some(place) = place(&self.minutes, minute) else { return };
        let before = place.load(Ordering::Relaxed);
        if before >> 32 == minute {
            place.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // Whoever comes first in a minute begins it; others then add to it.
        let begun = (minute << 32) | 1;
        if place.compare_exchange(before, begun, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            place.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// How many ended within the hour before the end of this minute.
    fn of_the_hour(&self, minute: u64) -> u64 {
        let counts = self.minutes.iter().map(|place| place.load(Ordering::Relaxed));
        let recent = counts.filter(|count| (count >> 32) + (MINUTES as u64) > minute);
        recent.map(|count| count & u64::from(u32::MAX)).sum()
    }

    fn line(&self, key: &Key, minute: u64) -> PairLine {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut line = key.line();
        line.count = self.of_the_hour(minute);
        line.last = load(&self.last);
        line.total = load(&self.total);
        line.unsuccessful = load(&self.unsuccessful);
        line.bytes_sent = load(&self.sent);
        line.bytes_received = load(&self.received);
        line.latency = self.latency.now();
        line.example = self.example.clone();
        line
    }
}

fn place(minutes: &[AtomicU64; MINUTES], minute: u64) -> Option<&AtomicU64> {
    minutes.get(usize::try_from(minute % MINUTES as u64).ok()?)
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Fits the upper half of a count until the year 10136.
fn minute(millis: u64) -> u64 {
    (millis / 60_000).min(u64::from(u32::MAX))
}
