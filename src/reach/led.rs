//! Routes that lead connections to the services of others, in the client's name.
//!
//! Whoever is called may lead the caller on, but must not have it do in its own name what only the caller may do. As of requests,
//! a destination in a third namespace must permit it to the client, which its own agent judges, and to the waypoint of the service
//! that the client addressed, in whose name Istio would connect. A service without a waypoint has no name to be led on in: then it
//! goes where anybody may.

use super::direct::direct;
use super::{Ask, Downstream};
use crate::balance::Picked;
use crate::gate::{Addressed, Gate};
use crate::model::Service;
use crate::policy::{Connection, Denial, lends_the_clients_name};
use crate::world::World;

/// Whether the route may lead to an endpoint of the service.
pub(super) fn judge_lent(
    world: &World,
    from: &Downstream<'_>,
    ask: &Ask<'_>,
    service: &Service,
    to: &Picked,
) -> Result<(), Denial> {
    let Some(lent) = ask.lent else { return Ok(()) };
    let owner = to.workload.as_ref().map_or(&service.key, |workload| &workload.key);
    let (client, root) = (&from.client.key.namespace, &world.names.root_namespace);
    if !lends_the_clients_name([&lent.route], client, &owner.namespace, root) {
        return Ok(());
    }
    let connection = Connection {
        client: lent.waypoint.as_ref(),
        source: from.address.ip(),
        destination: to.address,
        server_name: from.server_name,
    };
    let denied = |denial: Denial| {
        let led = format!("{} leads clients of {client} to {}", lent.described, owner.namespace);
        let why = match &lent.waypoint {
            Some(waypoint) => {
                format!("{led}, where {waypoint}, which leads them, may not go: {}", denial.why)
            }
            None => format!(
                "{led}, where not everybody may go, and the service that was addressed has no waypoint in whose name: {}",
                denial.why
            ),
        };
        Denial { why, ..denial }
    };
    let gate = gate(world, service, ask.port(), to);
    gate.decide(&connection, None).map(|_| ()).map_err(denied)
}

/// Everything that guards the endpoint. What the addressed service asks of its clients is no matter of its waypoint's name.
pub(super) fn gate(world: &World, service: &Service, port: u16, to: &Picked) -> Gate {
    match &to.workload {
        Some(workload) if workload.is_captured() => {
            Gate::new(world, workload, to.address.port(), &Addressed::Workload)
        }
        _ => Gate::for_uncaptured(world, &direct(service, port, to)),
    }
}
