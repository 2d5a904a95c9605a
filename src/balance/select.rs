//! The selection from a table: a group by its health and its share, then a member as the policy's balancer says.
//!
//! While all endpoints serve, that is two draws. Where some are ejected, the health of each group is counted, and what a group cannot
//! carry goes to the next, with Envoy's overprovisioning.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Caller, session};
use crate::model::Service;
use crate::traffic::{self, Attempt, Balancer, Destination, Group, Host, Member, Table};

/// How many members are drawn at the most before the group is walked through.
const DRAWS: usize = 32;
/// How many are drawn to find one to compare with. Where half of them may be selected, one is found in 99 of 100 cases.
const SECOND_DRAWS: usize = 8;
/// Requests may look again if another one began to probe the endpoint that they had selected.
const TURNS: usize = 4;
/// In percent: so much more than its share an endpoint can carry. Envoy's `overprovisioning_factor`.
const OVERPROVISIONED: u64 = 140;

/// What is selected, and for whom.
pub(super) struct Selection<'a> {
    pub(super) service: &'a Service,
    pub(super) destination: &'a Arc<Destination>,
    pub(super) table: &'a Table,
    pub(super) caller: Caller<'a>,
    pub(super) like: SocketAddr,
}

/// What must not be selected.
#[derive(Clone, Copy)]
struct Without<'a> {
    tried: &'a [SocketAddr],
    /// Endpoints that are ejected.
    closed: bool,
    /// So many are ejected that all are used.
    panics: bool,
}

impl Without<'_> {
    fn permits(&self, member: &Member) -> bool {
        (!self.closed || member.is_open()) && !self.tried.contains(&member.address)
    }

    /// Whether it is unlikely that a member must not be selected.
    fn is_nothing(&self) -> bool {
        !self.closed && self.tried.is_empty()
    }
}

/// How one member of a group is selected.
enum By {
    /// Two are drawn; the one with less load wins.
    Load,
    /// Two are drawn; the one that will answer sooner wins.
    Latency,
    InTurn,
    /// At random, by weight.
    Share,
    /// The same for the same key.
    Key(u64),
}

impl<'a> Selection<'a> {
    /// A member, and the attempt at it if the destination listens.
    pub(super) fn select(&self, tried: &[SocketAddr]) -> Option<(&'a Member, Option<Attempt>)> {
        let are_some_out = self.destination.are_some_out();
        let panics = are_some_out && self.panics();
        let closed = are_some_out && !panics;
        let with = Without { tried, closed, panics };
        if let Some(kept) = self.caller.session.and_then(|session| self.of_session(session, with)) {
            return Some(kept);
        }
        for _ in 0..TURNS {
            let again = Without { tried: &[], ..with };
            let member = self.among(with).or_else(|| self.among(again));
            let Some(member) = member else { break };
            let Some(host) = &member.host else { return Some((member, None)) };
            let attempt = self.destination.attempt(member.address, host, self.table.size());
            // In panic, one that is ejected gets requests of which nothing is heard.
            if attempt.is_some() || !closed {
                return Some((member, attempt));
            }
        }
        self.last_of(with)
    }

    /// The member of the client's session.
    fn of_session(
        &self,
        session: u64,
        without: Without<'_>,
    ) -> Option<(&'a Member, Option<Attempt>)> {
        let endpoints = &self.service.endpoints;
        let is_it = |member: &&Member| {
            let endpoint = endpoints.get(member.endpoint);
            endpoint.is_some_and(|it| session::is_at(self.service, it, session))
        };
        let mut members = self.table.groups().iter().flat_map(Group::members);
        let member = members.find(is_it).filter(|member| without.permits(member))?;
        let Some(host) = &member.host else { return Some((member, None)) };
        let attempt = self.destination.attempt(member.address, host, self.table.size());
        // Another request has just begun to probe it.
        if attempt.is_none() && without.closed { None } else { Some((member, attempt)) }
    }

    /// Where nothing else is left, even one that is ejected, unless the policy may eject all.
    fn last_of(&self, with: Without<'_>) -> Option<(&'a Member, Option<Attempt>)> {
        if !with.closed || self.destination.may_eject_all() {
            return None;
        }
        let all = Without { closed: false, ..with };
        let member = self.among(all).or_else(|| self.among(Without { tried: &[], ..all }))?;
        let host = member.host.as_ref();
        let size = self.table.size();
        Some((member, host.and_then(|it| self.destination.attempt(member.address, it, size))))
    }

