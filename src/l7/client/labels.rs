//! Who speaks with whom, as telemetry's labels: of a connection to the client's half.

use crate::base::Str;
use crate::telemetry::{ConnectionStart, Peer, Reporter};
use crate::trace::Kind;
use crate::tunnel::RoutedConnection;
use crate::world::{World, labels_of, service_labels};

/// A connection of a local client, before anything is known of its destination.
pub(in crate::l7) fn routed(
    connection: &RoutedConnection,
    world: &World,
    cluster: &Str,
) -> ConnectionStart {
    let RoutedConnection { client, .. } = connection;
    ConnectionStart {
        reporter: Reporter::Source,
        source: labels_of(Some(client), Some(&client.identity), cluster),
        destination: Peer::default(),
        service: service_labels(&connection.service),
        mutual_tls: true,
        source_address: connection.client_address,
        destination_address: connection.dialled,
        dialled: connection.dialled,
        hbone_authority: None,
        server_name: None,
        waypoint_principal: None,
        policy: None,
        notes: Vec::new(),
        in_process: false,
        rules: world.rules(Kind::Client, client, Some(&connection.service.key)),
    }
}
