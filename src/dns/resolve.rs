//! What is answered for a name: pure over one snapshot (reference 1.11).

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::{DNSClass, RecordType};

use crate::model::{self, Service};
use crate::world::World;

/// What to do with a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// The mesh knows the name: these addresses, which may be none (NODATA).
    Addresses {
        addresses: Vec<IpAddr>,
        /// The name without the search domain that the client's C library put behind it: a CNAME tells it.
        canonical: Option<String>,
    },
    /// The mesh knows the name and not this kind of record; upstream may. That it knows no such name is no answer.
    ForwardKnown,
    Forward,
}

/// A name that the mesh knows.
struct Found<'a> {
    service: &'a Arc<Service>,
    canonical: Option<String>,
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
    let Some(Found { service, canonical }) = known else { return Resolution::Forward };
    let Some(mut addresses) = addresses(service) else { return Resolution::Forward };
    let wanted: fn(&IpAddr) -> bool = match kind {
        RecordType::A => IpAddr::is_ipv4,
        RecordType::AAAA => IpAddr::is_ipv6,
        _ if canonical.is_some() => return Resolution::Forward,
        _ => return Resolution::ForwardKnown,
    };
    addresses.retain(wanted);
    // Clients that take the first must not all take the same.
    fastrand::shuffle(&mut addresses);
    Resolution::Addresses { addresses, canonical }
}

/// The very name; one that the search path of Kubernetes makes full (`name`, `name.namespace`, `name.namespace.svc`: programs
/// outside of Kubernetes have no such search path and ask for the short name itself); one that the search path
/// was put behind although it was full (a name with fewer than five dots, in Kubernetes); and at last a wildcard.
fn find<'a>(
    world: &'a World,
    namespace: &str,
    cluster_domain: &str,
    name: &str,
) -> Option<Found<'a>> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let exact = |name: &str| world.service_known_as(name, namespace);
    let made_full = || exact(&full(&name, namespace, cluster_domain)?);
    if let Some(service) = exact(&name).or_else(made_full) {
        return Some(Found { service, canonical: None });
    }
    for domain in search_domains(namespace, cluster_domain) {
        let Some(bare) = name.strip_suffix(&domain).and_then(|rest| rest.strip_suffix('.')) else {
            continue;
        };
        // A bare word is somebody's short name and not a host.
        let found = exact(bare).or_else(|| world.wildcard_for(bare, namespace));
        if let Some(service) = found.filter(|_| bare.contains('.')) {
            return Some(Found { service, canonical: Some(format!("{bare}.")) });
        }
    }
    let service = world.wildcard_for(&name, namespace)?;
    Some(Found { service, canonical: None })
}

fn full(name: &str, namespace: &str, cluster_domain: &str) -> Option<String> {
    match name.split('.').collect::<Vec<_>>().as_slice() {
        [service] if !service.is_empty() => {
            Some(format!("{service}.{namespace}.svc.{cluster_domain}"))
        }
        [_, _] => Some(format!("{name}.svc.{cluster_domain}")),
        [_, _, "svc"] => Some(format!("{name}.{cluster_domain}")),
        _ => None,
    }
}

/// What a kubelet writes into resolv.conf, in its order.
fn search_domains(namespace: &str, cluster_domain: &str) -> [String; 3] {
    [
        format!("{namespace}.svc.{cluster_domain}"),
        format!("svc.{cluster_domain}"),
        cluster_domain.to_owned(),
    ]
}

/// Virtual addresses; of a service without one those of its ready endpoints. `None` where only upstream knows: an entry
/// without an address of its own, whose endpoints have names or are whatever is dialled.
fn addresses(service: &Service) -> Option<Vec<IpAddr>> {
    if !service.vips.is_empty() {
        return Some(service.vips.clone());
    }
    if service.resolution != model::Resolution::Listed {
        return None;
    }
    let ready = service.endpoints.iter().filter(|endpoint| endpoint.ready);
    Some(ready.flat_map(|endpoint| endpoint.addresses.iter().copied()).collect())
}
