//! The two halves of a waypoint, as workers know them.

use std::sync::Arc;

use super::budget::seats::Seated;
use super::destination::gates::Arrival;
use super::destination::kept::Arrivals;
use super::worker::context::Context;
use super::worker::{Job, Serve};
use super::{Dependencies, client, destination};
use crate::base::Reason;

/// Both halves, for one worker.
pub(in crate::l7) struct Halves {
    /// What the requests of inbound connections must pass.
    arrivals: Arc<Arrivals>,
}

impl Halves {
    pub(in crate::l7) fn new(dependencies: &Dependencies) -> Self {
        Self { arrivals: Arc::new(Arrivals::new(dependencies.world.clone())) }
    }
}

impl Serve for Halves {
    fn begin(&self, context: &Arc<Context>, job: Job, seat: Seated) {
        let shared = context.clone();
        match job {
            Job::Route(connection) => {
                let served = client::connection::serve(shared, connection, seat);
                context.tasks.spawn("outbound connection", served);
            }
            Job::Guard(connection) => {
                let arrivals = self.arrivals.clone();
                let served = destination::connection::serve(shared, arrivals, connection, seat);
                context.tasks.spawn("inbound connection", served);
            }
        }
    }

    fn sweep(&self) {
        self.arrivals.sweep();
    }
}

/// Closes a connection that no worker takes, and records why.
pub(in crate::l7) fn refuse(job: Job, dependencies: &Dependencies, reason: Reason, why: &str) {
    let start = match &job {
        Job::Route(connection) => client::labels::routed(connection, &dependencies.cluster),
        Job::Guard(connection) => {
            let arrival = Arrival::of(connection);
            let world = dependencies.world.load();
            destination::labels::arrived(&arrival, &world, &dependencies.cluster)
        }
    };
    dependencies.telemetry.refused(start, reason, why);
}
