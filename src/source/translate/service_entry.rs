//! ServiceEntries: each host is a service of its own, beside those of Kubernetes (Istio "Service Entry").
//!
//! One host of one namespace means one service: the Service of Kubernetes, or the oldest entry. An entry without an
//! address whose endpoints the mesh knows gets addresses from Istio's ranges, so that DNS has something to answer. Whose clients
//! that holds for is [`visibility`]'s to say.

mod addresses;
mod allot;
mod check;
mod dynamic;
mod endpoints;
mod visibility;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::Context;
use super::frame::Frame;
use super::roster::Roster;
use super::service::{balancing, protocol};
use super::waypoint::{Addressed, Waypoints, takes_ingress};
use crate::base::{ObjectKey, Str, work};
use crate::model::{
    self, Balancing, Binding, Canary, Encryption, Resolution, ServicePort, Tables, Visibility,
};
use crate::source::objects::{ServiceEntry, created, label};
use crate::traffic::Traffic;
use addresses::Addresses;
pub(super) use allot::Allotment;
use allot::Allotments;
pub(super) use check::{meaningless, meaningless_workload};
use endpoints::{Places, Port};
use visibility::Export;
pub(super) use visibility::default_export;

/// `"false"` keeps an entry without addresses as it is.
const AUTO_ALLOCATE: &str = "networking.istio.io/enable-autoallocate-ip";
/// A host name's greatest length, in bytes (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 253;

/// Hosts of one entry. Each is a service in every agent, and one object has room for a hundred thousand names, which take
/// 200 MB and seconds of each translation.
const MAX_HOSTS: usize = 1024;

/// What all hosts of one entry share.
struct Entry<'a> {
    key: &'a ObjectKey,
    object: &'a ServiceEntry,
    resolution: Resolution,
    /// Cannot be carried out, and must not be passed by either: it has no endpoints.
    closed: bool,
    ports: Vec<Port>,
    addresses: Addresses,
    export: Export,
    waypoint: Binding,
    canary: Option<Canary>,
    balancing: Balancing,
}

/// One host of an entry.
struct Host<'a> {
    entry: &'a Entry<'a>,
    name: Str,
    visibility: Visibility,
}

impl Host<'_> {
    fn key(&self) -> ObjectKey {
        let Entry { key, .. } = self.entry;
        ObjectKey::new(key.namespace.clone(), format!("{}/{}", key.name, self.name))
    }

    /// DNS has nothing to answer for it, and would need something.
    fn wants_address(&self) -> bool {
        let Entry { addresses, object, resolution, .. } = self.entry;
        let bare = addresses.exact.is_empty() && addresses.networks.is_empty();
        let permitted = label(&object.metadata, AUTO_ALLOCATE) != Some("false");
        bare && permitted && *resolution != Resolution::Dialled
    }
}

/// `kubernetes`: the services that come before every entry.
pub(super) fn translate(
    cx: &mut Context<'_>,
    frame: &Frame,
    roster: &Roster,
    kubernetes: &[Arc<model::Service>],
) -> Vec<Arc<model::Service>> {
    check::complain_of_workload_entries(cx);
    let objects = cx.objects;
    let mut entries: Vec<_> = objects.all::<ServiceEntry>().collect();
    // The oldest first; one of unknown age, as in a file, counts as the youngest.
    entries.sort_by_key(|(key, entry)| {
        let age = created(&entry.metadata);
        (Reverse(age != 0), age, *key)
    });
    let places = Places::index(objects, (roster, &frame.rules), kubernetes);
    let mut taken: HashMap<(Str, Str), String> = (kubernetes.iter())
        .map(|it| ((it.key.namespace.clone(), it.hostname.clone()), it.to_string()))
        .collect();
    let entries: Vec<Entry<'_>> = (entries.into_iter())
        .filter_map(|(key, object)| entry(cx, &frame.waypoints, key, object))
        .collect();
    let mut wanted = Vec::new();
    for entry in &entries {
        for address in &entry.addresses.exact {
            if let Some(owner) = places.owner(*address) {
                let reason =
                    format!("{address} belongs to {owner}, which keeps what is addressed to it");
                cx.warn::<ServiceEntry>(entry.key, "spec.addresses", reason);
            }
        }
        for (index, name) in hosts(cx, entry.key, entry.object) {
            let id = (entry.key.namespace.clone(), name.clone());
            if let Some(other) = taken.get(&id) {
                let reason = format!("{name} belongs to {other} already; the host is left out");
                cx.warn::<ServiceEntry>(entry.key, format!("spec.hosts[{index}]"), reason);
                continue;
            }
            if let Some(why) = entry.export.withheld(&name) {
                cx.warn::<ServiceEntry>(entry.key, format!("spec.hosts[{index}]"), why);
            }
            let visibility = entry.export.of_host(&name);
            let host = Host { entry, name, visibility };
            taken.insert(id, format!("ServiceEntry {}", host.key()));
            wanted.push(host);
        }
    }
    let services = kubernetes.iter().flat_map(|service| service.vips.iter().copied());
    let allotments = Allotments::of(&wanted, services);
    let models = wanted.into_iter().map(|host| {
        let names = &host.entry.object.spec.subject_alt_names;
        let mut model = service(cx, &places, &allotments, host);
        model.encryption = frame.encryptions.of(&model, names);
        frame.rules.apply(&mut model);
        Arc::new(model)
    });
    models.collect()
}

