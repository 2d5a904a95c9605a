//! The controller's half: who wants, who gives. Pure, over the time that it is told; it keeps nothing that its successor
//! would miss. It talks to nodes through an outbox for each connection, in which what is not sent yet adds up.

mod key;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::messages::{Amount, Gift, Grant, LimitId, MAX_ASKS, Orders, Report};
use crate::base::Str;
use crate::filter::{Pods, Rate, UNIT, burst_of_part, rate_of_part};
use key::{Given, Key, Order};

/// Keys that are exchanged at a time, of one limit and of all limits of the services of one namespace.
const MAX_KEYS: usize = 1024;
const MAX_KEYS_OF_NAMESPACE: usize = 8192;
/// Limits of the services of one namespace.
const MAX_LIMITS_OF_NAMESPACE: usize = 1024;
/// How often keys that nobody wants are looked for.
const SWEEP: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// No want counts for more than the burst and what comes back in this time.
const AHEAD: Duration = Duration::from_secs(1);

/// A connection.
pub type Number = u64;

/// All limits. One lock around it is enough: nothing on the data path waits for it.
pub struct Broker {
    epoch: Instant,
    groups: HashMap<LimitId, Group>,
    sessions: HashMap<Number, Session>,
    of_namespace: HashMap<Str, Count>,
    last: Number,
    swept: Instant,
}

/// What a namespace has here.
#[derive(Clone, Copy, Default)]
struct Count {
    limits: usize,
    keys: usize,
}

/// The nodes of one limit.
#[derive(Default)]
struct Group {
    members: Vec<Member>,
    keys: HashMap<u64, Key>,
}

/// One of them, once.
pub(super) struct Member {
    session: Number,
    node: Str,
    /// The agent's name for the limit.
    limit: u32,
    /// Of its part, in thousandths, without what is rounded up.
    burst: u64,
    rate: Rate,
}

struct Session {
    node: Str,
    limits: HashMap<u32, LimitId>,
    asks: BTreeMap<(u32, u64), u64>,
    /// Amount and report.
    grants: BTreeMap<(u32, u64), (u64, u64)>,
    refused: Vec<u32>,
    wake: Arc<Notify>,
}

/// For operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Census {
    /// Connections of agents.
    pub nodes: usize,
    pub limits: usize,
    /// That a node lacked tokens of within seconds.
    pub keys: usize,
}

impl Member {
    fn refill(&self, passed: Duration) -> u64 {
        let tokens = passed.as_nanos().saturating_mul(u128::from(self.rate.tokens));
        u64::try_from(tokens / self.rate.interval.as_nanos().max(1)).unwrap_or(u64::MAX)
    }

    /// In which so much comes back; no more than a day, the longest interval.
    fn time(&self, tokens: u64) -> Duration {
        let time = u128::from(tokens).saturating_mul(self.rate.interval.as_nanos());
        let time = time / u128::from(self.rate.tokens.max(1));
        Duration::from_nanos(u64::try_from(time).unwrap_or(u64::MAX)).min(DAY)
    }
}

