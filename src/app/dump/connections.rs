//! Open connections: as rows of `/connections`, and as `istioctl ztunnel-config connections` reads them.

use serde_json::{Value, json};

use crate::base::ObjectKey;
use crate::telemetry::{ConnectionStart, OpenConnection, Peer, Reporter};

/// As the workload of this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Inbound,
    Outbound,
}

/// The end that is a workload of this node, and the direction of the connection from there.
pub(super) fn local(start: &ConnectionStart) -> (ObjectKey, Direction) {
    match start.reporter {
        Reporter::Source => (key(&start.source), Direction::Outbound),
        Reporter::Destination | Reporter::Waypoint => (key(&start.destination), Direction::Inbound),
    }
}

/// One row of `/connections`. Bytes are as the local workload sees them, as in the access log.
pub(in crate::app) fn row(connection: &OpenConnection) -> Value {
    let start = connection.start();
    let (workload, direction) = local(start);
    let (sent, received) = match direction {
        Direction::Outbound => (connection.sent(), connection.received()),
        Direction::Inbound => (connection.received(), connection.sent()),
    };
    let mut source = peer(&start.source);
    source["address"] = json!(start.source_address);
    let mut destination = peer(&start.destination);
    destination["address"] = json!(start.destination_address);
    destination["dialled"] = json!(start.dialled);
    destination["hboneAddress"] = json!(start.hbone_authority);
    destination["service"] = json!(start.service.host);
    json!({
        "workload": workload.to_string(),
        "direction": match direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        },
        "layer": if connection.is_http() { 7 } else { 4 },
        "transport": transport(connection),
        "source": source,
        "destination": destination,
        "policy": start.policy.as_ref().map(ToString::to_string),
        "waypoint": start.waypoint_principal,
        "bytesSent": sent,
        "bytesReceived": received,
        "requests": connection.requests(),
        "ageSeconds": connection.age().as_millis() as f64 / 1000.0,
    })
}

/// ztunnel's terms: the source of the connection, the dialled address, the actual destination.
pub(super) fn as_istio(connection: &OpenConnection) -> Value {
    let start = connection.start();
    let (_, direction) = local(start);
    let original = match direction {
        Direction::Inbound => start.service.host.to_string(),
        Direction::Outbound => start.dialled.to_string(),
    };
    let actual = match direction {
        Direction::Inbound => start.hbone_authority.unwrap_or(start.destination_address),
        Direction::Outbound => start.destination_address,
    };
    let protocol = match transport(connection) {
        "tunnel" => "HBONE",
        "in_process" => "IN_PROCESS",
        "per_request" => "HTTP",
        _ => "TCP",
    };
    json!({
        "src": start.source_address,
        "originalDst": original,
        "actualDst": actual,
        "protocol": protocol,
    })
}

/// How it arrives here, or how it leaves.
fn transport(connection: &OpenConnection) -> &'static str {
    let start = connection.start();
    match start.reporter {
        // Each of its requests is routed separately.
        Reporter::Source if connection.is_http() => "per_request",
        _ if start.in_process => "in_process",
        _ if start.mutual_tls => "tunnel",
        _ => "plaintext",
    }
}

fn peer(peer: &Peer) -> Value {
    json!({
        "workload": peer.name,
        "namespace": peer.namespace,
        "identity": peer.principal,
    })
}

fn key(peer: &Peer) -> ObjectKey {
    ObjectKey { namespace: peer.namespace.clone(), name: peer.name.clone() }
}
