//! Who speaks with whom, as telemetry's labels: made once per connection, and kept per workload for destinations.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::guard::Arrival;
use crate::base::{Identity, Str, ports};
use crate::model::{Service, Workload};
use crate::telemetry::{ConnectionStart, Peer, Reporter, ServiceLabels};
use crate::tunnel::{Baggage, RoutedConnection};
use crate::world::World;

/// Whether an endpoint is in the mesh: reached by HBONE only, never in the clear, and judged on its own node.
pub(super) fn captured(workload: Option<&Arc<Workload>>) -> Option<&Arc<Workload>> {
    workload.filter(|workload| workload.enrolled && !workload.host_network)
}

/// The labels of one side; `proven` is the identity that mutual TLS proved, where it did.
pub(super) fn labels_of(
    workload: Option<&Workload>,
    proven: Option<&Identity>,
    cluster: &Str,
) -> Peer {
    let principal = proven.map(|identity| Str::from(identity.to_string())).unwrap_or_default();
    let Some(workload) = workload else {
        let namespace = proven.map(|identity| identity.namespace.clone()).unwrap_or_default();
        return Peer { principal, namespace, ..Peer::default() };
    };
    let canonical = &workload.canonical;
    Peer {
        workload: canonical.workload.clone(),
        name: workload.key.name.clone(),
        namespace: workload.key.namespace.clone(),
        principal,
        canonical_service: canonical.service.clone(),
        canonical_revision: canonical.revision.clone(),
        app: canonical.app.clone(),
        version: canonical.version.clone(),
        cluster: cluster.clone(),
    }
}

pub(super) fn service_labels(service: &Service) -> ServiceLabels {
    ServiceLabels {
        host: service.hostname.clone(),
        name: service.key.name.clone(),
        namespace: service.key.namespace.clone(),
    }
}

/// About the client, as ztunnel sends it: telemetry of foreign peers reads it, nothing of ours trusts it.
pub(super) fn baggage(client: &Workload, cluster: &Str) -> String {
    let Workload { key, canonical, locality, .. } = client;
    let baggage = Baggage {
        cluster: cluster.clone(),
        namespace: key.namespace.clone(),
        workload: canonical.workload.clone(),
        service: canonical.service.clone(),
        version: canonical.revision.clone(),
        region: locality.region.clone(),
        zone: locality.zone.clone(),
    };
    baggage.to_string()
}

/// The workload at an address, when the identity agrees: an address alone proves nothing.
fn source_of<'a>(
    world: &'a World,
    address: SocketAddr,
    client: Option<&Identity>,
) -> Option<&'a Workload> {
    let workload = world.workload_at(address.ip())?;
    client.is_none_or(|client| *client == workload.identity).then_some(workload)
}

/// A connection of a local client, before anything is known of its destination.
pub(super) fn routed(connection: &RoutedConnection, cluster: &Str) -> ConnectionStart {
    let RoutedConnection { client, .. } = connection;
    ConnectionStart {
        reporter: Reporter::Source,
        source: labels_of(Some(client), Some(&client.identity), cluster),
        destination: Peer::default(),
        service: service_labels(&connection.service),
        mutual_tls: true,
        source_address: connection.client_address,
        destination_address: connection.dialled,
        hbone_authority: None,
        waypoint_principal: None,
    }
}

/// A connection that arrived for a local workload.
pub(super) fn arrived(arrival: &Arrival, world: &World, cluster: &Str) -> ConnectionStart {
    let Arrival { workload, client, client_address, destination, .. } = arrival;
    let client = client.as_ref();
    let source = source_of(world, *client_address, client);
    let own = client.map(|_| &workload.identity);
    let service = arrival.forwarded_host.as_deref().and_then(|host| world.service_named(host));
    let wire_port = if client.is_some() { ports::HBONE } else { destination.port() };
    ConnectionStart {
        reporter: Reporter::Destination,
        source: labels_of(source, client, cluster),
        destination: labels_of(Some(workload), own, cluster),
        service: service.map(|service| service_labels(service)).unwrap_or_default(),
        mutual_tls: client.is_some(),
        source_address: *client_address,
        destination_address: SocketAddr::new(destination.ip(), wire_port),
        hbone_authority: client.map(|_| *destination),
        waypoint_principal: None,
    }
}

/// Destinations as labels, by workload: a request finds them without making texts.
pub(super) struct Peers {
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
    pub(super) fn new(cluster: Str) -> Self {
        Self { cluster, known: ArcSwap::default(), outside: Arc::default() }
    }

    /// The labels of an endpoint.
    pub(super) fn destination(&self, world: &World, workload: Option<&Arc<Workload>>) -> Arc<Peer> {
        let Some(workload) = workload else { return self.outside.clone() };
        if let Some(known) = self.known.load().get(&workload.uid)
            && Arc::ptr_eq(&known.workload, workload)
        {
            return known.peer.clone();
        }
        let proven = captured(Some(workload)).map(|workload| &workload.identity);
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
