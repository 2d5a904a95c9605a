//! Who speaks with whom, as telemetry's labels: of a connection to the destination's half.

use std::net::SocketAddr;

use super::gates::Inbound;
use crate::base::{Str, ports};
use crate::telemetry::{ConnectionStart, Reporter};
use crate::trace::Kind;
use crate::world::{World, labels_of, service_labels};

/// A connection that arrived for a local workload.
pub(in crate::l7) fn arrived(inbound: &Inbound, world: &World, cluster: &Str) -> ConnectionStart {
    let Inbound { workload, client, client_address, destination, .. } = inbound;
    let client = client.as_ref();
    let source = world.source_at(client_address.ip(), client);
    let own = client.map(|_| &workload.identity);
    let namespace = client.map(|client| client.namespace.as_str());
    let host = inbound.forwarded_host.as_deref();
    let service = host.and_then(|host| world.service_named(host, namespace));
    let wire_port = if client.is_some() { ports::HBONE } else { destination.port() };
    ConnectionStart {
        reporter: Reporter::Destination,
        source: match (client, &inbound.baggage) {
            (Some(client), Some(baggage)) => baggage.peer(client),
            _ => labels_of(source, client, cluster),
        },
        destination: labels_of(Some(workload), own, cluster),
        service: service.map(|service| service_labels(service)).unwrap_or_default(),
        mutual_tls: client.is_some(),
        source_address: *client_address,
        destination_address: SocketAddr::new(destination.ip(), wire_port),
        dialled: *destination,
        hbone_authority: client.map(|_| *destination),
        server_name: None,
        waypoint_principal: None,
        policy: None,
        notes: Vec::new(),
        in_process: inbound.in_process,
        rules: world.rules(Kind::Server, workload, service.map(|service| &service.key)),
    }
}
