//! What an entry says that has no effect, and values that Istio's validation rejects.

use std::net::IpAddr;

use super::super::Context;
use super::super::service::protocol;
use super::{Entry, addresses, dynamic, host_name, is_name};
use crate::base::ObjectKey;
use crate::model::{Binding, Resolution};
use crate::source::objects::{FieldError, ServiceEntry, WorkloadEntry, WorkloadEntrySpec};

/// Begins the address of a Unix socket (Istio, WorkloadEntry).
const UNIX: &str = "unix:";
const NO_UNIX: &str =
    "is a Unix socket, which the mesh does not reach; give the IP address and port of a server";

/// Complains of fields without an effect.
pub(super) fn complain(cx: &mut Context<'_>, key: &ObjectKey, object: &ServiceEntry) {
    let spec = &object.spec;
    if !spec.subject_alt_names.is_empty() {
        let reason = "has no effect: TLS to endpoints outside of the mesh is the client's own";
        cx.warn::<ServiceEntry>(key, "spec.subjectAltNames", reason);
    }
    match spec.location.as_deref() {
        None | Some("" | "MESH_EXTERNAL" | "MESH_INTERNAL") => {}
        Some(other) => {
            let reason = format!("{other:?} is neither MESH_EXTERNAL nor MESH_INTERNAL");
            cx.warn::<ServiceEntry>(key, "spec.location", reason);
        }
    }
    if spec.ports.is_empty() {
        let reason = "are missing: connections to the entry's addresses are refused, except with the resolution NONE and \
                      without a waypoint, where they pass through; list the ports that clients dial";
        cx.warn::<ServiceEntry>(key, "spec.ports", reason);
    }
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        for name in unknown_ports(object, endpoint) {
            let field = format!("spec.endpoints[{index}].ports[{name}]");
            cx.warn::<ServiceEntry>(key, field, NO_SUCH_PORT);
        }
    }
}

const NO_SUCH_PORT: &str =
    "no port of the entry has this name, so the number has no effect; check spec.ports[].name";

fn unknown_ports<'a>(
    object: &'a ServiceEntry,
    endpoint: &'a WorkloadEntrySpec,
) -> impl Iterator<Item = &'a String> {
    let known = |name: &&String| object.spec.ports.iter().any(|port| port.name == **name);
    endpoint.ports.keys().filter(move |name| !known(name))
}

/// Nothing that a client dials means the host.
pub(super) fn complain_of_no_address(cx: &mut Context<'_>, entry: &Entry<'_>, host: &str) {
    let missing =
        format!("{host} has no address, so nothing that is dialled is known to be meant for it");
    let remedy = match entry.resolution {
        Resolution::Dialled => "give addresses, or a resolution other than NONE",
        _ => "give addresses, or remove the label networking.istio.io/enable-autoallocate-ip",
    };
    if entry.waypoint == Binding::None {
        let reason = format!(
            "{missing}: the entry has no effect, and traffic to that name passes through, or is refused where the mesh is \
             REGISTRY_ONLY, as to any other outside of the mesh; {remedy}"
        );
        cx.warn::<ServiceEntry>(entry.key, "spec.addresses", reason);
    } else {
        let reason = format!("{missing}, and it passes by the waypoint; {remedy}");
        cx.error::<ServiceEntry>(entry.key, "spec.addresses", reason);
    }
}

/// Complains of addresses that nothing can select to any effect.
pub(super) fn complain_of_workload_entries(cx: &mut Context<'_>) {
    let objects = cx.objects;
    for (key, entry) in objects.all::<WorkloadEntry>() {
        if let Some(why) = why_no_address(&entry.spec.address, true) {
            cx.error::<WorkloadEntry>(
                key,
                "spec.address",
                format!("{why}; the entry is no endpoint"),
            );
        }
    }
}

pub(super) fn is_unix(address: &str) -> bool {
    address.starts_with(UNIX)
}

/// Why an address with this text is none, where it is a Unix socket's.
pub(super) fn why_no_unix(address: &str) -> String {
    format!("{address:?} {NO_UNIX}")
}

/// Why the text names no protocol; `None` for an empty one, which is detected.
pub(super) fn unknown_protocol(text: &str) -> Option<String> {
    (!text.is_empty() && !protocol::is_known(text)).then(|| {
        format!(
            "{text:?} is no protocol that is known here, so the port's is detected by its first bytes; write HTTP, HTTP2, \
             GRPC, HTTPS, TLS or TCP"
        )
    })
}

/// What Istio's validation rejects in an entry that can be read.
pub(in crate::source::translate) fn meaningless(entry: &ServiceEntry) -> Option<FieldError> {
    let spec = &entry.spec;
    let of = |list: &str, index: usize| format!("spec.{list}[{index}]");
    let hosts = (spec.hosts.iter().enumerate())
        .filter_map(|(index, text)| Some((of("hosts", index), host_name(text).err()?)));
    let addresses = (spec.addresses.iter().enumerate())
        .filter_map(|(index, text)| Some((of("addresses", index), addresses::one(text).err()?)));
    let protocols = (spec.ports.iter().enumerate()).filter_map(|(index, port)| {
        let why = unknown_protocol(&port.protocol).filter(|_| !is_udp(&port.protocol))?;
        Some((format!("{}.protocol", of("ports", index)), why))
    });
    let names = spec.resolution.as_deref().is_some_and(|it| it.starts_with("DNS"));
    let endpoints = (spec.endpoints.iter().enumerate()).filter_map(|(index, endpoint)| {
        let place = of("endpoints", index);
        if let Some(why) = why_no_address(&endpoint.address, names) {
            return Some((format!("{place}.address"), why));
        }
        let unknown = unknown_ports(entry, endpoint).next()?;
        Some((format!("{place}.ports[{unknown}]"), NO_SUCH_PORT.to_owned()))
    });
    let mut all = hosts.chain(addresses).chain(protocols).chain(endpoints);
    let first = all.next().map(|(field, reason)| FieldError { field, reason });
    first.or_else(|| dynamic::meaningless(entry))
}

/// Likewise.
pub(in crate::source::translate) fn meaningless_workload(
    entry: &WorkloadEntry,
) -> Option<FieldError> {
    let reason = why_no_address(&entry.spec.address, true)?;
    Some(FieldError { field: "spec.address".to_owned(), reason })
}

fn why_no_address(text: &str, names: bool) -> Option<String> {
    if text.is_empty() || text.parse::<IpAddr>().is_ok() {
        return None;
    }
    if is_unix(text) {
        return Some(why_no_unix(text));
    }
    match names {
        true if is_name(text.trim_end_matches('.')) => None,
        true => Some(format!("{text:?} is neither an IP address nor a host name")),
        false => Some(format!("{text:?} is no IP address, which the resolution STATIC wants")),
    }
}

fn is_udp(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("UDP")
}
