//! One connection of an agent: its reports go to the broker, what the broker has for it goes back, a few times in a round.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt, unfold};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Status, Streaming};

use super::{Exchange, MAX_OF_NODE};
use crate::base::Str;
use crate::quota::broker::Number;
use crate::quota::messages::{Orders, Report};

/// Between two messages to an agent; what comes in between is sent together.
const PACE: Duration = Duration::from_millis(25);
/// Reports of one connection: an agent sends ten in a second, and an answer to each message of ours.
const REPORTS_EACH_SECOND: f64 = 100.0;
const REPORTS_AT_ONCE: f64 = 200.0;
/// So many limits that a node says it has count as one report more: each of them is looked up. So do so many keys that it lacks tokens
/// for: for each of them other nodes are looked at. An agent that lacks as many as it may say of sends half of the reports here.
const LIMITS_OF_REPORT: f64 = 64.0;
const WANTS_OF_REPORT: f64 = 64.0;
/// How often it is looked whether this replica still leads.
const LOOK: Duration = Duration::from_secs(1);
/// After this an agent must authenticate again; up to half as much longer. Less than a connection lasts at this port.
const MAX_AGE: Duration = Duration::from_secs(6 * 60);

/// What the agent hears.
pub(in crate::controller) type Answers = BoxStream<'static, Result<Orders, Status>>;

pub(super) struct Session {
    exchange: Arc<Exchange>,
    node: Str,
    number: Number,
    reports: Streaming<Report>,
    wake: Arc<Notify>,
    /// When something may be sent; `None` while there is nothing.
    due: Option<Instant>,
    sent: Instant,
    end: Instant,
    /// Reports that may come now, as of then.
    room: (f64, Instant),
}

impl Session {
    pub(super) fn enter(
        exchange: Arc<Exchange>,
        node: &Str,
        reports: Streaming<Report>,
    ) -> Result<Self, Status> {
        let (now, wake) = (Instant::now(), Arc::new(Notify::new()));
        let number = {
            let mut broker = exchange.broker.lock();
            if broker.of_node(node) >= MAX_OF_NODE {
                return Err(Status::resource_exhausted("this node is connected already"));
            }
            broker.enter(node, &wake)
        };
        Ok(Self {
            exchange,
            node: node.clone(),
            number,
            reports,
            wake,
            due: None,
            sent: now,
            end: now + MAX_AGE.mul_f64(1.0 + 0.5 * fastrand::f64()),
            room: (REPORTS_AT_ONCE, now),
        })
    }

    pub(super) fn answers(self) -> Answers {
        unfold(Some(self), |session| async {
            let mut session = session?;
            match session.next().await? {
                Ok(orders) => Some((Ok(orders), Some(session))),
                Err(status) => Some((Err(status), None)),
            }
        })
        .boxed()
    }

    /// `None`: the agent has gone.
    async fn next(&mut self) -> Option<Result<Orders, Status>> {
        loop {
            let due = self.due.unwrap_or(self.end);
            tokio::select! {
                report = self.reports.message() => match report {
                    Ok(Some(report)) => {
                        if let Err(status) = self.hear(&report).await {
                            return Some(Err(status));
                        }
                    }
                    Ok(None) | Err(_) => return None,
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
                    if let Some(orders) = self.exchange.broker.lock().take(self.number, now) {
                        self.sent = now;
                        return Some(Ok(orders));
                    }
                }
                () = sleep(LOOK) => {}
            }
            if !self.exchange.leads() {
                return Some(Err(Status::unavailable("this replica no longer leads")));
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
            let (granted, refused) = self.exchange.judge(&self.node, joins).await;
            self.exchange.broker.lock().join(self.number, granted, refused);
        }
        self.exchange.broker.lock().hear(self.number, report, Instant::now());
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.exchange.broker.lock().leave(self.number);
    }
}
