//! What is answered for a name: pure over one snapshot (reference 1.11).

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::{DNSClass, RecordType};

use crate::base::Str;
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
    /// One endpoint of a headless service rather than all: the pod of a StatefulSet.
    hostname: Option<&'a Str>,
    canonical: Option<String>,
}

impl<'a> Found<'a> {
    fn service(service: &'a Arc<Service>) -> Self {
        Found { service, hostname: None, canonical: None }
    }
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
    let Some(found) = known else { return Resolution::Forward };
    let Some(mut addresses) = addresses(&found) else { return Resolution::Forward };
    let canonical = found.canonical;
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

/// The very name; an endpoint's of a headless service (`db-0.db`); one that the search path of Kubernetes makes full (`name`, `name.namespace`, `name.namespace.svc`: programs
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
    // A short name of a Service is not for entries of other namespaces to take.
    let of_others =
        |service: &&Arc<Service>| service.entry.is_some() && service.key.namespace != namespace;
    let found = match exact(&name) {
        Some(other) if of_others(&other) => {
            made_full().filter(|service| service.entry.is_none()).or(Some(other))
        }
        found => found.or_else(made_full),
    };
    if let Some(service) = found {
        return Some(Found::service(service));
    }
    if let Some((hostname, rest)) = name.split_once('.')
        && let Some(service) =
            exact(rest).or_else(|| exact(&full(rest, namespace, cluster_domain)?))
        && let Some(hostname) = hostname_in(service, hostname)
    {
        return Some(Found { hostname: Some(hostname), ..Found::service(service) });
    }
    for domain in search_domains(namespace, cluster_domain) {
        let Some(bare) = name.strip_suffix(&domain).and_then(|rest| rest.strip_suffix('.')) else {
            continue;
        };
        // A bare word is somebody's short name and not a host.
        let found = exact(bare).or_else(|| world.wildcard_for(bare, namespace));
        if let Some(service) = found.filter(|_| bare.contains('.')) {
            return Some(Found { canonical: Some(format!("{bare}.")), ..Found::service(service) });
        }
    }
    world.wildcard_for(&name, namespace).map(Found::service)
}

/// The name that an endpoint of a headless service has of its own.
fn hostname_in<'a>(service: &'a Service, wanted: &str) -> Option<&'a Str> {
    let headless = service.entry.is_none() && service.vips.is_empty();
    let mut names = service.endpoints.iter().filter_map(|endpoint| endpoint.hostname.as_ref());
    names.find(|name| headless && name.as_str() == wanted)
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
fn addresses(found: &Found<'_>) -> Option<Vec<IpAddr>> {
    let service = found.service;
    if !service.vips.is_empty() {
        return Some(service.vips.clone());
    }
    if service.resolution != model::Resolution::Listed {
        return None;
    }
    let ready = service.endpoints.iter().filter(|endpoint| {
        let asked = found.hostname.is_none_or(|name| endpoint.hostname.as_ref() == Some(name));
        endpoint.ready && asked
    });
    Some(ready.flat_map(|endpoint| endpoint.addresses.iter().copied()).collect())
}
