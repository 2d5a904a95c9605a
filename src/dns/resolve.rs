//! What is answered for a name: pure over one snapshot (reference 1.11).

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::{DNSClass, RecordType};

use crate::model::Service;
use crate::world::World;

/// What to do with a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// The mesh knows the name: these addresses, which may be none (NODATA).
    Addresses(Vec<IpAddr>),
    /// The mesh knows the name and not this kind of record; upstream may. That it knows no such name is no answer.
    ForwardKnown,
    Forward,
}

/// `name`: as asked, with or without the last dot. `namespace`: the client's, which short names belong to.
pub(super) fn resolve(
    world: &World,
    namespace: &str,
    cluster_domain: &str,
    (name, kind, class): (&str, RecordType, DNSClass),
) -> Resolution {
    let known = match class {
        DNSClass::IN => find(world, namespace, cluster_domain, name),
        _ => None,
    };
    let Some(service) = known else { return Resolution::Forward };
    let wanted: fn(&IpAddr) -> bool = match kind {
        RecordType::A => IpAddr::is_ipv4,
        RecordType::AAAA => IpAddr::is_ipv6,
        _ => return Resolution::ForwardKnown,
    };
    Resolution::Addresses(addresses(service).into_iter().filter(wanted).collect())
}

/// The full name, or one that the search path of Kubernetes makes full: `name`, `name.namespace`,
/// `name.namespace.svc`. Programs outside of Kubernetes have no such search path and ask for the short name itself.
fn find<'a>(
    world: &'a World,
    namespace: &str,
    cluster_domain: &str,
    name: &str,
) -> Option<&'a Arc<Service>> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if let Some(service) = world.service_named(&name) {
        return Some(service);
    }
    let full = match name.split('.').collect::<Vec<_>>().as_slice() {
        [service] if !service.is_empty() => format!("{service}.{namespace}.svc.{cluster_domain}"),
        [_, _] => format!("{name}.svc.{cluster_domain}"),
        [_, _, "svc"] => format!("{name}.{cluster_domain}"),
        _ => return None,
    };
    world.service_named(&full)
}

/// Virtual addresses; of a headless service those of its ready endpoints.
fn addresses(service: &Service) -> Vec<IpAddr> {
    if !service.vips.is_empty() {
        return service.vips.clone();
    }
    let ready = service.endpoints.iter().filter(|endpoint| endpoint.ready);
    ready.flat_map(|endpoint| endpoint.addresses.iter().copied()).collect()
}
