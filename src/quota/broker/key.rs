//! One key of one limit at the broker: who wants tokens, who could give some, and what is on its way. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::{Member, Number};
use crate::base::Str;
use crate::quota::TRANSIT;

/// A want is repeated every round; one that was not is none.
const FRESH: Duration = Duration::from_millis(300);
/// When a key that nobody wants is forgotten, at least and at most.
const IDLE: Duration = Duration::from_secs(5);
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// Nodes that are looked at for one want: what is still missing is looked for with the next one.
const LOOKS: usize = 64;
/// Nobody is asked for less, in thousandths, unless less is wanted, or no more is ever there.
const LEAST: u64 = 100;

/// All amounts are thousandths of tokens.
pub(super) struct Key {
    /// The node that has brought it up.
    pub(super) by: Str,
    wants: Vec<Want>,
    /// Gifts that nobody has yet, with the time of the ask.
    pool: VecDeque<(Instant, u64)>,
    /// By node, also of those that have left: who comes back has no other bucket.
    donors: HashMap<Str, Donor>,
    /// Where the search for donors continues.
    next: usize,
    used: Instant,
}

struct Want {
    from: Number,
    amount: u64,
    report: u64,
    at: Instant,
}

/// The bucket that a node should have, less what it keeps for itself.
struct Donor {
    level: u64,
    at: Instant,
    /// When the bucket is full.
    full: Instant,
    /// What it was asked for, and when.
    asked: u64,
    since: Instant,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Grant { to: Number, amount: u64, report: u64 },
    Ask { to: Number, amount: u64 },
}

/// What a node gives.
pub(super) struct Given {
    pub(super) amount: u64,
    pub(super) left: u64,
    /// When it was asked.
    pub(super) asked: Instant,
}

impl Key {
    pub(super) fn new(by: &Str, now: Instant) -> Self {
        Self {
            by: by.clone(),
            wants: Vec::new(),
            pool: VecDeque::new(),
            donors: HashMap::new(),
            next: 0,
            used: now,
        }
    }

    pub(super) fn want(&mut self, from: Number, amount: u64, report: u64, now: Instant) {
        self.used = now;
        self.wants.retain(|want| want.from != from);
        if amount > 0 {
            self.wants.push(Want { from, amount, report, at: now });
        }
    }

    /// Takes what the node was asked for and may have: nothing else adds to the pool. Whether it was asked.
    pub(super) fn give(&mut self, member: &Member, given: &Given, now: Instant) -> bool {
        let Some(donor) = self.donors.get_mut(&member.node) else { return false };
        let is_late = |asked: Instant| now.saturating_duration_since(asked) > TRANSIT;
        // An answer to an ask before the last one, or to none.
        if donor.asked == 0 || is_late(donor.since) || is_late(given.asked) {
            return false;
        }
        let there = donor.there(member, given.asked);
        let amount = given.amount.min(donor.asked).min(there);
        donor.level = (there - amount).min(given.left);
        donor.at = given.asked.max(donor.at);
        donor.full = donor.at + member.time(member.burst - donor.level);
        donor.asked = 0;
        if amount > 0 {
            self.pool.push_back((given.asked, amount));
        }
        true
    }

    pub(super) fn leave(&mut self, session: Number) {
        self.wants.retain(|want| want.from != session);
    }

    /// Nobody wants it, and all buckets are as they were before anybody did; or nobody has for a long time.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let idle = now.saturating_duration_since(self.used);
        let is_full = || self.donors.values().all(|donor| donor.full <= now);
        idle >= IDLE && (idle >= FORGOTTEN || is_full())
    }

    /// Passes on what is there, and asks for what is missing.
    pub(super) fn settle(&mut self, members: &[Member], now: Instant, orders: &mut Vec<Order>) {
        let age = |at: Instant| now.saturating_duration_since(at);
        self.pool.retain(|(asked, _)| age(*asked) <= TRANSIT);
        self.wants.retain(|want| age(want.at) <= FRESH);
        self.pass_on(orders);
        let wanted: u64 = self.wants.iter().fold(0, |sum, want| sum.saturating_add(want.amount));
        let on_the_way = self.donors.values().filter(|it| age(it.since) <= TRANSIT);
        let on_the_way: u64 = on_the_way.fold(0, |sum, it| sum.saturating_add(it.asked));
        self.ask(members, wanted.saturating_sub(on_the_way), now, orders);
    }

    /// As evenly as the wants permit.
    fn pass_on(&mut self, orders: &mut Vec<Order>) {
        let mut there: u64 = self.pool.iter().map(|(_, amount)| amount).sum();
        if there == 0 || self.wants.is_empty() {
            return;
        }
        self.wants.sort_by_key(|want| want.amount);
        let (mut passed, mut waiting) = (0, self.wants.len() as u64);
        for want in &mut self.wants {
            // Who divides by the number of those that wait leaves no more than a few thousandths.
            let amount = want.amount.min(there / waiting);
            waiting -= 1;
            if amount > 0 {
                orders.push(Order::Grant { to: want.from, amount, report: want.report });
            }
            want.amount -= amount;
            there -= amount;
            passed += amount;
        }
        self.wants.retain(|want| want.amount > 0);
        self.take_from_pool(passed);
    }

    /// The oldest first.
    fn take_from_pool(&mut self, mut amount: u64) {
        while let Some((_, there)) = self.pool.front_mut() {
            let taken = amount.min(*there);
            *there -= taken;
            amount -= taken;
            if *there > 0 {
                return;
            }
            self.pool.pop_front();
        }
    }

    fn ask(&mut self, members: &[Member], mut missing: u64, now: Instant, orders: &mut Vec<Order>) {
        let begin = self.next;
        for step in 0..members.len().min(LOOKS) {
            if missing == 0 {
                return;
            }
            self.next = (begin + step + 1) % members.len();
            let Some(member) = members.get((begin + step) % members.len()) else { return };
            if self.wants.iter().any(|want| want.from == member.session) {
                continue;
            }
            let donor = self.donors.entry(member.node.clone()).or_insert_with(|| Donor {
                level: member.burst,
                at: now,
                full: now,
                asked: 0,
                since: now,
            });
            let waits = donor.asked > 0 && now.saturating_duration_since(donor.since) <= TRANSIT;
            if donor.asked > 0 && !waits {
                // Who does not answer is asked again when it could have filled up.
                (donor.level, donor.at, donor.asked) = (0, now, 0);
            }
            let amount = donor.there(member, now).min(missing);
            if waits || amount == 0 || amount < missing.min(LEAST).min(member.burst) {
                continue;
            }
            (donor.asked, donor.since) = (amount, now);
            orders.push(Order::Ask { to: member.session, amount });
            missing -= amount;
        }
    }
}

impl Donor {
    /// What it can have at the most.
    fn there(&self, member: &Member, at: Instant) -> u64 {
        let passed = at.saturating_duration_since(self.at);
        self.level.saturating_add(member.refill(passed)).min(member.burst)
    }
}
