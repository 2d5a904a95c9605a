//! The endpoints of one port as one client sees them, in the order or with the shares that its place gives them. Built once for each
//! snapshot and place (`balance` does), so that a selection walks over no list.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Host, Load};

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// All endpoints that a client may be given.
#[derive(Debug)]
pub struct Table {
    groups: Box<[Group]>,
    /// Groups have shares; otherwise the first comes first.
    is_shared: bool,
    size: u32,
}

/// Endpoints that are equally near.
#[derive(Debug)]
pub struct Group {
    members: Box<[Member]>,
    /// The members' salts, side by side: a key is mixed with each of them.
    salts: Box<[u64]>,
    /// The sum of the members' weights.
    weight: u64,
    /// Whether some weights differ from others.
    is_weighted: bool,
    /// Of the traffic, beside the other groups, where these have shares.
    share: u32,
    /// Members that were taken in turn.
    turns: AtomicU64,
}

/// One endpoint.
#[derive(Debug)]
pub struct Member {
    /// Its place in the service's list.
    pub endpoint: usize,
    pub address: SocketAddr,
    pub weight: u32,
    pub load: Arc<Load>,
    /// Where the policy needs to know something of it.
    pub host: Option<Arc<Host>>,
    /// A hash of its address.
    pub salt: u64,
}

impl Table {
    /// The nearest group first. Empty ones must be left out.
    pub fn in_order(groups: Vec<Group>) -> Self {
        Self::of(groups, false)
    }

    /// Groups with shares.
    pub fn in_shares(groups: Vec<Group>) -> Self {
        Self::of(groups, true)
    }

    fn of(groups: Vec<Group>, is_shared: bool) -> Self {
        let size = groups.iter().map(|group| group.members.len()).sum::<usize>();
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        Self { groups: groups.into(), is_shared, size }
    }

    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// How many endpoints there are.
    pub fn size(&self) -> u32 {
        self.size
    }
}

impl Group {
    pub fn new(members: Vec<Member>, share: u32) -> Self {
        let weight = members.iter().map(Member::share).sum();
        let is_weighted = members.windows(2).any(|two| two[0].share() != two[1].share());
        let salts = members.iter().map(|member| member.salt).collect();
        // Agents that start together must not begin with the same endpoint.
        let turns = AtomicU64::new(fastrand::u64(..));
        Self { members: members.into(), salts, weight, is_weighted, share, turns }
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The salt of each member.
    pub fn salts(&self) -> &[u64] {
        &self.salts
    }

    /// Whether some members have more weight than others.
    pub fn is_weighted(&self) -> bool {
        self.is_weighted
    }

    pub fn share(&self) -> u32 {
        self.share
    }

    /// The member whose turn it is, by weight. Every stretch of turns is spread evenly, so that a heavy member is not taken in bursts.
    pub fn in_turn(&self) -> Option<&Member> {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let equal = self.members.len() as u64;
        if self.weight == equal {
            return self.members.get(usize::try_from(turn % equal.max(1)).ok()?);
        }
        // Steps of the golden ratio.
        self.at(scaled(turn.wrapping_mul(GOLDEN), self.weight))
    }

    /// A member at random, by weight.
    pub fn by_weight(&self) -> Option<&Member> {
        match self.weight == self.members.len() as u64 {
            true => self.at_random(),
            false => self.at(fastrand::u64(..self.weight.max(1))),
        }
    }

    /// A member at random, whatever its weight.
    pub fn at_random(&self) -> Option<&Member> {
        self.members.get(fastrand::usize(..self.members.len().max(1)))
    }

    /// The member whose part of the sum of weights a number falls into.
    fn at(&self, mut place: u64) -> Option<&Member> {
        self.members.iter().find(|member| {
            let share = member.share();
            let is_found = place < share;
            place = place.saturating_sub(share);
            is_found
        })
    }
}

impl Member {
    fn share(&self) -> u64 {
        u64::from(self.weight.max(1))
    }

    /// Whether a request may go there.
    pub fn is_open(&self) -> bool {
        self.host.as_ref().is_none_or(|host| host.is_open())
    }
}

/// The same part of `whole` that `of` is of all numbers.
fn scaled(of: u64, whole: u64) -> u64 {
    let scaled = (u128::from(of) * u128::from(whole)) >> 64;
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(weights: &[u32]) -> Group {
        let member = |(endpoint, weight): (usize, &u32)| Member {
            endpoint,
            address: SocketAddr::from(([10, 0, 0, 1], 80)),
            weight: *weight,
            load: Arc::default(),
            host: None,
            salt: 0,
        };
        Group::new(weights.iter().enumerate().map(member).collect(), 1)
    }

    #[test]
    fn turns_are_exact_by_weight() {
        let equal = group(&[1, 1, 1]);
        let mut taken = [0; 3];
        (0..300).for_each(|_| taken[equal.in_turn().unwrap().endpoint] += 1);
        assert_eq!(taken, [100, 100, 100]);
        // The light one is never more than four turns away from its share, wherever the turns began.
        let heavy = group(&[1, 9]);
        let mut light = 0i64;
        for turn in 1..=1000i64 {
            light += i64::from(heavy.in_turn().unwrap().endpoint == 0);
            assert!((light * 10 - turn).abs() <= 40, "{light} of {turn}");
        }
        assert!(group(&[]).in_turn().is_none() && group(&[]).by_weight().is_none());
    }

    #[test]
    fn a_place_belongs_to_whose_weight_it_falls_into() {
        let group = group(&[2, 1, 3]);
        let places = (0..7).map(|place| group.at(place).map(|member| member.endpoint));
        let expected = [0, 0, 1, 2, 2, 2].map(Some);
        assert_eq!(places.collect::<Vec<_>>(), [&expected[..], &[None]].concat());
    }
}
