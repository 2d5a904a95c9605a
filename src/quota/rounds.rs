//! The agent's half: what this node lacks, what it gives, and how long it keeps what it is given. Pure, over the time that it
//! is told.
//!
//! Moved tokens that are left over are thrown away at the second look after they came: what a key's balance never fell
//! below between two looks was there before the first of them. One request's worth stays.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::messages::{
    Amount, Gift, Grant, Joins, Limit, LimitId, MAX_LIMITS, MAX_WANTS, Orders, Report,
};
use super::{LATE, TRANSIT};
use crate::base::Str;
use crate::filter::{Lacking, Part, Pods, UNIT, burst_of_part, rate_of_part};

/// How long a key that lacks nothing keeps its place, at least and at most; in between twice the time of a token.
const FORGET: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));
/// After so many looks at a key that wants nothing it gives again.
const QUIET: u32 = 3;
/// When the controller is told again of limits that it refused: it may not have known of the pods.
const AGAIN: Duration = Duration::from_secs(5);
/// Reports that an answer may still come for.
const MAX_SENT: usize = 64;

/// A limit of a Service that has pods on this node.
#[derive(Clone, Debug)]
pub struct InForce {
    pub id: LimitId,
    /// Tokens that a request takes.
    pub cost: u64,
    pub part: Arc<Part>,
    pub pods: Pods,
}

/// What became of the tokens, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    pub wanted: u64,
    pub received: u64,
    pub given: u64,
    pub discarded: u64,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        let Self { wanted, received, given, discarded } = other;
        self.wanted += wanted;
        self.received += received;
        self.given += given;
        self.discarded += discarded;
    }
}

/// All limits that this node exchanges.
#[derive(Default)]
pub struct Rounds {
    limits: HashMap<u32, Joined>,
    last: u32,
    /// The controller must be told of the limits.
    is_news: bool,
    number: u64,
    sent: VecDeque<(u64, Instant)>,
    looked: Option<Instant>,
    joined: Option<Instant>,
    pub tally: Tally,
}

struct Joined {
    limit: InForce,
    tracks: HashMap<u64, Track>,
    refused: bool,
}

/// A key that lacks tokens, or lacked some.
struct Track {
    hash: u64,
    /// The least that was left of what was moved here since the last look.
    low: u64,
    /// What is wanted beyond the part in one round, smoothed.
    demand: u64,
    /// Looks since somebody wanted anything.
    quiet: u32,
    busy: Instant,
}

impl Rounds {
    /// Takes over the limits that are in force now.
    pub fn follow(&mut self, mut limits: Vec<InForce>, wake: &Arc<Notify>) {
        fairly(&mut limits, MAX_LIMITS, |limit| limit.id.service.namespace.clone());
        let mut before: HashMap<LimitId, (u32, Joined)> =
            self.limits.drain().map(|(number, it)| (it.limit.id.clone(), (number, it))).collect();
        for limit in limits {
            limit.part.join(wake);
            match before.remove(&limit.id) {
                Some((number, mut known)) if Arc::ptr_eq(&known.limit.part, &limit.part) => {
                    self.is_news |= known.limit.pods != limit.pods;
                    known.limit = limit;
                    self.limits.insert(number, known);
                }
                _ => {
                    self.is_news = true;
                    self.last = self.last.wrapping_add(1);
                    let joined = Joined { limit, tracks: HashMap::new(), refused: false };
                    self.limits.insert(self.last, joined);
                }
            }
        }
        self.is_news |= !before.is_empty();
    }

    pub fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// Limits that the controller has not refused.
    pub fn exchanged(&self) -> usize {
        self.limits.values().filter(|it| !it.refused).count()
    }

    /// A new connection: the controller knows nothing.
    pub fn begin(&mut self) {
        self.is_news = true;
        self.sent.clear();
        for joined in self.limits.values_mut() {
            joined.refused = false;
            // What was lacking in the meantime says nothing of what is lacking now.
            joined.limit.part.moved.look();
            joined.tracks.values_mut().for_each(|track| track.demand = 0);
        }
    }

