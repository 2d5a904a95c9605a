//! The answer for a name: pure over one snapshot.
//!
//! SRV queries for ports of Services are answered as Kubernetes DNS would (its DNS specification, 2.3.2 and 2.4.2), but
//! only if there is no cluster DNS. On a cluster its server knows more, so the query is forwarded.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::{DNSClass, RecordType};

use crate::base::Str;
use crate::model::{self, Endpoint, Service, ServicePort};
use crate::world::World;

/// The decision on a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// The mesh knows the name: its addresses, possibly none (NODATA).
    Addresses {
        addresses: Vec<IpAddr>,
        /// The name without the search domain that the client's C library appended; a CNAME maps one to the other.
        canonical: Option<String>,
    },
    /// An SRV query for the port of a Service: where it is served.
    Places {
        places: Vec<Place>,
        canonical: Option<String>,
    },
    /// The mesh knows the name but not this record type; upstream may. Upstream's NXDOMAIN is not an answer.
    ForwardKnown,
    Forward,
}

/// The content of an SRV record, and the addresses of its target.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) port: u16,
    /// With the trailing dot.
    pub(super) target: String,
    pub(super) addresses: Vec<IpAddr>,
}

/// The snapshot and the client of a query.
pub(super) struct Asker<'a> {
    pub(super) world: &'a World,
    /// The client's namespace, which resolves short names.
    pub(super) namespace: &'a str,
    pub(super) cluster_domain: &'a str,
    /// No other DNS server knows the Services.
    pub(super) alone: bool,
}

/// A name that the mesh knows.
struct Found<'a> {
    service: &'a Arc<Service>,
    /// One endpoint of a headless service instead of all.
    endpoint: Option<Named>,
    canonical: Option<String>,
}

/// The name of an endpoint of a headless service.
enum Named {
    /// The pod's hostname, as StatefulSets set it.
    Host(Str),
    /// Its address, as Kubernetes DNS does for pods without a hostname: `10-0-0-1`.
    Address(IpAddr),
}

impl<'a> Found<'a> {
    fn service(service: &'a Arc<Service>) -> Self {
        Found { service, endpoint: None, canonical: None }
    }

    fn is_asked(&self, endpoint: &Endpoint) -> bool {
        self.endpoint.as_ref().is_none_or(|named| match named {
            Named::Host(name) => endpoint.hostname.as_ref() == Some(name),
            Named::Address(address) => endpoint.addresses.contains(address),
        })
    }
}

/// `name`: as queried, with or without the trailing dot.
pub(super) fn resolve(
    asker: &Asker<'_>,
    (name, kind, class): (&str, RecordType, DNSClass),
) -> Resolution {
    let &Asker { world, namespace, cluster_domain, alone } = asker;
    if (kind, class) == (RecordType::SRV, DNSClass::IN) && alone && name.starts_with('_') {
        return places(asker, name);
    }
    let known = match class {
        DNSClass::IN => find(world, namespace, cluster_domain, name),
        _ => None,
    };
    let Some(found) = known else { return Resolution::Forward };
    let Some(mut addresses) = addresses(&found) else { return Resolution::Forward };
    let is_dynamic = found.service.resolution == model::Resolution::Dynamic;
    let canonical = found.canonical;
    let wanted: fn(&IpAddr) -> bool = match kind {
        RecordType::A => IpAddr::is_ipv4,
        RecordType::AAAA => IpAddr::is_ipv6,
        // What its servers say of themselves would lead clients to addresses of their own, past the entry, and have them hide the
        // server's name in TLS.
        RecordType::HTTPS | RecordType::SVCB if is_dynamic => |_| false,
        _ if canonical.is_some() => return Resolution::Forward,
        _ => return Resolution::ForwardKnown,
    };
    addresses.retain(wanted);
    // Clients that use the first address must not all use the same one.
    fastrand::shuffle(&mut addresses);
    Resolution::Addresses { addresses, canonical }
}