impl Broker {
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            groups: HashMap::new(),
            sessions: HashMap::new(),
            of_namespace: HashMap::new(),
            last: 0,
            swept: now,
        }
    }

    /// A node has connected. `wake` is told when there is something to send.
    pub fn enter(&mut self, node: &Str, wake: &Arc<Notify>) -> Number {
        self.last += 1;
        let session = Session {
            node: node.clone(),
            limits: HashMap::new(),
            asks: BTreeMap::new(),
            grants: BTreeMap::new(),
            refused: Vec::new(),
            wake: wake.clone(),
        };
        self.sessions.insert(self.last, session);
        self.last
    }

    /// The connections of one node.
    pub fn of_node(&self, node: &str) -> usize {
        self.sessions.values().filter(|session| session.node == node).count()
    }

    pub fn leave(&mut self, session: Number) {
        if let Some(gone) = self.sessions.remove(&session) {
            gone.limits.values().for_each(|id| self.part(id, session));
        }
    }

    /// All limits that a node may speak for, by its own numbers, and those that it may not.
    pub fn join(&mut self, session: Number, limits: Vec<(u32, LimitId, Pods)>, refused: Vec<u32>) {
        let Some(own) = self.sessions.get_mut(&session) else { return };
        let before = std::mem::take(&mut own.limits);
        own.refused = refused;
        let node = own.node.clone();
        let kept: HashMap<&LimitId, u32> = limits.iter().map(|(at, id, _)| (id, *at)).collect();
        for (_, id) in before.iter().filter(|(number, id)| kept.get(id) != Some(number)) {
            self.part(id, session);
        }
        for (limit, id, pods) in limits {
            let Some(group) = self.group(&id) else {
                if let Some(own) = self.sessions.get_mut(&session) {
                    own.refused.push(limit);
                }
                continue;
            };
            let (burst, rate) = (burst_of_part(id.rate, pods), rate_of_part(id.rate, pods, 1));
            // The newest agent of a node speaks for it: during an upgrade there are two.
            group.members.retain(|member| member.node != node);
            group.members.push(Member { session, node: node.clone(), limit, burst, rate });
            if let Some(own) = self.sessions.get_mut(&session) {
                own.limits.insert(limit, id);
            }
        }
        if let Some(own) = self.sessions.get(&session).filter(|own| !own.refused.is_empty()) {
            own.wake.notify_one();
        }
    }

    /// What a node says of its limits.
    pub fn hear(&mut self, session: Number, report: &Report, now: Instant) {
        self.sweep(now);
        let asked = self.epoch.checked_add(Duration::from_millis(report.stamp));
        if let Some(asked) = asked.filter(|asked| *asked <= now) {
            for gift in &report.gifts {
                self.gift(session, gift, asked, now);
            }
        }
        for want in &report.wants {
            self.want(session, want, report.number, now);
        }
    }

    /// What there is to send to a node.
    pub fn take(&mut self, session: Number, now: Instant) -> Option<Orders> {
        let own = self.sessions.get_mut(&session)?;
        let refused = std::mem::take(&mut own.refused);
        if own.asks.is_empty() && own.grants.is_empty() && refused.is_empty() {
            return None;
        }
        let stamp = now.saturating_duration_since(self.epoch).as_millis();
        let asks = std::mem::take(&mut own.asks).into_iter();
        let grants = std::mem::take(&mut own.grants).into_iter();
        Some(Orders {
            stamp: u64::try_from(stamp).unwrap_or(u64::MAX),
            asks: asks.map(|((limit, key), amount)| Amount { limit, key, amount }).collect(),
            grants: grants
                .map(|((limit, key), (amount, report))| Grant { limit, key, amount, report })
                .collect(),
            refused,
        })
    }

    pub fn census(&self) -> Census {
        Census {
            nodes: self.sessions.len(),
            limits: self.groups.len(),
            keys: self.groups.values().map(|group| group.keys.len()).sum(),
        }
    }

    fn group(&mut self, id: &LimitId) -> Option<&mut Group> {
        match self.groups.entry(id.clone()) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(place) => {
                let count = self.of_namespace.entry(id.service.namespace.clone()).or_default();
                if count.limits >= MAX_LIMITS_OF_NAMESPACE {
                    return None;
                }
                count.limits += 1;
                Some(place.insert(Group::default()))
            }
        }
    }

    /// The node no longer speaks for a limit.
    fn part(&mut self, id: &LimitId, session: Number) {
        let Some(group) = self.groups.get_mut(id) else { return };
        group.members.retain(|member| member.session != session);
        group.keys.values_mut().for_each(|key| key.leave(session));
        if group.members.is_empty() {
            let keys = group.keys.len();
            self.groups.remove(id);
            self.uncount(&id.service.namespace, 1, keys);
        }
    }

    fn uncount(&mut self, namespace: &Str, limits: usize, keys: usize) {
        let Some(count) = self.of_namespace.get_mut(namespace) else { return };
        count.limits = count.limits.saturating_sub(limits);
        count.keys = count.keys.saturating_sub(keys);
        if (count.limits, count.keys) == (0, 0) {
            self.of_namespace.remove(namespace);
        }
    }

    fn want(&mut self, session: Number, want: &Amount, report: u64, now: Instant) {
        let Some(id) = self.limit(session, want.limit) else { return };
        let Some(group) = self.groups.get_mut(&id) else { return };
        if !group.members.iter().any(|member| member.session == session) {
            return;
        }
        if !group.keys.contains_key(&want.key) {
            let Some(count) = self.of_namespace.get_mut(&id.service.namespace) else { return };
            let is_full = group.keys.len() >= MAX_KEYS || count.keys >= MAX_KEYS_OF_NAMESPACE;
            if is_full || want.amount == 0 {
                return;
            }
            count.keys += 1;
        }
        let most = id.rate.burst.saturating_mul(UNIT).saturating_add(ahead(id.rate));
        let key = group.keys.entry(want.key).or_insert_with(|| Key::new(now));
        key.want(session, want.amount.min(most), report, now);
        self.settle(&id, want.key, now);
    }

    fn gift(&mut self, session: Number, gift: &Gift, asked: Instant, now: Instant) {
        let Some(id) = self.limit(session, gift.limit) else { return };
        let Some(Group { members, keys }) = self.groups.get_mut(&id) else { return };
        let Some(member) = members.iter().find(|it| it.session == session) else { return };
        let Some(key) = keys.get_mut(&gift.key) else { return };
        key.give(member, &Given { amount: gift.amount, left: gift.left, asked }, now);
        self.settle(&id, gift.key, now);
    }

    fn limit(&self, session: Number, number: u32) -> Option<LimitId> {
        self.sessions.get(&session)?.limits.get(&number).cloned()
    }

    fn settle(&mut self, id: &LimitId, name: u64, now: Instant) {
        let Some(Group { members, keys }) = self.groups.get_mut(id) else { return };
        let Some(key) = keys.get_mut(&name) else { return };
        let mut orders = Vec::new();
        key.settle(members, now, &mut orders);
        for order in orders {
            let (Order::Grant { to, .. } | Order::Ask { to, .. }) = order;
            let Some(limit) = members.iter().find(|it| it.session == to).map(|it| it.limit) else {
                continue;
            };
            if let Some(session) = self.sessions.get_mut(&to) {
                session.put((limit, name), order);
            }
        }
    }

    /// Forgets keys that nobody wants.
    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        let mut gone: Vec<(Str, usize)> = Vec::new();
        for (id, group) in &mut self.groups {
            let before = group.keys.len();
            group.keys.retain(|_, key| !key.is_idle(now));
            gone.push((id.service.namespace.clone(), before - group.keys.len()));
        }
        gone.iter().for_each(|(namespace, keys)| self.uncount(namespace, 0, *keys));
    }
}

impl Session {
    fn put(&mut self, place: (u32, u64), order: Order) {
        match order {
            // A node that does not read gets no more.
            Order::Ask { amount, .. } if self.asks.len() < MAX_ASKS => {
                self.asks.insert(place, amount);
            }
            Order::Grant { amount, report, .. } if self.grants.len() < MAX_ASKS => {
                let (sum, oldest) = self.grants.entry(place).or_insert((0, report));
                *sum = sum.saturating_add(amount);
                *oldest = report.min(*oldest);
            }
            Order::Ask { .. } | Order::Grant { .. } => return,
        }
        self.wake.notify_one();
    }
}

fn ahead(rate: Rate) -> u64 {
    let tokens = AHEAD.as_nanos() * u128::from(rate.tokens) * u128::from(UNIT);
    u64::try_from(tokens / rate.interval.as_nanos().max(1)).unwrap_or(u64::MAX)
}
