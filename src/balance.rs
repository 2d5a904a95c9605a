//! Endpoint selection: power of two choices (least request, Envoy's default) among the nearest eligible endpoints, over
//! one snapshot and its load counters, or as the destination's policy says ([`Balancer`]). Ejected endpoints are left out. This
//! room opens no connection; its callers report how each attempt ended ([`Picked::ended`]).

mod picked;
#[cfg(test)]
mod tests;

use crate::base::Str;
use crate::model::{Balancing, Endpoint, Preference, Resolution, Service, Workload};
use crate::traffic::{self, Balancer, Destination, Ejected, HashKey, Subset};
use crate::world::World;
pub use picked::{Ended, InUse, Picked};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

/// The client.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Its node and locality decide which endpoints are near.
    pub workload: &'a Workload,
    /// Selects the endpoint of a service with session affinity.
    pub address: IpAddr,
    /// Selects the endpoint where the policy hashes a property of requests.
    pub hash: Option<u64>,
    /// The endpoints of the service that it may get, with their policies; `None`: all of them.
    pub subset: Option<&'a Subset>,
}

impl Caller<'_> {
    /// The key by which the policy selects; the address is known without a request.
    fn key(&self, property: &HashKey) -> Option<u64> {
        let address = (*property == HashKey::SourceIp).then(|| traffic::of_address(self.address));
        self.hash.or(address)
    }
}

/// A ready endpoint that serves `port` and is not in `avoid` (unless all are), as near to the caller as the service
/// prefers. If none is ready, one that is terminating and still serves. `like` is the dialled address: it gives the
/// preferred family, and is the endpoint itself if the service says so.
pub fn pick(
    world: &World,
    service: &Service,
    port: u16,
    caller: Caller<'_>,
    like: SocketAddr,
    avoid: &[SocketAddr],
) -> Option<Picked> {
    let of_client = match caller.subset {
        None => service.traffic.of_client(&caller.workload.key.namespace, port),
        Some(subset) => subset.on(port),
    };
    if service.resolution == Resolution::Dialled {
        // Do not use an address that was dialled for another service.
        let own = service.owns(like.ip().to_canonical());
        return own.then(|| picked(world, None, sock_address(like)).under(of_client, 1));
    }
    let destination = of_client.map(|it| &**it);
    let choice = Choice { world, service, port, caller, like, destination };
    let ready = |endpoint: &Endpoint| endpoint.ready;
    let terminating = |endpoint: &Endpoint| endpoint.terminating;
    let ejected = destination.and_then(|it| it.ejected());
    let pool = destination.filter(|it| it.listens()).map_or(0, |_| choice.pool());
    let ejected = ejected.filter(|ejected| choice.may_leave_out(ejected, pool));
    let left_out = LeftOut { tried: avoid, ejected: ejected.as_deref() };
    let (endpoint, address) = choice
        .among(ready, left_out)
        .or_else(|| choice.among(ready, LeftOut { tried: &[], ..left_out }))
        .or_else(|| choice.last_of(ready, left_out))
        .or_else(|| choice.among(terminating, LeftOut { ejected: None, ..left_out }))
        .or_else(|| choice.among(terminating, LeftOut::default()))?;
    Some(picked(world, endpoint.workload.as_ref(), address).under(of_client, pool))
}

/// An address without a named workload may still be a workload's; then the mesh carries the traffic.
fn picked(world: &World, workload: Option<&Str>, address: SocketAddr) -> Picked {
    let load = world.load_of(workload, address.ip());
    let workload = match workload {
        Some(uid) => world.workload(uid),
        None => world.workload_at(address.ip()),
    };
    let mut picked = Picked::dialled(address, workload.cloned());
    picked.in_flight = load.map(|load| load.begin());
    picked
}

fn sock_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Why there is no endpoint, for the log.
pub fn nobody(service: &Service, port: u16, caller: &Caller<'_>) -> String {
    let Caller { workload: caller, subset, .. } = caller;
    let node = match service.balancing.local_only {
        true => format!(" on node {} (internalTrafficPolicy is Local)", caller.node),
        false => String::new(),
    };
    let (destination, of_subset) = match subset {
        None => (service.traffic.of_client(&caller.key.namespace, port), ""),
        Some(subset) => (subset.on(port), " with the labels of the subset"),
    };
    let ejected = match destination.and_then(|it| it.ejected()) {
        Some(ejected) => {
            format!("; ejected by outlierDetection: {}", ejected.endpoints().count())
        }
        None => String::new(),
    };
    format!("{service} has no ready endpoint{of_subset} on port {port}{node}{ejected}")
}

