//! Policies for destinations without an agent: this half evaluates them, before it connects and while the connection lasts.

use std::net::SocketAddr;

use super::{Ask, Asked, Downstream, Failure, Reach};
use crate::balance::Picked;
use crate::base::{ObjectKey, Reason, Str};
use crate::gate::{Gate, Permit, Views, Way};
use crate::model::{Service, Workload};
use crate::policy::Denial;
use crate::world::{Classed, JudgementChanges, World};

/// The properties by which such connections are evaluated differently.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LeavingClass {
    service: ObjectKey,
    port: u16,
    workload: Option<Str>,
    destination: SocketAddr,
}

impl Classed for LeavingClass {
    fn tenant(&self) -> &str {
        &self.service.namespace
    }
}

/// Evaluates the waypoints' policies for a destination that is not captured. `None` for one that is: its own agent evaluates
/// them.
/// `views`: the request, where there is one.
pub fn judge(
    world: &World,
    from: &Downstream<'_>,
    way: &Way<'_>,
    views: Option<Views<'_>>,
) -> Result<Option<Permit>, Denial> {
    let Some(gate) = gate(world, way) else { return Ok(None) };
    gate.decide_views(&from.connection(way.destination), views).map(Some)
}

/// The same for bytes to an endpoint of the requested service. `None` also for a connection of layer 4 that no waypoint
/// guards: it continues even after the service is gone.
pub(super) fn judge_bytes(
    world: &World,
    from: &Downstream<'_>,
    ask: &Ask<'_>,
    way: &Way<'_>,
) -> Result<Option<Permit>, Denial> {
    let counts = |gate: &Gate| gate.is_guarded() || matches!(ask.service, Asked::Present(_));
    let Some(gate) = gate(world, way).filter(counts) else { return Ok(None) };
    gate.decide(&from.connection(way.destination), None).map(Some)
}

fn gate(world: &World, way: &Way<'_>) -> Option<Gate> {
    let captured = way.workload.is_some_and(Workload::is_captured);
    (!captured).then(|| Gate::for_uncaptured(world, way))
}

/// The log's text for a connection that is no longer permitted.
pub fn cut_after_a_change(why: &str) -> String {
    format!("cut after a change: {why}")
}

/// The way to an endpoint of the service that was dialled, which no route changes.
pub(super) fn direct<'a>(service: &'a Service, port: u16, to: &'a Picked) -> Way<'a> {
    Way {
        addressed: service,
        port,
        route: None,
        backend: (service, port),
        workload: to.workload.as_deref(),
        destination: to.address,
    }
}

impl Reach {
    /// Re-evaluates an open connection after each change of the service's policies. Returns when it is no longer permitted,
    /// and never for a destination with its own agent.
    pub async fn until_denied(&self, from: &Downstream<'_>, ask: &Ask<'_>, to: &Picked) -> Failure {
        if to.captured().is_some() {
            return std::future::pending().await;
        }
        let mut changes = self.changes(ask, to);
        loop {
            // At once: the mesh may have changed since the connection was permitted.
            if let Err(failure) = self.permitted(from, ask, to) {
                return failure;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn permitted(&self, from: &Downstream<'_>, ask: &Ask<'_>, to: &Picked) -> Result<(), Failure> {
        let service = self.asked(ask)?;
        let way = direct(&service, ask.port(), to);
        match judge_bytes(&self.world.load(), from, ask, &way) {
            Ok(_) => Ok(()),
            Err(denial) => Err(Failure::new(Reason::Denied, denial.why)),
        }
    }

    /// Notifies when the verdict on connections like this one changes.
    fn changes(&self, ask: &Ask<'_>, to: &Picked) -> JudgementChanges {
        let (service, port) = (ask.service.key().clone(), ask.port());
        let workload = to.workload.as_ref().map(|workload| workload.uid.clone());
        let class = LeavingClass { service, port, workload, destination: to.address };
        self.left.changes(class, || {
            let (service, workload) = (ask.service.key().clone(), to.workload.clone());
            let destination = to.address;
            move |world: &World| {
                let service = world.service(&service)?;
                let to = Picked::dialled(destination, workload.clone());
                Some(Gate::for_uncaptured(world, &direct(service, port, &to)))
            }
        })
    }
}