/// `None` for an entry that cannot be carried out at all.
fn entry<'a>(
    cx: &mut Context<'_>,
    waypoints: &Waypoints,
    key: &'a ObjectKey,
    object: &'a ServiceEntry,
) -> Option<Entry<'a>> {
    let spec = &object.spec;
    let waypoint = waypoints.bind::<ServiceEntry>(cx, key, &object.metadata, Addressed::Service);
    let resolution = match read_resolution(object, &waypoint) {
        Ok(resolution) => Some(resolution),
        Err((field, why)) => {
            let outcome = match waypoint {
                Binding::None => "the entry is not in force",
                // Without the entry its traffic would go where it wants, unguarded.
                _ => "what is addressed to it is refused, since it names a waypoint",
            };
            cx.error::<ServiceEntry>(key, field, format!("{why}; {outcome}"));
            None
        }
    };
    if resolution.is_none() && waypoint == Binding::None {
        return None;
    }
    if spec.hosts.is_empty() {
        cx.error::<ServiceEntry>(key, "spec.hosts", "is empty; the entry is not in force");
        return None;
    }
    check::complain(cx, key, object);
    if resolution == Some(Resolution::Dynamic) {
        dynamic::complain(cx, key, object, &waypoint);
    }
    Some(Entry {
        key,
        object,
        resolution: resolution.unwrap_or_default(),
        closed: resolution.is_none(),
        ports: ports(cx, key, object),
        addresses: addresses::read(cx, key, &spec.addresses),
        export: Export::of(cx, key, object),
        canary: waypoints.canary::<ServiceEntry>(cx, key, &object.metadata, &waypoint),
        waypoint,
        balancing: Balancing {
            preference: balancing::preference::<ServiceEntry>(cx, key, &object.metadata, None),
            races: balancing::races(cx, key, &object.metadata, resolution),
            ..Balancing::default()
        },
    })
}

fn read_resolution(
    object: &ServiceEntry,
    waypoint: &Binding,
) -> Result<Resolution, (&'static str, String)> {
    match object.spec.resolution.as_deref() {
        None | Some("" | "NONE") => Ok(Resolution::Dialled),
        Some("STATIC") => Ok(Resolution::Listed),
        Some("DNS" | "DNS_ROUND_ROBIN") => Ok(Resolution::Names),
        Some(dynamic::DYNAMIC) => dynamic::check(object, *waypoint != Binding::None),
        Some(other) => {
            let why =
                format!("{other:?} is none of NONE, STATIC, DNS, DNS_ROUND_ROBIN and DYNAMIC_DNS");
            Err(("spec.resolution", why))
        }
    }
}

fn is_dynamic(object: &ServiceEntry) -> bool {
    object.spec.resolution.as_deref() == Some(dynamic::DYNAMIC)
}