    /// Whether a key lacks tokens, or lacked some a moment ago.
    pub fn is_active(&self) -> bool {
        self.limits.values().flat_map(|it| it.tracks.values()).any(Track::is_busy)
    }

    /// Looks at all keys that lack tokens. `None` if there is nothing to say.
    pub fn look(&mut self, now: Instant) -> Option<Report> {
        let is_late = self.is_late(now);
        self.looked = Some(now);
        let is_refused = self.limits.values().any(|it| it.refused);
        let is_over = |since: Instant| now.saturating_duration_since(since) >= AGAIN;
        self.is_news |= is_refused && self.joined.is_none_or(is_over);
        let mut wants = Vec::new();
        for (number, joined) in &mut self.limits {
            joined.look(*number, is_late, now, &mut wants, &mut self.tally);
        }
        if wants.is_empty() && !self.is_news {
            return None;
        }
        // Those that lack the most come first where there are too many of a namespace.
        wants.sort_by_key(|want| std::cmp::Reverse(want.amount));
        fairly(&mut wants, MAX_WANTS, |want| {
            let limit = self.limits.get(&want.limit);
            limit.map(|it| it.limit.id.service.namespace.clone()).unwrap_or_default()
        });
        self.tally.wanted += wants.iter().map(|want| want.amount).sum::<u64>();
        self.number += 1;
        self.sent.push_back((self.number, now));
        if self.sent.len() > MAX_SENT {
            self.sent.pop_front();
        }
        let joins = self.joins(now);
        Some(Report { number: self.number, joins, wants, ..Report::default() })
    }

    fn joins(&mut self, now: Instant) -> Option<Joins> {
        if !std::mem::take(&mut self.is_news) {
            return None;
        }
        self.joined = Some(now);
        self.limits.values_mut().for_each(|it| it.refused = false);
        let limits = self.limits.iter().map(|(at, it)| Limit::new(*at, &it.limit.id));
        Some(Joins { limits: limits.collect() })
    }

    /// Carries out what the controller asks. Returns what it is to be answered.
    pub fn hear(&mut self, orders: &Orders, now: Instant) -> Option<Report> {
        let is_late = self.is_late(now);
        for number in &orders.refused {
            if let Some(joined) = self.limits.get_mut(number) {
                joined.refused = true;
            }
        }
        for grant in &orders.grants {
            let sent = self.sent.iter().find(|(number, _)| *number == grant.report);
            let in_time = sent.is_some_and(|(_, at)| now.saturating_duration_since(*at) <= TRANSIT);
            if let Some(joined) = self.limits.get_mut(&grant.limit).filter(|_| in_time) {
                self.tally.received += joined.receive(grant, is_late, now);
            }
        }
        let give = |ask: &Amount| {
            let joined = self.limits.get(&ask.limit)?;
            let (amount, left) = joined.give(ask);
            Some(Gift { limit: ask.limit, key: ask.key, amount, left })
        };
        let gifts: Vec<Gift> = orders.asks.iter().filter_map(give).collect();
        self.tally.given += gifts.iter().map(|gift| gift.amount).sum::<u64>();
        (!gifts.is_empty()).then(|| Report {
            number: self.number,
            stamp: orders.stamp,
            gifts,
            ..Report::default()
        })
    }

    fn is_late(&self, now: Instant) -> bool {
        self.looked.is_none_or(|looked| now.saturating_duration_since(looked) > LATE)
    }
}

