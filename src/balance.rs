//! Which endpoint: two at random, the less busy one wins (least request, as Envoy's default), over one snapshot and
//! its load counters. It connects to nothing; whoever was given an endpoint reports the end by dropping it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::model::{Endpoint, Service, Workload};
use crate::world::{InFlight, World};

/// An endpoint that was chosen; counts as busy until dropped.
#[derive(Debug)]
pub struct Picked {
    /// The endpoint's own address and target port.
    pub address: SocketAddr,
    pub workload: Option<Arc<Workload>>,
    pub in_flight: Option<InFlight>,
}

/// A ready endpoint that serves `port` and is not in `avoid` (unless all are). `like` gives the preferred family.
pub fn pick(
    world: &World,
    service: &Service,
    port: u16,
    like: SocketAddr,
    avoid: &[SocketAddr],
) -> Option<Picked> {
    let (endpoint, address) = choose(world, service, port, like, avoid)
        .or_else(|| choose(world, service, port, like, &[]))?;
    let workload = endpoint.workload.as_ref().and_then(|uid| world.workload(uid)).cloned();
    let load = world.load_of(endpoint.workload.as_ref(), address.ip());
    Some(Picked { address, workload, in_flight: load.map(|load| load.begin()) })
}

/// One pass: keeps two candidates by reservoir sampling, so that nothing is collected.
fn choose<'a>(
    world: &World,
    service: &'a Service,
    port: u16,
    like: SocketAddr,
    avoid: &[SocketAddr],
) -> Option<(&'a Endpoint, SocketAddr)> {
    let mut kept: [Option<(&Endpoint, SocketAddr)>; 2] = [None, None];
    let mut seen = 0;
    for endpoint in service.endpoints.iter().filter(|endpoint| endpoint.ready) {
        let Some(target) = endpoint.target_port(port) else { continue };
        let Some(address) = address_like(endpoint, like) else { continue };
        let candidate = SocketAddr::new(address, target);
        if avoid.contains(&candidate) {
            continue;
        }
        let place = if seen < kept.len() { seen } else { fastrand::usize(..=seen) };
        if let Some(slot) = kept.get_mut(place) {
            *slot = Some((endpoint, candidate));
        }
        seen += 1;
    }
    match kept {
        [Some(one), Some(other)] => Some(less_busy(world, one, other)),
        [one, other] => one.or(other),
    }
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

/// The endpoint's address of the family that the client used, else its first.
fn address_like(endpoint: &Endpoint, like: SocketAddr) -> Option<IpAddr> {
    let same = |address: &&IpAddr| address.is_ipv4() == like.is_ipv4();
    endpoint.addresses.iter().find(same).or_else(|| endpoint.addresses.first()).copied()
}

#[cfg(test)]
mod tests;
