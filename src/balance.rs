//! Endpoint selection: power of two choices (least request, Envoy's default) among the nearest eligible endpoints, over
//! one snapshot and its load counters, or as the destination's policy says ([`Balancer`](crate::traffic::Balancer)). Ejected
//! endpoints are left out. This room opens no connection; its callers report how each attempt ended ([`Picked::ended`]).
//!
//! Where no DestinationRule holds, [`plain`] draws from the service's own list. Where one holds, [`select`] draws from a [`table`], which
//! is built once for each snapshot, policy and place of clients.

mod neighbours;
mod picked;
mod plain;
mod select;
mod session;
mod table;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::base::Str;
use crate::model::{Endpoint, Resolution, Service, Viewer, Workload};
use crate::traffic::{self, Destination, HashKey, LocalityPolicy, Subset};
use crate::world::World;
pub use neighbours::neighbours;
pub use picked::{Ended, InUse, Picked};
use plain::Choice;
pub use plain::distance;
use select::Selection;
pub use session::{has_session, session_of};
use table::Build;

/// The client.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Its node and locality decide which endpoints are near.
    pub workload: &'a Workload,
    /// Selects the endpoint of a service with session affinity.
    pub address: IpAddr,
    /// Selects the endpoint where the policy hashes a property of requests.
    pub hash: Option<u64>,
    /// The endpoint of its session, as [`session_of`] tells it. It is taken if it may be.
    pub session: Option<u64>,
    /// Only its endpoints may be taken, and its policies hold.
    pub subset: Option<&'a Subset>,
}

impl Caller<'_> {
    /// What holds for its requests to `port`.
    fn destination<'s>(&'s self, service: &'s Service, port: u16) -> Option<&'s Arc<Destination>> {
        match self.subset {
            None => service.destination(self.workload, port),
            Some(subset) => subset.on(port),
        }
    }

    fn may_take(&self, endpoint: &Endpoint) -> bool {
        self.subset.is_none_or(|subset| subset.has(&endpoint.subsets))
    }

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
    let of_client = caller.destination(service, port);
    if service.resolution == Resolution::Dialled {
        // Do not use an address that was dialled for another service.
        let own = service.owns(like.ip().to_canonical());
        return own.then(|| {
            let picked = picked(world, None, sock_address(like));
            match of_client {
                Some(destination) => picked.under(destination, None),
                None => picked,
            }
        });
    }
    let choice = Choice { world, service, port, caller, like };
    if let Some(destination) = of_client
        && let Some(picked) = select(&choice, destination, avoid)
    {
        return Some(picked);
    }
    let ready = |endpoint: &Endpoint| endpoint.ready && of_client.is_none();
    let terminating = |endpoint: &Endpoint| endpoint.terminating;
    let of_session = caller.session.filter(|_| of_client.is_none());
    let (endpoint, address) = of_session
        .and_then(|session| choice.of_session(session, avoid))
        .or_else(|| choice.among(ready, avoid))
        .or_else(|| choice.among(ready, &[]))
        .or_else(|| choice.among(terminating, avoid))
        .or_else(|| choice.among(terminating, &[]))?;
    let picked = picked(world, endpoint.workload.as_ref(), address);
    Some(match of_client {
        Some(destination) => picked.under(destination, None),
        None => picked,
    })
}

/// A ready endpoint, as the destination's policy says.
fn select(
    choice: &Choice<'_, '_>,
    destination: &Arc<Destination>,
    tried: &[SocketAddr],
) -> Option<Picked> {
    let Choice { world, service, port, caller, like } = *choice;
    let (client, subset) = (caller.workload, caller.subset);
    let labels = subset.and_then(|subset| subset.labels);
    let is_ipv4 = like.ip().to_canonical().is_ipv4();
    let table = service.tables.get(Viewer { port, is_ipv4, destination, labels, client }, || {
        Build { world, service, port, client, subset, like, destination }.table()
    });
    let selection = Selection { service, destination, table: &table, caller, like };
    let (member, attempt) = selection.select(tried)?;
    let endpoint = service.endpoints.get(member.endpoint)?;
    let workload = workload_of(world, endpoint.workload.as_ref(), member.address);
    let picked = Picked::of(member.address, workload, Some(&member.load));
    Some(picked.under(destination, attempt))
}

/// An address without a named workload may still be a workload's; then the mesh carries the traffic.
fn picked(world: &World, workload: Option<&Str>, address: SocketAddr) -> Picked {
    let load = world.load_of(workload, address.ip());
    Picked::of(address, workload_of(world, workload, address), load)
}

fn workload_of(
    world: &World,
    workload: Option<&Str>,
    address: SocketAddr,
) -> Option<Arc<Workload>> {
    let workload = match workload {
        Some(uid) => world.workload(uid),
        None => world.workload_at(address.ip()),
    };
    workload.cloned()
}

fn sock_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Why there is no endpoint, for the log.
pub fn nobody(service: &Service, port: u16, caller: &Caller<'_>) -> String {
    let node = match service.balancing.local_only {
        true => format!(" on node {} (internalTrafficPolicy is Local)", caller.workload.node),
        false => String::new(),
    };
    let destination = caller.destination(service, port);
    let of_subset = if caller.subset.is_some() { " with the labels of the subset" } else { "" };
    let ejected = match destination.and_then(|it| it.ejected()) {
        Some(ejected) => {
            format!("; ejected by outlierDetection: {}", ejected.endpoints().count())
        }
        None => String::new(),
    };
    let places = match destination.and_then(|it| it.locality()) {
        Some(LocalityPolicy::Distribute(_)) => {
            ", or localityLbSetting.distribute gives its places no share of this client's traffic"
        }
        _ => "",
    };
    format!("{service} has no ready endpoint{of_subset} on port {port}{node}{ejected}{places}")
}