/// `_port._tcp.` before the name of a Service.
fn places(asker: &Asker<'_>, name: &str) -> Resolution {
    let mut labels = name.splitn(3, '.');
    let mut part = || labels.next().and_then(|label| label.strip_prefix('_'));
    let (port, protocol) = (part(), part());
    let (Some(port), Some(protocol), Some(rest)) = (port, protocol, labels.next()) else {
        return Resolution::Forward;
    };
    let found = find(asker.world, asker.namespace, asker.cluster_domain, rest);
    let Some(found) = found.filter(|it| it.service.entry.is_none() && it.endpoint.is_none()) else {
        return Resolution::Forward;
    };
    let service = found.service;
    let named = |it: &&ServicePort| it.name.eq_ignore_ascii_case(port) && !port.is_empty();
    let asked = service.ports.iter().find(named);
    let Some(asked) = asked.filter(|_| protocol.eq_ignore_ascii_case("tcp")) else {
        return Resolution::ForwardKnown;
    };
    let places = match service.vips.is_empty() {
        false => {
            let (port, addresses) = (asked.port, service.vips.clone());
            vec![Place { port, target: format!("{}.", service.hostname), addresses }]
        }
        true => service.endpoints.iter().filter_map(|it| place_of(service, it, asked)).collect(),
    };
    let canonical = found.canonical.map(|name| format!("_{port}._{protocol}.{name}"));
    Resolution::Places { places, canonical }
}

/// An endpoint of a headless service, by its own name.
fn place_of(service: &Service, endpoint: &Endpoint, asked: &ServicePort) -> Option<Place> {
    let port = endpoint.target_port(asked.port).filter(|_| endpoint.ready)?;
    let name = match &endpoint.hostname {
        Some(name) => name.to_string(),
        None => dashed(*endpoint.addresses.first()?),
    };
    let target = format!("{name}.{}.", service.hostname);
    Some(Place { port, target, addresses: endpoint.addresses.clone() })
}

fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// Resolves in this order: the exact name; an endpoint of a headless service (`db-0.db`); a name that the search path
/// of Kubernetes would complete (`name`, `name.namespace`, `name.namespace.svc`: programs outside Kubernetes have no
/// such search path and query the short name); a complete name to which the search path was appended (Kubernetes does
/// so for names with fewer than five dots); a wildcard.
fn find<'a>(
    world: &'a World,
    namespace: &str,
    cluster_domain: &str,
    name: &str,
) -> Option<Found<'a>> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let exact = |name: &str| world.service_known_as(name, namespace);
    let made_full = || exact(&full(&name, namespace, cluster_domain)?);
    // Entries of other namespaces must not take a short name of a Service.
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
        && let Some(endpoint) = endpoint_in(service, hostname)
    {
        return Some(Found { endpoint: Some(endpoint), ..Found::service(service) });
    }
    for domain in search_domains(namespace, cluster_domain) {
        let Some(bare) = name.strip_suffix(&domain).and_then(|rest| rest.strip_suffix('.')) else {
            continue;
        };
        // A single label is a short name, not a host.
        let found = exact(bare).or_else(|| world.wildcard_for(bare, namespace));
        if let Some(service) = found.filter(|_| bare.contains('.')) {
            return Some(Found { canonical: Some(format!("{bare}.")), ..Found::service(service) });
        }
    }
    world.wildcard_for(&name, namespace).map(Found::service)
}

/// The endpoint of a headless service with this name.
fn endpoint_in(service: &Service, wanted: &str) -> Option<Named> {
    let headless = service.entry.is_none() && service.vips.is_empty();
    let mut endpoints = service.endpoints.iter().filter(|_| headless);
    endpoints.find_map(|endpoint| match &endpoint.hostname {
        Some(name) => (*name == wanted).then(|| Named::Host(name.clone())),
        None => {
            let address = endpoint.addresses.first()?;
            (dashed(*address) == wanted).then_some(Named::Address(*address))
        }
    })
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

/// The search path that a kubelet writes into resolv.conf, in its order.
fn search_domains(namespace: &str, cluster_domain: &str) -> [String; 3] {
    [
        format!("{namespace}.svc.{cluster_domain}"),
        format!("svc.{cluster_domain}"),
        cluster_domain.to_owned(),
    ]
}

/// Virtual addresses; for a service without one, those of its ready endpoints. `None` if only upstream knows: an entry
/// without an address, whose endpoints have names or are the dialled address.
fn addresses(found: &Found<'_>) -> Option<Vec<IpAddr>> {
    let service = found.service;
    if !service.vips.is_empty() {
        return Some(service.vips.clone());
    }
    if service.resolution != model::Resolution::Listed {
        return None;
    }
    let ready = service.endpoints.iter().filter(|it| it.ready && found.is_asked(it));
    Some(ready.flat_map(|endpoint| endpoint.addresses.iter().copied()).collect())
}
