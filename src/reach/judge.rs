//! Policies where nobody judges at the other end: this half judges, before it connects and while the connection lasts.

use std::net::SocketAddr;

use super::{Ask, Downstream, Failure, Reach};
use crate::balance::Picked;
use crate::base::{ObjectKey, Reason, Str};
use crate::model::{Service, Workload};
use crate::policy::{Denial, Gate, Permit, Views, Way};
use crate::world::{Classed, JudgementChanges, World};

/// What tells apart how connections to where nobody else judges are judged here.
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

/// The waypoints' policies, for a destination that is not captured. `None` for one that is, because its own agent judges,
/// and where no waypoint guards it. `views`: the request, where there is one.
pub fn judge(
    world: &World,
    from: &Downstream<'_>,
    way: &Way<'_>,
    views: Option<Views<'_>>,
) -> Result<Option<Permit>, Denial> {
    if way.workload.is_some_and(Workload::is_captured) {
        return Ok(None);
    }
    let gate = Gate::for_uncaptured(world, way);
    if !gate.is_guarded() {
        return Ok(None);
    }
    gate.authorize_views(&from.connection(way.destination), views).map(Some)
}

/// What the log says of a connection that is no longer permitted.
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
    /// Judges a live connection again after each change of what guards the service. Returns when it is no longer permitted,
    /// and never for a destination that judges for itself.
    pub async fn until_denied(&self, from: &Downstream<'_>, ask: &Ask<'_>, to: &Picked) -> Failure {
        if to.captured().is_some() {
            return std::future::pending().await;
        }
        let mut changes = self.changes(ask, to);
        loop {
            // First of all: the mesh may have changed since the connection was permitted.
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
        match judge(&self.world.load(), from, &way, None) {
            Ok(_) => Ok(()),
            Err(denial) => Err(Failure::new(Reason::Denied, denial.why)),
        }
    }

    /// Tells when connections like this one are judged otherwise.
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
