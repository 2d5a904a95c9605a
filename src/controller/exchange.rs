//! Shared rate limits: the broker between the agents (`quota`), at the port where agents have certificates signed.
//!
//! Only the leader serves: a replica that does not lead refuses, and the agent tries again until it reaches the one that
//! does. An agent is authenticated as for certificates. It may speak for limits of Services that have a pod on its node;
//! the API server is asked where the pods are, and how many. The broker knows nothing that a successor would miss, so that a
//! change of the leader costs a second of uneven shares, and no error.

mod places;
mod session;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::Context;
use super::lease::Leadership;
use crate::base::Str;
use crate::filter::Pods;
use crate::quota::broker::{Broker, Census};
use crate::quota::messages::{Joins, LimitId, Report};
use places::Places;
pub(super) use session::Answers;
use session::Session;

/// Connections of one node's agents: one, during an upgrade two, and one that failed unnoticed.
const MAX_OF_NODE: usize = 3;

/// The broker of this replica.
pub(super) struct Exchange {
    broker: Mutex<Broker>,
    places: Places,
    leadership: Leadership,
}

impl Exchange {
    pub(super) fn new(context: &Context, leadership: Leadership) -> Arc<Self> {
        let broker = Mutex::new(Broker::new(Instant::now()));
        Arc::new(Self { broker, places: Places::new(&context.client), leadership })
    }

    /// Serves one connection of a node's agent.
    ///
    /// # Errors
    /// This replica does not lead, or the node has too many.
    pub(super) fn serve(
        self: &Arc<Self>,
        node: &Str,
        reports: Streaming<Report>,
    ) -> Result<Answers, Status> {
        if !self.leads() {
            return Err(Status::unavailable("this replica does not lead; another one does"));
        }
        let session = Session::enter(self.clone(), node, reports)?;
        Ok(session.answers())
    }

    /// For operators.
    pub(super) fn census(&self) -> Census {
        self.broker.lock().census()
    }

    fn leads(&self) -> bool {
        self.leadership.is_held()
    }

    /// The limits that a node says it has: those that it may speak for, with the pods, and those that it may not.
    async fn judge(&self, node: &Str, joins: &Joins) -> (Vec<(u32, LimitId, Pods)>, Vec<u32>) {
        let (mut granted, mut refused) = (Vec::new(), Vec::new());
        for limit in &joins.limits {
            let Some(id) = limit.id() else {
                refused.push(limit.number);
                continue;
            };
            match self.places.pods(&id.service, node).await {
                Some(pods) => granted.push((limit.number, id, pods)),
                None => refused.push(limit.number),
            }
        }
        (granted, refused)
    }
}
