//! Shared rate limits: the broker between the agents (`quota`), at the port where agents have certificates signed.
//!
//! Only the leader serves: a replica that does not lead refuses, and the agent tries again until it reaches the one that
//! does. An agent is authenticated as for certificates. It may speak for limits of Services that have a pod on its node;
//! the API server is asked where the pods are, and how many. The broker knows nothing that a successor would miss, so that a
//! change of the leader costs a second of uneven shares, and no error.

mod places;

use std::sync::Arc;

use futures_util::stream::{BoxStream, StreamExt, unfold};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::Context;
use super::lease::Leadership;
use crate::base::Str;
use crate::quota::broker::{Broker, Census};
use crate::quota::messages::{Joins, Orders, Report};
use crate::quota::session::{Brokerage, Judged, Session};
use places::Places;

/// What an agent hears.
pub(super) type Answers = BoxStream<'static, Result<Orders, Status>>;

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
        let session = Session::enter(self.clone(), node)?;
        let answers = unfold(Some((session, reports)), |talk| async {
            let (mut session, mut reports) = talk?;
            match session.next(&mut reports).await? {
                Ok(orders) => Some((Ok(orders), Some((session, reports)))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(answers.boxed())
    }

    /// For operators.
    pub(super) fn census(&self) -> Census {
        self.broker.lock().census()
    }
}

impl Brokerage for Exchange {
    fn broker(&self) -> &Mutex<Broker> {
        &self.broker
    }

    fn most_of_node(&self) -> usize {
        MAX_OF_NODE
    }

    fn serves(&self) -> Result<(), Status> {
        match self.leadership.is_held() {
            true => Ok(()),
            false => Err(Status::unavailable("this replica does not lead; another one does")),
        }
    }

    async fn judge(&self, node: &Str, joins: &Joins) -> Judged {
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