/// The request for an endpoint.
struct Choice<'a, 'c> {
    world: &'a World,
    service: &'a Service,
    port: u16,
    caller: Caller<'c>,
    like: SocketAddr,
    destination: Option<&'a Destination>,
}

/// The endpoints that are not to be taken.
#[derive(Clone, Copy, Default)]
struct LeftOut<'a> {
    tried: &'a [SocketAddr],
    ejected: Option<&'a Ejected>,
}

impl LeftOut<'_> {
    fn contains(&self, candidate: SocketAddr) -> bool {
        self.tried.contains(&candidate)
            || self.ejected.is_some_and(|ejected| ejected.contains(candidate))
    }
}

/// Farther than any endpoint is by its place.
const FAR: u8 = 16;
/// No endpoint is nearer.
const NEAREST: u8 = 0;
/// How many endpoints are drawn at the most. Where half of them may be taken, two are found in 96 of 100 cases.
const DRAWS: usize = 8;

type Candidate<'a> = (&'a Endpoint, SocketAddr);

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
    fn among(
        &self,
        permitted: impl Fn(&Endpoint) -> bool,
        left_out: LeftOut<'_>,
    ) -> Option<Candidate<'a>> {
        if let Some([one, other]) = self.drawn(&permitted, left_out) {
            return Some(less_busy(self.world, one, other));
        }
        let mut nearest = Nearest { distance: u8::MAX, ..Nearest::default() };
        for (distance, candidate) in self.candidates(&permitted, left_out) {
            nearest.offer(distance, candidate, self.rank(candidate));
        }
        if let Some((Balancer::RoundRobin, destination)) = self.policy() {
            return self.in_turn(destination, &nearest, &permitted, left_out);
        }
        match nearest.kept {
            [Some(one), Some(other)] => Some(less_busy(self.world, one, other)),
            [one, other] => one.or(other),
        }
    }

    /// Two of the nearest endpoints, where all are alike but for their load. A walk over all would cost each request as much as
    /// there are endpoints. `None`: most of those that were drawn may not be taken.
    fn drawn(
        &self,
        permitted: &impl Fn(&Endpoint) -> bool,
        left_out: LeftOut<'_>,
    ) -> Option<[Candidate<'a>; 2]> {
        let endpoints = &self.service.endpoints;
        if endpoints.len() < 2 || !self.selects_by_load_alone() {
            return None;
        }
        let mut first: Option<(usize, Candidate<'a>)> = None;
        for _ in 0..DRAWS {
            let place = fastrand::usize(..endpoints.len());
            let permitted = endpoints.get(place).filter(|endpoint| permitted(endpoint));
            let drawn = permitted.and_then(|endpoint| self.candidate(endpoint, left_out, None));
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
        let by_load = match self.policy() {
            None => !sticky,
            Some((balancer, _)) => *balancer == Balancer::LeastRequest,
        };
        by_load && !weighted && !local_only && preference == Preference::None
    }

    /// The endpoints that may be taken, each with its distance.
    fn candidates(
        &self,
        permitted: impl Fn(&Endpoint) -> bool,
        left_out: LeftOut<'_>,
    ) -> impl Iterator<Item = (u8, Candidate<'a>)> {
        let is_passthrough =
            self.policy().is_some_and(|(balancer, _)| *balancer == Balancer::Passthrough);
        let dialled = is_passthrough.then(|| self.like.ip().to_canonical());
        let endpoints = self.service.endpoints.iter().filter(move |it| permitted(it));
        endpoints.filter_map(move |endpoint| self.candidate(endpoint, left_out, dialled))
    }

    /// The endpoint with its distance, if it may be taken. All others but `dialled` are far, if there is one.
    fn candidate(
        &self,
        endpoint: &'a Endpoint,
        left_out: LeftOut<'_>,
        dialled: Option<IpAddr>,
    ) -> Option<(u8, Candidate<'a>)> {
        let Balancing { local_only, preference, .. } = self.service.balancing;
        if !self.is_in_subset(endpoint) {
            return None;
        }
        let target = endpoint.target_port(self.port)?;
        let address = address_like(endpoint, self.like)?;
        let candidate = SocketAddr::new(address, target);
        if left_out.contains(candidate)
            || (local_only && endpoint.node != self.caller.workload.node)
        {
            return None;
        }
        // An address of the other family may be unreachable, so it ranks after all others of the same distance.
        let other_family = address.is_ipv4() != self.like.ip().to_canonical().is_ipv4();
        let distance = 2 * distance(preference, self.caller.workload, endpoint);
        let other_than_dialled = dialled.is_some_and(|dialled| dialled != address);
        let far = if other_than_dialled { FAR } else { 0 };
        Some((far + distance + u8::from(other_family), (endpoint, candidate)))
    }

    fn is_in_subset(&self, endpoint: &Endpoint) -> bool {
        self.caller.subset.is_none_or(|subset| subset.has(&endpoint.subsets))
    }

    fn policy(&self) -> Option<(&'a Balancer, &'a Destination)> {
        self.destination.and_then(|destination| Some((destination.balancer()?, destination)))
    }

    fn rank(&self, (endpoint, candidate): Candidate<'_>) -> Rank {
        let even = match self.service.balancing.weighted {
            true => Rank::Share(endpoint.weight),
            false => Rank::Equal,
        };
        match self.policy().map(|(balancer, _)| balancer) {
            None if self.service.balancing.sticky => {
                Rank::Score(score(self.caller.address, candidate.ip()))
            }
            None | Some(Balancer::LeastRequest | Balancer::Passthrough) => even,
            // In turn, the weights are looked at in a second pass.
            Some(Balancer::Random | Balancer::RoundRobin) => Rank::Share(endpoint.weight),
            Some(Balancer::Hash(property)) => match self.caller.key(property) {
                Some(key) => Rank::Score(weighted_score(key, candidate, endpoint.weight)),
                None => even,
            },
        }
    }

    /// The nearest endpoint whose turn it is, by their weights.
    fn in_turn(
        &self,
        destination: &Destination,
        nearest: &Nearest<'_>,
        permitted: impl Fn(&Endpoint) -> bool,
        left_out: LeftOut<'_>,
    ) -> Option<Candidate<'a>> {
        let mut left = destination.place_of_turn(nearest.seen, nearest.weight)?;
        let candidates = self.candidates(permitted, left_out);
        let candidates = candidates.filter(|(distance, _)| *distance == nearest.distance);
        for (_, candidate) in candidates {
            let share = u64::from(candidate.0.weight.max(1));
            if left < share {
                return Some(candidate);
            }
            left -= share;
        }
        None
    }

    /// Ready endpoints of the port, whether they are ejected or not.
    fn pool(&self) -> u32 {
        let ready = self.service.endpoints.iter().filter(|endpoint| endpoint.ready);
        let serving =
            ready.filter(|it| self.is_in_subset(it) && it.target_port(self.port).is_some());
        u32::try_from(serving.count()).unwrap_or(u32::MAX)
    }

    fn may_leave_out(&self, ejected: &Ejected, pool: u32) -> bool {
        let count = ejected.endpoints().count();
        self.destination.is_some_and(|destination| destination.may_leave_out(count, pool))
    }

    /// Where nothing else is left, even one that is ejected, unless the policy may eject all.
    fn last_of(
        &self,
        permitted: impl Fn(&Endpoint) -> bool,
        left_out: LeftOut<'_>,
    ) -> Option<Candidate<'a>> {
        left_out.ejected?;
        self.destination.filter(|destination| !destination.may_eject_all())?;
        let left_out = LeftOut { ejected: None, ..left_out };
        self.among(&permitted, left_out).or_else(|| self.among(&permitted, LeftOut::default()))
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

/// 0 is nearest. Unknown is far.
fn distance(preference: Preference, caller: &Workload, endpoint: &Endpoint) -> u8 {
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

/// The same for any key, by weight: the endpoint with the highest score gets the share of keys that its weight is of all.
fn weighted_score(key: u64, endpoint: SocketAddr, weight: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, endpoint).hash(&mut hasher);
    // Between 0 and 1, neither of them included.
    let uniform = ((hasher.finish() >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    let score = f64::from(weight.max(1)) / -uniform.ln();
    // Positive numbers have the order of their bits.
    score.to_bits()
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
fn address_like(endpoint: &Endpoint, like: SocketAddr) -> Option<IpAddr> {
    let like = like.ip().to_canonical();
    let same = |address: &IpAddr| address.is_ipv4() == like.is_ipv4();
    let mut addresses = endpoint.addresses.iter().map(IpAddr::to_canonical);
    addresses.clone().find(same).or_else(|| addresses.next())
}