    /// Whether too few are healthy to leave the others out. Not where the healthy ones of all groups can carry everything (Envoy,
    /// "Panic threshold").
    fn panics(&self) -> bool {
        let groups = self.table.groups();
        let open: usize = groups.iter().map(open).sum();
        let all = self.table.size();
        let ejected = (all as usize).saturating_sub(open);
        if self.destination.may_leave_out(ejected, all) {
            return false;
        }
        let carried = groups.len() > 1 && groups.iter().map(health).sum::<u64>() >= 100;
        !carried
    }

    fn among(&self, without: Without<'_>) -> Option<&'a Member> {
        if let Some(dialled) = self.passed_through(without) {
            return Some(dialled);
        }
        let groups = self.table.groups();
        let by = self.by();
        let first = self.group(without, &by)?;
        let found = self.member(groups.get(first)?, without, &by);
        if found.is_some() || groups.len() == 1 {
            return found;
        }
        let mut others = groups.iter().enumerate().filter(|(index, _)| *index != first);
        others.find_map(|(_, group)| self.member(group, without, &by))
    }

    /// The endpoint that was dialled, where the policy says so.
    fn passed_through(&self, without: Without<'_>) -> Option<&'a Member> {
        if self.destination.balancer() != Some(&Balancer::Passthrough) {
            return None;
        }
        let dialled: IpAddr = self.like.ip().to_canonical();
        let mut members = self.table.groups().iter().flat_map(Group::members);
        members.find(|member| member.address.ip() == dialled && without.permits(member))
    }

    fn by(&self) -> By {
        let balancing = &self.service.balancing;
        let even = if balancing.weighted { By::Share } else { By::Load };
        match self.destination.balancer() {
            None if balancing.sticky => By::Key(traffic::of_address(self.caller.address)),
            None | Some(Balancer::LeastRequest | Balancer::Passthrough) => even,
            Some(Balancer::PeakEwma) => By::Latency,
            Some(Balancer::Random) => By::Share,
            Some(Balancer::RoundRobin) => By::InTurn,
            Some(Balancer::Hash(property)) => self.caller.key(property).map_or(even, By::Key),
        }
    }

    /// Which group's turn it is.
    fn group(&self, without: Without<'_>, by: &By) -> Option<usize> {
        let groups = self.table.groups();
        let is_shared = self.table.is_shared();
        let is_usual = !without.closed && !without.panics;
        if groups.len() < 2 || is_usual && !is_shared {
            return (!groups.is_empty()).then_some(0);
        }
        let all: u64 = shares(groups, is_shared, without).sum();
        if all == 0 {
            return Some(0);
        }
        let mut place = match by {
            // Requests with one key go to one endpoint, so to one group.
            By::Key(key) => mixed(*key, 0) % all,
            _ => fastrand::u64(..all),
        };
        shares(groups, is_shared, without).position(|share| {
            let is_found = place < share;
            place = place.saturating_sub(share);
            is_found
        })
    }

    fn member(&self, group: &'a Group, without: Without<'_>, by: &By) -> Option<&'a Member> {
        if group.members().len() == 1 {
            return group.members().first().filter(|member| without.permits(member));
        }
        let parts = self.parts();
        match by {
            By::Key(key) => by_key(group, *key, without),
            By::Load => Draw { group, without, parts, draw: Group::by_weight }
                .of_two(|member| f64::from(member.load.in_flight())),
            By::Latency => {
                let costs = self.destination.costs();
                let cost = |member: &Member| match (&costs, &member.host) {
                    (Some(cost), Some(host)) => f64::from(cost(host, member.load.in_flight())),
                    _ => f64::from(member.load.in_flight()),
                };
                Draw { group, without, parts, draw: Group::by_weight }.of_two(cost)
            }
            By::InTurn => Draw { group, without, parts, draw: Group::in_turn }.one(),
            By::Share => Draw { group, without, parts, draw: Group::by_weight }.one(),
        }
    }

    /// The parts of their shares that new endpoints get, where the balancer heeds that: not where the key decides, nor at random, as in
    /// Istio.
    fn parts(&self) -> Option<impl Fn(&Host) -> f32 + use<'a>> {
        match self.destination.balancer() {
            Some(Balancer::Random | Balancer::Hash(_) | Balancer::Passthrough) => None,
            _ => self.destination.parts(),
        }
    }
}

/// Draws from a group.
struct Draw<'a, 'b, P> {
    group: &'a Group,
    without: Without<'b>,
    /// The parts of their shares that new members get.
    parts: Option<P>,
    draw: fn(&Group) -> Option<&Member>,
}

