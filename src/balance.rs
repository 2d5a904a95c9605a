//! Which endpoint: of the nearest that the service wants, two at random, and the less busy one wins (least request, as
//! Envoy's default), over one snapshot and its load counters. It connects to nothing; its callers say how their attempt ended ([`Picked::ended`]).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::base::{Str, ports};
use crate::model::{Endpoint, Preference, Resolution, Service, TrafficPolicy, Workload};
use crate::world::{InFlight, World};

/// An endpoint that was chosen; counts as busy until dropped.
#[derive(Debug)]
pub struct Picked {
    /// The endpoint's own address and target port.
    pub address: SocketAddr,
    pub workload: Option<Arc<Workload>>,
    pub in_flight: Option<InFlight>,
}

/// How an attempt at an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It took the connection, or answered the request.
    Served,
    /// It was not reached; nothing was sent.
    Unreached,
    /// A connection that had rested was closed before it took the request; nothing was sent.
    Stale,
    /// The destination refuses the client, as any other endpoint of the service would.
    Denied,
    /// Something may have been sent, and no response came.
    Broken,
    /// Something may have been sent, and no response came in time.
    TimedOut,
}

impl Ended {
    /// Certainly nothing was sent, and nobody has decided: another endpoint may be tried.
    pub fn may_go_on(self) -> bool {
        matches!(self, Self::Unreached | Self::Stale)
    }
}

impl Picked {
    /// Where a client dialled without a choice; it is not counted as busy.
    pub fn dialled(address: SocketAddr, workload: Option<Arc<Workload>>) -> Self {
        Self { address, workload, in_flight: None }
    }

    /// In the mesh: reached by HBONE only, never in the clear, and judged on its own node.
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

    /// The one place that hears how every attempt at an endpoint ended. One that served stays busy until this is dropped.
    /// An attempt that is dropped before its end was given up by the client, and says nothing about the endpoint.
    pub fn ended(&mut self, how: Ended) {
        if how != Ended::Served {
            tracing::debug!(endpoint = %self.address, ended = ?how, "an attempt failed");
            self.in_flight = None;
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Its node and locality decide which endpoints are near.
    pub workload: &'a Workload,
    /// Decides which endpoint a sticky service gives it.
    pub address: IpAddr,
}

/// A ready endpoint that serves `port` and is not in `avoid` (unless all are), as near to the caller as the service
/// wants it. Where none is ready, one that is being deleted and still serves. `like` was dialled: it gives the preferred
/// family, and is the endpoint itself where the service says so.
pub fn pick(
    world: &World,
    service: &Service,
    port: u16,
    caller: Caller<'_>,
    like: SocketAddr,
    avoid: &[SocketAddr],
) -> Option<Picked> {
    if service.resolution == Resolution::Dialled {
        // Not what another service's address was dialled for.
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

/// An address without a name to it may be a workload's all the same, and then the mesh leads there.
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
    let node = match service.traffic.local_only {
        true => format!(" on node {} (internalTrafficPolicy is Local)", caller.node),
        false => String::new(),
    };
    format!("{service} has no ready endpoint on port {port}{node}")
}

/// What is asked for.
struct Choice<'a, 'c> {
    world: &'a World,
    service: &'a Service,
    port: u16,
    caller: Caller<'c>,
    like: SocketAddr,
}

type Candidate<'a> = (&'a Endpoint, SocketAddr);

/// The candidates of the nearest distance so far.
#[derive(Default)]
struct Nearest<'a> {
    distance: u8,
    seen: usize,
    kept: [Option<Candidate<'a>>; 2],
    /// For a sticky service: the highest score.
    score: u64,
    /// For endpoints with shares: what those so far have together.
    weight: u64,
}

/// How a candidate is compared with others of the same distance.
enum Rank {
    /// The highest wins.
    Score(u64),
    /// One is drawn, with this share of the chance: what operators say of shares is kept exactly, so it is not mixed
    /// with which of two is less busy.
    Share(u32),
    /// Two are drawn, and the less busy wins.
    Equal,
}

impl<'a> Choice<'a, '_> {
    /// One pass: keeps two candidates by reservoir sampling, so that nothing is collected.
    fn among(
        &self,
        permitted: impl Fn(&Endpoint) -> bool,
        avoid: &[SocketAddr],
    ) -> Option<Candidate<'a>> {
        let traffic = &self.service.traffic;
        let mut nearest = Nearest { distance: u8::MAX, ..Nearest::default() };
        for endpoint in self.service.endpoints.iter().filter(|endpoint| permitted(endpoint)) {
            let Some(target) = endpoint.target_port(self.port) else { continue };
            let Some(address) = address_like(endpoint, self.like) else { continue };
            let candidate = SocketAddr::new(address, target);
            if avoid.contains(&candidate)
                || (traffic.local_only && endpoint.node != self.caller.workload.node)
            {
                continue;
            }
            // An address of the other family may well lead nowhere, so it comes after all of the same distance.
            let other_family = address.is_ipv4() != self.like.ip().to_canonical().is_ipv4();
            nearest.offer(
                2 * distance(traffic.preference, self.caller.workload, endpoint)
                    + u8::from(other_family),
                (endpoint, candidate),
                match traffic {
                    TrafficPolicy { sticky: true, .. } => {
                        Rank::Score(score(self.caller.address, address))
                    }
                    TrafficPolicy { weighted: true, .. } => Rank::Share(endpoint.weight),
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

/// 0 is nearest. What is not known is far.
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

/// Highest random weight (rendezvous hashing): an endpoint that comes or goes moves only its own clients, and every
/// agent chooses alike, also after a restart.
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
        // Two that are equally busy must share evenly, wherever they stand in the list.
        std::cmp::Ordering::Equal if fastrand::bool() => one,
        std::cmp::Ordering::Equal => other,
    }
}

/// The endpoint's address of the family that the client used, else its first. An IPv4 address that is written as IPv6 leads
/// to the same workload, so it is that address.
fn address_like(endpoint: &Endpoint, like: SocketAddr) -> Option<IpAddr> {
    let like = like.ip().to_canonical();
    let same = |address: &IpAddr| address.is_ipv4() == like.is_ipv4();
    let mut addresses = endpoint.addresses.iter().map(IpAddr::to_canonical);
    addresses.clone().find(same).or_else(|| addresses.next())
}

#[cfg(test)]
mod tests;
