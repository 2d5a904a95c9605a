//! Endpoint selection: power of two choices (least request, Envoy's default) among the nearest eligible endpoints, over
//! one snapshot and its load counters. This room opens no connection; its callers report how each attempt ended
//! ([`Picked::ended`]).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::base::{Str, ports};
use crate::model::{Balancing, Endpoint, Preference, Resolution, Service, Workload};
use crate::world::{InFlight, World};

/// A selected endpoint; counts as a request in flight until dropped.
#[derive(Debug)]
pub struct Picked {
    /// The endpoint's own address and target port.
    pub address: SocketAddr,
    pub workload: Option<Arc<Workload>>,
    pub in_flight: Option<InFlight>,
}

/// The result of an attempt at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It accepted the connection, or answered the request.
    Served,
    /// It was not reached; nothing was sent.
    Unreached,
    /// A pooled connection was closed while idle, before it took the request; nothing was sent.
    Stale,
    /// The destination denies the client, as any other endpoint of the service would.
    Denied,
    /// Something may have been sent, and no response came.
    Broken,
    /// Something may have been sent, and no response came in time.
    TimedOut,
}

impl Ended {
    /// Nothing was sent, and the destination has not decided: another endpoint may be tried.
    pub fn may_go_on(self) -> bool {
        matches!(self, Self::Unreached | Self::Stale)
    }
}

impl Picked {
    /// The address that a client dialled without load balancing; it does not count as a request in flight.
    pub fn dialled(address: SocketAddr, workload: Option<Arc<Workload>>) -> Self {
        Self { address, workload, in_flight: None }
    }

    /// In the mesh: reached by HBONE only, never in plaintext, and authorized on its own node.
    pub fn captured(&self) -> Option<&Arc<Workload>> {
        self.workload.as_ref().filter(|workload| workload.is_captured())
    }

    /// The address that is dialled on the wire.
    pub fn wire_address(&self) -> SocketAddr {
        match self.captured() {
            Some(_) => SocketAddr::new(self.address.ip(), ports::HBONE),
            None => self.address,
        }
    }

    /// The one place that receives the result of every attempt at an endpoint. A successful one counts as in flight
    /// until this is dropped. An attempt that is dropped before its end was abandoned by the client, and says nothing
    /// about the endpoint.
    pub fn ended(&mut self, how: Ended) {
        if how != Ended::Served {
            tracing::debug!(endpoint = %self.address, ended = ?how, "an attempt failed");
            self.in_flight = None;
        }
    }
}

/// The client.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Its node and locality decide which endpoints are near.
    pub workload: &'a Workload,
    /// Selects the endpoint of a service with session affinity.
    pub address: IpAddr,
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
    if service.resolution == Resolution::Dialled {
        // Do not use an address that was dialled for another service.
        let own = service.owns(like.ip().to_canonical());
        return own.then(|| picked(world, None, sock_address(like)));
    }
    let choice = Choice { world, service, port, caller, like };
    let ready = |endpoint: &Endpoint| endpoint.ready;
    let terminating = |endpoint: &Endpoint| endpoint.terminating;
    let (endpoint, address) = choice
        .among(ready, avoid)
        .or_else(|| choice.among(ready, &[]))
        .or_else(|| choice.among(terminating, avoid))
        .or_else(|| choice.among(terminating, &[]))?;
    Some(picked(world, endpoint.workload.as_ref(), address))
}

/// An address without a named workload may still be a workload's; then the mesh carries the traffic.
fn picked(world: &World, workload: Option<&Str>, address: SocketAddr) -> Picked {
    let load = world.load_of(workload, address.ip());
    let workload = match workload {
        Some(uid) => world.workload(uid),
        None => world.workload_at(address.ip()),
    };
    Picked { address, workload: workload.cloned(), in_flight: load.map(|load| load.begin()) }
}

fn sock_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Why there is no endpoint, for the log.
pub fn nobody(service: &Service, port: u16, caller: &Workload) -> String {
    let node = match service.balancing.local_only {
        true => format!(" on node {} (internalTrafficPolicy is Local)", caller.node),
        false => String::new(),
    };
    format!("{service} has no ready endpoint on port {port}{node}")
}

/// The request for an endpoint.
struct Choice<'a, 'c> {
    world: &'a World,
    service: &'a Service,
    port: u16,
    caller: Caller<'c>,
    like: SocketAddr,
}

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
    /// One pass: reservoir sampling keeps two candidates, so nothing is collected.
    fn among(
        &self,
        permitted: impl Fn(&Endpoint) -> bool,
        avoid: &[SocketAddr],
    ) -> Option<Candidate<'a>> {
        let balancing = &self.service.balancing;
        let mut nearest = Nearest { distance: u8::MAX, ..Nearest::default() };
        for endpoint in self.service.endpoints.iter().filter(|endpoint| permitted(endpoint)) {
            let Some(target) = endpoint.target_port(self.port) else { continue };
            let Some(address) = address_like(endpoint, self.like) else { continue };
            let candidate = SocketAddr::new(address, target);
            if avoid.contains(&candidate)
                || (balancing.local_only && endpoint.node != self.caller.workload.node)
            {
                continue;
            }
            // An address of the other family may be unreachable, so it ranks after all others of the same distance.
            let other_family = address.is_ipv4() != self.like.ip().to_canonical().is_ipv4();
            nearest.offer(
                2 * distance(balancing.preference, self.caller.workload, endpoint)
                    + u8::from(other_family),
                (endpoint, candidate),
                match balancing {
                    Balancing { sticky: true, .. } => {
                        Rank::Score(score(self.caller.address, address))
                    }
                    Balancing { weighted: true, .. } => Rank::Share(endpoint.weight),
                    _ => Rank::Equal,
                },
            );
        }
        match nearest.kept {
            [Some(one), Some(other)] => Some(less_busy(self.world, one, other)),
            [one, other] => one.or(other),
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

#[cfg(test)]
mod tests;
