//! Who speaks with whom, as telemetry's labels: made once per connection, and kept per workload for destinations.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::base::{Str, ports};
use crate::l7::destination::gates::Arrival;
use crate::model::Workload;
use crate::telemetry::{ConnectionStart, Peer, Reporter};
use crate::tunnel::RoutedConnection;
use crate::world::{World, labels_of, service_labels};

/// A connection of a local client, before anything is known of its destination.
pub(in crate::l7) fn routed(connection: &RoutedConnection, cluster: &Str) -> ConnectionStart {
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
        waypoint_principal: None,
        policy: None,
        notes: Vec::new(),
        in_process: false,
    }
}

/// A connection that arrived for a local workload.
pub(in crate::l7) fn arrived(arrival: &Arrival, world: &World, cluster: &Str) -> ConnectionStart {
    let Arrival { workload, client, client_address, destination, .. } = arrival;
    let client = client.as_ref();
    let source = world.source_at(client_address.ip(), client);
    let own = client.map(|_| &workload.identity);
    let namespace = client.map(|client| client.namespace.as_str());
    let host = arrival.forwarded_host.as_deref();
    let service = host.and_then(|host| world.service_named(host, namespace));
    let wire_port = if client.is_some() { ports::HBONE } else { destination.port() };
    ConnectionStart {
        reporter: Reporter::Destination,
        source: labels_of(source, client, cluster),
        destination: labels_of(Some(workload), own, cluster),
        service: service.map(|service| service_labels(service)).unwrap_or_default(),
        mutual_tls: client.is_some(),
        source_address: *client_address,
        destination_address: SocketAddr::new(destination.ip(), wire_port),
        dialled: *destination,
        hbone_authority: client.map(|_| *destination),
        waypoint_principal: None,
        policy: None,
        notes: Vec::new(),
        in_process: arrival.in_process,
    }
}

/// Destinations as labels, by workload: a request finds them without making texts.
pub(in crate::l7) struct Peers {
    cluster: Str,
    known: ArcSwap<HashMap<Str, Known>>,
    outside: Arc<Peer>,
}

/// Labels, and the workload they were made of: another value of it needs other labels.
#[derive(Clone)]
struct Known {
    workload: Arc<Workload>,
    peer: Arc<Peer>,
}

impl Peers {
    pub(in crate::l7) fn new(cluster: Str) -> Self {
        Self { cluster, known: ArcSwap::default(), outside: Arc::default() }
    }

    /// The labels of an endpoint.
    pub(in crate::l7) fn destination(
        &self,
        world: &World,
        workload: Option<&Arc<Workload>>,
    ) -> Arc<Peer> {
        let Some(workload) = workload else { return self.outside.clone() };
        if let Some(known) = self.known.load().get(&workload.uid)
            && Arc::ptr_eq(&known.workload, workload)
        {
            return known.peer.clone();
        }
        let proven = workload.is_captured().then_some(&workload.identity);
        let peer = Arc::new(labels_of(Some(workload), proven, &self.cluster));
        let known = Known { workload: workload.clone(), peer: peer.clone() };
        self.known.rcu(|map| {
            // Forgetting what is gone here keeps the map as small as the mesh, without a task of its own.
            let mut map: HashMap<Str, Known> = (map.iter())
                .filter(|(uid, _)| world.workload(uid).is_some())
                .map(|(uid, known)| (uid.clone(), known.clone()))
                .collect();
            map.insert(workload.uid.clone(), known.clone());
            map
        });
        peer
    }
}
