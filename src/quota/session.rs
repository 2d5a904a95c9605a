//! One connection of a node at the broker: its reports go to the broker, what the broker has for it goes back, a few times in a round.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;

use super::broker::{Broker, Number};
use super::messages::{Joins, LimitId, Orders, Report};
use crate::base::Str;
use crate::filter::Pods;

/// Between two messages to an agent; what comes in between is sent together.
const PACE: Duration = Duration::from_millis(25);
/// Reports of one connection: an agent sends ten in a second, and an answer to each message of ours.
const REPORTS_EACH_SECOND: f64 = 100.0;
const REPORTS_AT_ONCE: f64 = 200.0;
/// So many limits that a node says it has count as one report more: each of them is looked up. So do so many keys that it lacks tokens
/// for: for each of them other nodes are looked at. An agent that lacks as many as it may say of sends half of the reports here.
const LIMITS_OF_REPORT: f64 = 64.0;
const WANTS_OF_REPORT: f64 = 64.0;
/// How often it is looked whether the broker still serves.
const LOOK: Duration = Duration::from_secs(1);
/// After this an agent must authenticate again; up to half as much longer. Less than a connection lasts at this port.
const MAX_AGE: Duration = Duration::from_secs(6 * 60);

/// The limits that a node may speak for, by its own numbers, with the pods; and those that it may not.
pub type Judged = (Vec<(u32, LimitId, Pods)>, Vec<u32>);

/// Where a broker is, and who may speak there.
pub trait Brokerage: Send + Sync + 'static {
    fn broker(&self) -> &Mutex<Broker>;

    /// Connections of one node's agents.
    fn most_of_node(&self) -> usize;

    /// # Errors
    /// It serves no longer, or not here.
    fn serves(&self) -> Result<(), Status>;

    /// The limits that a node says it has.
    fn judge(&self, node: &Str, joins: &Joins) -> impl Future<Output = Judged> + Send;
}

pub struct Session<B: Brokerage> {
    place: Arc<B>,
    node: Str,
    number: Number,
    wake: Arc<Notify>,
    /// When something may be sent; `None` while there is nothing.
    due: Option<Instant>,
    sent: Instant,
    end: Instant,
    /// Reports that may come now, as of then.
    room: (f64, Instant),
}

impl<B: Brokerage> Session<B> {
    /// # Errors
    /// The broker does not serve here, or the node has too many connections.
    pub fn enter(place: Arc<B>, node: &Str) -> Result<Self, Status> {
        place.serves()?;
        let (now, wake) = (Instant::now(), Arc::new(Notify::new()));
        let number = {
            let mut broker = place.broker().lock();
            if broker.of_node(node) >= place.most_of_node() {
                return Err(Status::resource_exhausted("this node is connected already"));
            }
            broker.enter(node, &wake)
        };
        Ok(Self {
            place,
            node: node.clone(),
            number,
            wake,
            due: None,
            sent: now,
            end: now + MAX_AGE.mul_f64(1.0 + 0.5 * fastrand::f64()),
            room: (REPORTS_AT_ONCE, now),
        })
    }

    /// What the node is to hear next, while its `reports` are heard. `None`: it has gone. Nothing follows an error.
    pub async fn next(
        &mut self,
        reports: &mut (impl Stream<Item = Result<Report, Status>> + Unpin),
    ) -> Option<Result<Orders, Status>> {
        loop {
            let due = self.due.unwrap_or(self.end);
            tokio::select! {
                report = reports.next() => match report {
                    Some(Ok(report)) => {
                        if let Err(status) = self.hear(&report).await {
                            return Some(Err(status));
                        }
                    }
                    None | Some(Err(_)) => return None,
                },
                () = self.wake.notified(), if self.due.is_none() => {
                    self.due = Some(self.sent + PACE);
                }
                () = sleep_until(due) => {
                    let now = Instant::now();
                    if now >= self.end {
                        return Some(Err(Status::unavailable("connect again, to prove who you are")));
                    }
                    self.due = None;
                    if let Some(orders) = self.place.broker().lock().take(self.number, now) {
                        self.sent = now;
                        return Some(Ok(orders));
                    }
                }
                () = sleep(LOOK) => {}
            }
            if let Err(status) = self.place.serves() {
                return Some(Err(status));
            }
        }
    }

    async fn hear(&mut self, report: &Report) -> Result<(), Status> {
        let now = Instant::now();
        let (room, at) = self.room;
        let more = REPORTS_EACH_SECOND * now.saturating_duration_since(at).as_secs_f64();
        let room = (room + more).min(REPORTS_AT_ONCE);
        report.check().map_err(Status::invalid_argument)?;
        let limits = report.joins.as_ref().map_or(0, |joins| joins.limits.len());
        let wants = report.wants.len() as f64 / WANTS_OF_REPORT;
        let cost = 1.0 + limits as f64 / LIMITS_OF_REPORT + wants;
        if room < cost {
            return Err(Status::resource_exhausted("too many reports"));
        }
        self.room = (room - cost, now);
        if let Some(joins) = &report.joins {
            let (granted, refused) = self.place.judge(&self.node, joins).await;
            self.place.broker().lock().join(self.number, granted, refused);
        }
        self.place.broker().lock().hear(self.number, report, Instant::now());
        Ok(())
    }
}

impl<B: Brokerage> Drop for Session<B> {
    fn drop(&mut self) {
        self.place.broker().lock().leave(self.number);
    }
}