/// Keeps the first `most`, of each namespace in turn: none of them has a place for all that it may write, and all have their part.
fn fairly<T>(all: &mut Vec<T>, most: usize, namespace: impl Fn(&T) -> Str) {
    if all.len() <= most {
        return;
    }
    let mut before: HashMap<Str, usize> = HashMap::new();
    let mut ranked: Vec<(usize, T)> = std::mem::take(all)
        .into_iter()
        .map(|one| {
            let rank = before.entry(namespace(&one)).or_default();
            *rank += 1;
            (*rank, one)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.truncate(most);
    all.extend(ranked.into_iter().map(|(_, one)| one));
}

impl Joined {
    /// What one request takes, in thousandths.
    fn cost(&self) -> u64 {
        self.limit.cost.max(1).saturating_mul(UNIT)
    }

    fn look(
        &mut self,
        number: u32,
        is_late: bool,
        now: Instant,
        wants: &mut Vec<Amount>,
        tally: &mut Tally,
    ) {
        let (cost, forget) = (self.cost(), self.forget_after());
        let moved = &self.limit.part.moved;
        for seen in moved.look() {
            let track = self.tracks.entry(seen.id).or_insert_with(|| Track::new(&seen, now));
            // It may have been seen while its place was being taken.
            track.hash = seen.hash;
            let old = if is_late { seen.balance } else { track.low.min(seen.balance) };
            let discarded = old.saturating_sub(cost);
            moved.discard(seen.id, seen.hash, discarded);
            tally.discarded += discarded;
            let left = seen.balance - discarded;
            track.low = left;
            track.count(seen.used + seen.lacked, now);
            if track.quiet > 0 && now.saturating_duration_since(track.busy) > forget {
                moved.forget(&seen);
                self.tracks.remove(&seen.id);
                continue;
            }
            moved.give(seen.id, seen.hash, 0, now + LATE);
            // In whole requests, so that the next one is there and nothing else waits.
            let ahead = (track.demand + track.demand / 2) / cost * cost;
            let amount = ahead.saturating_add(cost).saturating_sub(left);
            if amount > 0 && (track.quiet == 0 || track.quiet.is_power_of_two()) {
                wants.push(Amount { limit: number, key: seen.id, amount });
            }
        }
    }

    fn receive(&mut self, grant: &Grant, is_late: bool, now: Instant) -> u64 {
        let Some(track) = self.tracks.get_mut(&grant.key) else { return 0 };
        let moved = &self.limit.part.moved;
        let cost = self.limit.cost.max(1).saturating_mul(UNIT);
        let before = moved.balance(grant.key, track.hash);
        if is_late {
            moved.discard(grant.key, track.hash, before.saturating_sub(cost));
        }
        track.low = track.low.min(before);
        match moved.give(grant.key, track.hash, grant.amount, now + LATE) {
            true => grant.amount,
            false => 0,
        }
    }

    /// Takes out of the node's own bucket what it does not need; returns what is left besides.
    fn give(&self, ask: &Amount) -> (u64, u64) {
        if self.tracks.get(&ask.key).is_some_and(Track::is_busy) {
            return (0, 0);
        }
        let InForce { id, cost, part, pods } = &self.limit;
        let rate = rate_of_part(id.rate, *pods, *cost);
        let hash = part.buckets.hash(&ask.key);
        let there = part.buckets.take(hash, rate, 0).left;
        let spare = there.saturating_sub(self.kept());
        let amount = ask.amount.min(spare);
        match amount > 0 && part.buckets.take(hash, rate, amount).taken {
            true => (amount, spare - amount),
            false => (0, spare),
        }
    }

    /// What was rounded up, and one request: the first one passes without asking anybody.
    fn kept(&self) -> u64 {
        let InForce { id, cost, pods, .. } = &self.limit;
        let (whole, exact) =
            (rate_of_part(id.rate, *pods, *cost).burst, burst_of_part(id.rate, *pods));
        whole.saturating_sub(exact) + self.cost().min(exact / 2)
    }

    fn forget_after(&self) -> Duration {
        let rate = self.limit.id.rate;
        let tokens = u32::try_from(rate.tokens).unwrap_or(u32::MAX).max(1);
        (rate.interval / tokens * 2).clamp(FORGET.0, FORGET.1)
    }
}

impl Track {
    fn new(seen: &Lacking, now: Instant) -> Self {
        Self { hash: seen.hash, low: seen.balance, demand: 0, quiet: 0, busy: now }
    }

    fn is_busy(&self) -> bool {
        self.quiet <= QUIET
    }

    fn count(&mut self, wanted: u64, now: Instant) {
        self.demand = (self.demand + wanted) / 2;
        match wanted {
            0 => self.quiet = self.quiet.saturating_add(1),
            _ => (self.quiet, self.busy) = (0, now),
        }
    }
}
