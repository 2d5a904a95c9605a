//! The selection where no DestinationRule holds: power of two choices, a client's own endpoint (`sessionAffinity`), or by weight.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use super::{Caller, session};
use crate::base::Str;
use crate::model::{Balancing, Endpoint, Preference, Service, Workload};
use crate::world::World;

/// The request for an endpoint.
pub(super) struct Choice<'a, 'c> {
    pub(super) world: &'a World,
    pub(super) service: &'a Service,
    pub(super) port: u16,
    pub(super) caller: Caller<'c>,
    pub(super) like: SocketAddr,
}

/// No endpoint is nearer.
const NEAREST: u8 = 0;
/// How many endpoints are drawn at the most. Where half of them may be taken, two are found in 96 of 100 cases.
const DRAWS: usize = 8;

pub(super) type Candidate<'a> = (&'a Endpoint, SocketAddr);

/// The nearest candidates so far.
#[derive(Default)]
struct Nearest<'a> {
    distance: u8,
    seen: usize,
    kept: [Option<Candidate<'a>>; 2],
    /// For session affinity: the highest score.
    score: u64,
    /// For weighted endpoints: the sum of the weights so far.
    weight: u64,
}

/// How a candidate is compared with others of the same distance.
enum Rank {
    /// The highest score wins.
    Score(u64),
    /// One is drawn, with the probability of its weight. Operators expect exact weights, so load does not count here.
    Share(u32),
    /// Two are drawn, and the one with fewer requests in flight wins.
    Equal,
}

impl<'a> Choice<'a, '_> {
    /// One pass: reservoir sampling keeps two candidates, so nothing is collected. None where two can be drawn.
    pub(super) fn among(
        &self,
        permitted: impl Fn(&Endpoint) -> bool,
        tried: &[SocketAddr],
    ) -> Option<Candidate<'a>> {
        if let Some([one, other]) = self.drawn(&permitted, tried) {
            return Some(less_busy(self.world, one, other));
        }
        let mut nearest = Nearest { distance: u8::MAX, ..Nearest::default() };
        for (distance, candidate) in self.candidates(&permitted, tried) {
            nearest.offer(distance, candidate, self.rank(candidate));
        }
        match nearest.kept {
            [Some(one), Some(other)] => Some(less_busy(self.world, one, other)),
            [one, other] => one.or(other),
        }
    }

    /// The ready endpoint of a session.
    pub(super) fn of_session(&self, session: u64, tried: &[SocketAddr]) -> Option<Candidate<'a>> {
        let endpoint = session::endpoint(self.service, session)?;
        self.candidate(endpoint, tried).map(|(_, candidate)| candidate)
    }

    /// Two of the nearest endpoints, where all are alike but for their load. A walk over all would cost each request as much as
    /// there are endpoints. `None`: most of those that were drawn may not be taken.
    fn drawn(
        &self,
        permitted: &impl Fn(&Endpoint) -> bool,
        tried: &[SocketAddr],
    ) -> Option<[Candidate<'a>; 2]> {
        let endpoints = &self.service.endpoints;
        if endpoints.len() < 2 || !self.selects_by_load_alone() {
            return None;
        }
        let mut first: Option<(usize, Candidate<'a>)> = None;
        for _ in 0..DRAWS {
            let place = fastrand::usize(..endpoints.len());
            let permitted = endpoints.get(place).filter(|endpoint| permitted(endpoint));
            let drawn = permitted.and_then(|endpoint| self.candidate(endpoint, tried));
            match (drawn, first) {
                (Some((NEAREST, one)), None) => first = Some((place, one)),
                (Some((NEAREST, other)), Some((before, one))) if before != place => {
                    return Some([one, other]);
                }
                _ => {}
            }
        }
        None
    }

    fn selects_by_load_alone(&self) -> bool {
        let Balancing { local_only, preference, weighted, sticky, races: _ } =
            self.service.balancing;
        !sticky && !weighted && !local_only && preference == Preference::None
    }

    /// The endpoints that may be taken, each with its distance.
    fn candidates(
        &self,
        permitted: impl Fn(&Endpoint) -> bool,
        tried: &[SocketAddr],
    ) -> impl Iterator<Item = (u8, Candidate<'a>)> {
        let endpoints = self.service.endpoints.iter().filter(move |it| permitted(it));
        endpoints.filter_map(move |endpoint| self.candidate(endpoint, tried))
    }

    /// The endpoint with its distance, if it may be taken.
    fn candidate(
        &self,
        endpoint: &'a Endpoint,
        tried: &[SocketAddr],
    ) -> Option<(u8, Candidate<'a>)> {
        let Balancing { local_only, preference, .. } = self.service.balancing;
        if !self.caller.may_take(endpoint) {
            return None;
        }
        let target = endpoint.target_port(self.port)?;
        let address = address_like(endpoint, self.like)?;
        let candidate = SocketAddr::new(address, target);
        if tried.contains(&candidate) || (local_only && endpoint.node != self.caller.workload.node)
        {
            return None;
        }
        // An address of the other family may be unreachable, so it ranks after all others of the same distance.
        let other_family = address.is_ipv4() != self.like.ip().to_canonical().is_ipv4();
        let distance = 2 * distance(preference, self.caller.workload, endpoint);
        Some((distance + u8::from(other_family), (endpoint, candidate)))
    }

    fn rank(&self, (endpoint, candidate): Candidate<'_>) -> Rank {
        let Balancing { sticky, weighted, .. } = self.service.balancing;
        match (sticky, weighted) {
            (true, _) => Rank::Score(score(self.caller.address, candidate.ip())),
            (false, true) => Rank::Share(endpoint.weight),
            (false, false) => Rank::Equal,
        }
    }
}