impl<'a, P: Fn(&Host) -> f32> Draw<'a, '_, P> {
    /// The better one of two. They are drawn in random order, so the first wins where both are equal.
    fn of_two(&self, cost: impl Fn(&Member) -> f64) -> Option<&'a Member> {
        let one = self.one()?;
        for _ in 0..SECOND_DRAWS {
            if let Some(other) = self.once().filter(|other| other.endpoint != one.endpoint) {
                return Some(if cost(other) < cost(one) { other } else { one });
            }
        }
        Some(one)
    }

    fn one(&self) -> Option<&'a Member> {
        let draws = if self.without.is_nothing() && self.parts.is_none() { 1 } else { DRAWS };
        (0..draws).find_map(|_| self.once()).or_else(|| self.walked())
    }

    /// `None`: it may not be selected, or not this time.
    fn once(&self) -> Option<&'a Member> {
        let drawn = (self.draw)(self.group).filter(|member| self.without.permits(member))?;
        let part = self.part(drawn);
        (part >= 1.0 || fastrand::f32() < part).then_some(drawn)
    }

    fn part(&self, member: &Member) -> f32 {
        match (&self.parts, &member.host) {
            (Some(part), Some(host)) => part(host),
            _ => 1.0,
        }
    }

    /// One of those that may be selected, by what their shares are at present.
    fn walked(&self) -> Option<&'a Member> {
        let mut all = 0.0;
        let mut kept = None;
        for member in self.group.members().iter().filter(|member| self.without.permits(member)) {
            let part = f64::from(self.part(member)).max(f64::EPSILON);
            let share = f64::from(member.weight.max(1)) * part;
            all += share;
            if fastrand::f64() * all < share {
                kept = Some(member);
            }
        }
        kept
    }
}

/// Rendezvous hashing: an endpoint more or less moves only the keys that it gets or had, and shares follow the weights.
fn by_key<'a>(group: &'a Group, key: u64, without: Without<'_>) -> Option<&'a Member> {
    // Whoever has the highest score of all has the highest of those that may be selected, if it may be selected itself.
    if !group.is_weighted() {
        let highest = highest(group.salts(), key).and_then(|index| group.members().get(index));
        if let Some(member) = highest.filter(|member| without.permits(member)) {
            return Some(member);
        }
    }
    let score = |member: &Member| {
        let mixed = mixed(key, member.salt);
        match group.is_weighted() {
            true => weighted(mixed, member.weight),
            false => mixed,
        }
    };
    let permitted = group.members().iter().filter(|member| without.permits(member));
    permitted.max_by_key(|member| score(member))
}

/// The place of the salt that has the highest score with the key. This is all that each endpoint of a large service costs a request.
fn highest(salts: &[u64], key: u64) -> Option<usize> {
    let mut highest = None;
    let mut best = 0;
    for (index, salt) in salts.iter().enumerate() {
        let score = mixed(key, *salt);
        if score >= best {
            (highest, best) = (Some(index), score);
        }
    }
    highest
}

/// The highest one of several has the share of keys that its weight is of all.
fn weighted(mixed: u64, weight: u32) -> u64 {
    // Between 0 and 1, neither of them included.
    let uniform = ((mixed >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    let score = f64::from(weight.max(1)) / -uniform.ln();
    // Positive numbers have the order of their bits.
    score.to_bits()
}

/// Mixes both: Stafford's variant 13, as SplitMix64 has it.
fn mixed(key: u64, salt: u64) -> u64 {
    let mut mixed = key ^ salt.rotate_left(32);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// How many members get requests.
fn open(group: &Group) -> usize {
    group.members().iter().filter(|member| member.is_open()).count()
}

/// What part of its load a group can carry, in percent: Envoy's.
fn health(group: &Group) -> u64 {
    let all = group.members().len().max(1) as u64;
    (open(group) as u64 * OVERPROVISIONED / all).min(100)
}

/// What each group gets. Of groups in an order each as much as it can carry of what those before it cannot (Envoy, "Priority levels").
fn shares(groups: &[Group], is_shared: bool, without: Without<'_>) -> impl Iterator<Item = u64> {
    let mut left = match is_shared || without.panics {
        true => 0,
        false => groups.iter().map(health).sum::<u64>().min(100),
    };
    groups.iter().map(move |group| match (is_shared, without.panics) {
        (true, _) => {
            let health = if without.closed { health(group) } else { 100 };
            u64::from(group.share()) * health
        }
        // Envoy's panic: each group as many as it has endpoints.
        (false, true) => group.members().len() as u64,
        (false, false) => {
            let carried = health(group).min(left);
            left -= carried;
            carried
        }
    })
}
