//! `isthmus explain`: the whole way of one connection or request, decided over one snapshot as both nodes would decide, told as a
//! tree.
//!
//! It asks the functions that decide (`route`, `l7`, `gate`), and infers nothing itself: what it adds is what was nearer and did
//! not hold, and why. It opens no connection, counts nothing, takes no turn of a split and asks no provider. Values of headers and
//! claims are not told, since what explains a policy must not be a way to read secrets.
//!
//! `app` lets it look at the running agent's snapshot, and `cli` at one made of a directory.

mod destination;
mod layer4;
mod layer7;
mod preview;
mod question;
mod tree;

pub use preview::{Change, Preview, preview};
pub use question::{Http, Question};
pub use tree::{Explanation, Node, Outcome, Verdict, render};

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::base::{Identity, ObjectKey, Str};
use crate::l7::explained::Asking;
use crate::model::Workload;
use crate::route::{self, Decision};
use crate::world::{Owner, World};
use question::Asked;

/// Explains what becomes of it.
///
/// # Errors
/// What in the question means nothing in this snapshot, and what to say instead.
pub fn explain(world: &World, question: &Question) -> Result<Explanation, String> {
    let asked = question.read(world)?;
    let mut steps = vec![client(&asked)];
    if !asked.client.is_captured() {
        steps.extend(destination::from_outside(world, &asked));
        return Ok(Explanation::of(&asked, steps));
    }
    let way = Way { world, asked: &asked };
    let decision = route::decide(world, &asked.client, asked.dialled);
    steps.push(way.dialled());
    match decision {
        Decision::Refuse { reason, why } => {
            let text = format!("refused at the client's node: {why}");
            steps.push(Node::refuses("decision", text).flag(reason.flag()));
        }
        Decision::Passthrough => {
            let text = format!(
                "{} is no address of the mesh: connected as dialled, without mutual TLS",
                asked.dialled
            );
            steps.push(Node::holds("decision", text));
        }
        Decision::Workload { workload, port } => {
            steps.push(way.not_routed(&workload));
            let to = SocketAddr::new(asked.dialled.ip(), port);
            steps.push(destination::workload(&way, &workload, to));
        }
        Decision::Service { service, port } => {
            steps.push(layer4::without_waypoint(&way, &service, port));
            steps.push(layer4::bytes(&way, &service, port, None));
        }
        Decision::Routed { service, routes } => {
            steps.extend(layer4::routed(&way, &service, &routes));
        }
        Decision::Named { service } => steps.push(layer4::named(&way, &service)),
        Decision::Waypoint { service, port, waypoint, .. } => {
            steps.extend(layer7::explain(&way, &service, port, &waypoint));
        }
    }
    Ok(Explanation::of(&asked, steps))
}

/// One question over one snapshot.
struct Way<'a> {
    world: &'a World,
    asked: &'a Asked,
}

impl Way<'_> {
    /// The client, as it asks for a service.
    fn asking<'b>(&'b self, service: Option<&'b ObjectKey>, port: u16) -> Asking<'b> {
        let dialled = SocketAddr::new(self.asked.dialled.ip(), port);
        let Asked { client, client_address, .. } = self.asked;
        Asking { world: self.world, client, client_address: *client_address, dialled, service }
    }

    /// What the address belongs to.
    fn dialled(&self) -> Node {
        let Asked { dialled, named, client, .. } = self.asked;
        let owner =
            self.world.owner_of(dialled.ip().to_canonical(), dialled.port(), &client.key.namespace);
        let owner = match owner {
            Some(Owner::Service(service)) => {
                format!("{service} ({}), by its virtual address", service.hostname)
            }
            Some(Owner::Workload(workload)) => {
                format!("Pod {}, by its own address", workload.key)
            }
            None => "nobody that the mesh knows".to_owned(),
        };
        let named = named.as_ref().map(|name| format!("{name} is ")).unwrap_or_default();
        Node::holds("destination", format!("{named}{dialled}, which belongs to {owner}"))
    }

    fn not_routed(&self, workload: &Workload) -> Node {
        let text = match workload.waypoint.waypoint() {
            Some(waypoint) => format!(
                "no route applies, since a pod was dialled and not a Service; Gateway {waypoint} guards the pod itself"
            ),
            None => "no waypoint and no route apply, since a pod was dialled and not a Service"
                .to_owned(),
        };
        Node::notes("waypoint", text)
    }
}

fn client(asked: &Asked) -> Node {
    let Asked { client, client_address, .. } = asked;
    let at = client_address.ip();
    let text = match (client.is_captured(), client.uid.is_empty()) {
        (true, _) => format!(
            "Pod {} at {at} on node {}, captured; it proves {}",
            client.key, client.node, client.identity
        ),
        (false, true) => format!("{at} is outside of the mesh: it comes without mutual TLS"),
        (false, false) if client.host_network => {
            format!("Pod {} shares its node's network: it is not captured", client.key)
        }
        (false, false) => format!(
            "Pod {} is not in the mesh (its namespace or it lacks istio.io/dataplane-mode: ambient)",
            client.key
        ),
    };
    Node::holds("client", text)
}

/// A workload that the mesh does not know, at an address.
fn outsider(address: IpAddr) -> Arc<Workload> {
    Arc::new(Workload {
        uid: Str::default(),
        key: ObjectKey::new("", ""),
        pod: None,
        identity: Identity::new("", "", ""),
        node: Str::default(),
        addresses: vec![address],
        network_namespace: None,
        enrolled: false,
        unsure: false,
        host_network: false,
        gateway: false,
        capture: Default::default(),
        ready: true,
        canonical: Default::default(),
        locality: Default::default(),
        waypoint: Default::default(),
        peer_authentication: Default::default(),
        policies: Vec::new(),
        labels: Default::default(),
        rules: Vec::new(),
        registry_only: false,
        selected_by: Default::default(),
    })
}

#[cfg(test)]
mod tests;