impl<'a> Nearest<'a> {
    fn offer(&mut self, distance: u8, candidate: Candidate<'a>, rank: Rank) {
        if distance > self.distance {
            return;
        }
        if distance < self.distance {
            *self = Nearest { distance, ..Nearest::default() };
        }
        match rank {
            Rank::Score(score) => {
                if self.seen == 0 || score > self.score {
                    (self.score, self.kept) = (score, [Some(candidate), None]);
                }
            }
            Rank::Share(share) => {
                let share = u64::from(share.max(1));
                self.weight += share;
                if fastrand::u64(..self.weight) < share {
                    self.kept = [Some(candidate), None];
                }
            }
            Rank::Equal => {
                let kept = self.kept.len();
                let place =
                    if self.seen < kept { self.seen } else { fastrand::usize(..=self.seen) };
                if let Some(slot) = self.kept.get_mut(place) {
                    *slot = Some(candidate);
                }
            }
        }
        self.seen += 1;
    }
}

/// How far an endpoint is from the caller, as far as the preference counts it: 0 is nearest. Unknown is far.
pub fn distance(preference: Preference, caller: &Workload, endpoint: &Endpoint) -> u8 {
    let same = |one: &Str, other: &Str| !one.is_empty() && one == other;
    let (here, there) = (&caller.locality, &endpoint.locality);
    let region = here.region == there.region || here.region.is_empty();
    match preference {
        Preference::None => 0,
        Preference::SameNode if same(&caller.node, &endpoint.node) => 0,
        _ if same(&here.zone, &there.zone) && region => 1,
        _ if same(&here.region, &there.region) => 2,
        _ => 3,
    }
}

/// Highest random weight (rendezvous hashing): an endpoint that is added or removed moves only its own clients, and
/// every agent selects alike, also after a restart.
fn score(client: IpAddr, endpoint: IpAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    (client.to_canonical(), endpoint).hash(&mut hasher);
    hasher.finish()
}

fn less_busy<'a>(
    world: &World,
    one: (&'a Endpoint, SocketAddr),
    other: (&'a Endpoint, SocketAddr),
) -> (&'a Endpoint, SocketAddr) {
    let busy = |(endpoint, address): &(&Endpoint, SocketAddr)| {
        world.load_of(endpoint.workload.as_ref(), address.ip()).map_or(0, |load| load.in_flight())
    };
    match busy(&one).cmp(&busy(&other)) {
        std::cmp::Ordering::Less => one,
        std::cmp::Ordering::Greater => other,
        // Two with equal load must share evenly, wherever they are in the list.
        std::cmp::Ordering::Equal if fastrand::bool() => one,
        std::cmp::Ordering::Equal => other,
    }
}

/// The endpoint's address of the family that the client used, otherwise its first. An IPv4-mapped IPv6 address counts
/// as IPv4.
pub(super) fn address_like(endpoint: &Endpoint, like: SocketAddr) -> Option<IpAddr> {
    let like = like.ip().to_canonical();
    let same = |address: &IpAddr| address.is_ipv4() == like.is_ipv4();
    let mut addresses = endpoint.addresses.iter().map(IpAddr::to_canonical);
    addresses.clone().find(same).or_else(|| addresses.next())
}
