//! The endpoint of a session, as tokens tell it: a hash that every agent computes alike, and that names no address.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use crate::base::ObjectKey;
use crate::model::{Endpoint, Service};
use crate::traffic::Subset;

/// The ready endpoint that this hash is of. A client may send any: it selects among the service's own endpoints.
pub(super) fn endpoint(service: &Service, session: u64) -> Option<&Endpoint> {
    let mut ready = service.endpoints.iter().filter(|endpoint| endpoint.ready);
    ready.find(|endpoint| is_at(service, endpoint, session))
}

/// Whether the session is at this endpoint.
pub(super) fn is_at(service: &Service, endpoint: &Endpoint, session: u64) -> bool {
    hash(&service.key, endpoint) == session
}

/// Whether the service, or this subset of it, has the endpoint of this session.
pub fn has_session(service: &Service, subset: Option<&Subset>, session: u64) -> bool {
    let found = endpoint(service, session);
    found.is_some_and(|endpoint| subset.is_none_or(|subset| subset.has(&endpoint.subsets)))
}

/// What a session at the endpoint with this address is told as.
pub fn session_of(service: &Service, port: u16, address: SocketAddr) -> Option<u64> {
    let is_it = |endpoint: &&Endpoint| {
        endpoint.target_port(port) == Some(address.port())
            && endpoint.addresses.iter().any(|it| it.to_canonical() == address.ip())
    };
    service.endpoints.iter().find(is_it).map(|endpoint| hash(&service.key, endpoint))
}

/// The same for all ports and both families of an endpoint.
fn hash(service: &ObjectKey, endpoint: &Endpoint) -> u64 {
    let mut hasher = DefaultHasher::new();
    (service, &endpoint.workload, endpoint.addresses.first()).hash(&mut hasher);
    let ports = endpoint.ports.iter().map(|mapping| (mapping.port, mapping.target));
    ports.for_each(|ports| ports.hash(&mut hasher));
    hasher.finish()
}