fn ports(cx: &mut Context<'_>, key: &ObjectKey, object: &ServiceEntry) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for (index, port) in object.spec.ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        if port.protocol.eq_ignore_ascii_case("UDP") {
            let reason = "UDP is not carried by the mesh; the port is left out";
            cx.warn::<ServiceEntry>(key, format!("{field}.protocol"), reason);
            continue;
        }
        let target = port.target_port.unwrap_or(port.number);
        let (Some(number), Some(target)) = (number(port.number), number(target)) else {
            let reason = format!("{} to {target} is no port; it is left out", port.number);
            cx.error::<ServiceEntry>(key, format!("{field}.number"), reason);
            continue;
        };
        if ports.iter().any(|other| other.port.port == number) {
            let reason = format!("{number} stands twice; the first one holds");
            cx.warn::<ServiceEntry>(key, format!("{field}.number"), reason);
            continue;
        }
        let unnamed = dynamic::why_no_name(&port.protocol).filter(|_| is_dynamic(object));
        if let Some(why) = unnamed {
            let reason = format!("{why}; the port is left out");
            cx.error::<ServiceEntry>(key, format!("{field}.protocol"), reason);
            continue;
        }
        if let Some(why) = check::unknown_protocol(&port.protocol) {
            cx.warn::<ServiceEntry>(key, format!("{field}.protocol"), why);
        }
        let said = Some(port.protocol.as_str()).filter(|text| !text.is_empty());
        let protocol = protocol::of_port(said, &port.name, number);
        let port = ServicePort { name: port.name.as_str().into(), port: number, protocol };
        ports.push(Port { port, target });
    }
    ports
}

fn number(port: u32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

/// The hosts that can be names, in lower case, each with its place in the list.
fn hosts(cx: &mut Context<'_>, key: &ObjectKey, object: &ServiceEntry) -> Vec<(usize, Str)> {
    let mut hosts = Vec::new();
    let beyond = object.spec.hosts.len().saturating_sub(MAX_HOSTS);
    if beyond > 0 {
        let reason = format!(
            "has more than {MAX_HOSTS} names; the last {beyond} are left out: make several entries"
        );
        cx.error::<ServiceEntry>(key, "spec.hosts", reason);
    }
    for (index, text) in object.spec.hosts.iter().take(MAX_HOSTS).enumerate() {
        let host = host_name(text).and_then(|host| {
            let why = dynamic::why_no_wildcard(&host).filter(|_| is_dynamic(object));
            why.map_or(Ok(host), Err)
        });
        match host {
            Ok(host) => hosts.push((index, host)),
            Err(why) => {
                let field = format!("spec.hosts[{index}]");
                cx.error::<ServiceEntry>(key, field, format!("{why}; it is left out"));
            }
        }
    }
    hosts
}

/// A host in lower case, without the dot of a full name.
fn host_name(text: &str) -> Result<Str, String> {
    let host = text.trim_end_matches('.').to_ascii_lowercase();
    match is_name(host.strip_prefix("*.").unwrap_or(&host)) {
        true => Ok(host.into()),
        false => Err(format!(
            "{text:?} is no host name, nor \"*.\" before one (\"*\" alone would take every name)"
        )),
    }
}

/// Letters, digits, `-` and `_` in labels of 1 to 63 bytes.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.len() <= LONGEST_NAME && text.split('.').all(label)
}

fn service(
    cx: &mut Context<'_>,
    places: &Places<'_>,
    allotments: &Allotments,
    host: Host<'_>,
) -> model::Service {
    work::did("entries translated");
    let (key, entry) = (host.key(), host.entry);
    let mut vips = entry.addresses.exact.clone();
    if host.wants_address() {
        match allotments.get(&key) {
            Some(allotted) => vips.extend(allotted),
            None => cx.error::<ServiceEntry>(
                entry.key,
                "spec.addresses",
                "no address is left to allot; give one",
            ),
        }
    }
    let Host { name: host, visibility, .. } = host;
    let endpoints = if entry.closed { Vec::new() } else { places.of(cx, entry, &host) };
    if vips.is_empty() && entry.addresses.networks.is_empty() {
        check::complain_of_no_address(cx, entry, &host);
    }
    let first = endpoints.first().map(|endpoint| endpoint.weight);
    let weighted = endpoints.iter().any(|endpoint| Some(endpoint.weight) != first);
    model::Service {
        key,
        entry: Some(entry.key.name.clone()),
        hostname: host,
        visibility,
        vips,
        networks: entry.addresses.networks.clone(),
        ports: entry.ports.iter().map(|port| port.port.clone()).collect(),
        endpoints,
        resolution: entry.resolution,
        server: None,
        balancing: Balancing { weighted, ..entry.balancing },
        waypoint: entry.waypoint.clone(),
        canary: entry.canary.clone(),
        ingress: takes_ingress(cx, &entry.key.namespace, &entry.object.metadata),
        encryption: Encryption::default(),
        traffic: Traffic::default(),
        filters: Vec::new(),
        port_filters: Vec::new(),
        tables: Tables::default(),
    }
}

#[cfg(test)]
mod tests;
