//! The controller's half: who wants, who gives. Pure, over the time that it is told; it keeps nothing that its successor
//! would miss. It talks to nodes through an outbox for each connection, in which what is not sent yet adds up.

mod accounts;
mod key;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::messages::{Amount, Gift, Grant, LimitId, MAX_ASKS, MAX_WANTS, Orders, Report};
use crate::base::Str;
use crate::filter::{Pods, Rate, UNIT, burst_of_part, rate_of_part};
use accounts::Accounts;
use key::{Given, Key, Order};

/// Keys of one limit that are exchanged at a time, and those of them that one node may bring up: as many as it may say at a time that it
/// lacks tokens for. All limits of a namespace have further bounds ([`accounts`]).
const MAX_KEYS: usize = 1024;
const MAX_KEYS_OF_NODE: usize = MAX_WANTS;
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
    accounts: Accounts,
    last: Number,
    swept: Instant,
}

/// The nodes of one limit. A node alone has nobody to exchange tokens with, so such a limit counts for none of the bounds of its
/// namespace but that of what a connection may say.
#[derive(Default)]
struct Group {
    members: Vec<Member>,
    keys: HashMap<u64, Key>,
    /// How many of these each node has brought up.
    brought: HashMap<Str, usize>,
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
            accounts: Accounts::default(),
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
            let Some(group) = self.admit(&id, &node) else {
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

    /// The nodes of a limit that this one may join.
    fn admit(&mut self, id: &LimitId, node: &Str) -> Option<&mut Group> {
        let group = self.groups.entry(id.clone()).or_default();
        let is_known = group.members.iter().any(|member| member.node == *node);
        if !is_known && let [first, others @ ..] = &group.members[..] {
            let (namespace, is_new) = (&id.service.namespace, others.is_empty());
            let both = [node, &first.node];
            let nodes = if is_new { &both[..] } else { &both[..1] };
            if !self.accounts.share(namespace, nodes, is_new) {
                return None;
            }
        }
        Some(group)
    }

    /// The node no longer speaks for a limit.
    fn part(&mut self, id: &LimitId, session: Number) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let is_own = |member: &Member| member.session == session;
        let Some(own) = group.members.iter().position(is_own) else { return };
        let gone = group.members.swap_remove(own);
        group.keys.values_mut().for_each(|key| key.leave(session));
        let namespace = &id.service.namespace;
        match &group.members[..] {
            [] => {
                for (node, keys) in std::mem::take(&mut group.brought) {
                    self.accounts.forget_keys(namespace, &node, keys);
                }
                self.groups.remove(id);
            }
            [last] => self.accounts.unshare(namespace, &[&gone.node, &last.node], true),
            _ => self.accounts.unshare(namespace, &[&gone.node], false),
        }
    }

    fn want(&mut self, session: Number, want: &Amount, report: u64, now: Instant) {
        let Some(id) = self.limit(session, want.limit) else { return };
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(own) = group.members.iter().find(|member| member.session == session) else {
            return;
        };
        if !group.keys.contains_key(&want.key) {
            let brought = group.brought.get(&own.node).copied().unwrap_or_default();
            let is_full = group.keys.len() >= MAX_KEYS || brought >= MAX_KEYS_OF_NODE;
            let is_alone = group.members.len() < 2;
            if is_full || is_alone || want.amount == 0 {
                return;
            }
            if !self.accounts.add_key(&id.service.namespace, &own.node) {
                return;
            }
            group.brought.insert(own.node.clone(), brought + 1);
        }
        let most = id.rate.burst.saturating_mul(UNIT).saturating_add(ahead(id.rate));
        let key = group.keys.entry(want.key).or_insert_with(|| Key::new(&own.node, now));
        key.want(session, want.amount.min(most), report, now);
        self.settle(&id, want.key, now);
    }

    fn gift(&mut self, session: Number, gift: &Gift, asked: Instant, now: Instant) {
        let Some(id) = self.limit(session, gift.limit) else { return };
        let Some(Group { members, keys, .. }) = self.groups.get_mut(&id) else { return };
        let Some(member) = members.iter().find(|it| it.session == session) else { return };
        let Some(key) = keys.get_mut(&gift.key) else { return };
        let given = Given { amount: gift.amount, left: gift.left, asked };
        if key.give(member, &given, now) {
            self.settle(&id, gift.key, now);
        }
    }

    fn limit(&self, session: Number, number: u32) -> Option<LimitId> {
        self.sessions.get(&session)?.limits.get(&number).cloned()
    }

    fn settle(&mut self, id: &LimitId, name: u64, now: Instant) {
        let Some(Group { members, keys, .. }) = self.groups.get_mut(id) else { return };
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
        for (id, Group { keys, brought, .. }) in &mut self.groups {
            keys.retain(|_, key| {
                let is_idle = key.is_idle(now);
                if is_idle {
                    self.accounts.forget_keys(&id.service.namespace, &key.by, 1);
                    if let Some(count) = brought.get_mut(&key.by) {
                        *count = count.saturating_sub(1);
                    }
                }
                !is_idle
            });
            brought.retain(|_, count| *count > 0);
        }
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
