//! What this node's connections and requests were, for who looks: a memory of recent flows, who follows new ones, and counts of
//! the last hour by pair ([`Pairs`](pairs)).
//!
//! Records of `telemetry` end as flows, on the threads of the data path: [`Observe`] takes each, and neither waits nor takes a
//! lock that somebody may hold for long. All that it holds is bounded. While the memory is off and nobody follows, no flow is made.
//!
//! `app` builds it, `admin` serves it on the root-only socket, and `cli` reads what that says: [`Line`] and [`Summary`] are what
//! goes over the wire.

mod filter;
mod follow;
mod latency;
mod line;
mod pairs;
mod query;
mod ring;
mod summary;
#[cfg(test)]
mod tests;
mod watch;

pub use filter::{Filter, Status};
pub use follow::{MAX_OBSERVERS, QUEUE, TooMany};
pub use latency::Latency;
pub use line::{End, Event, Http, Line, Service};
pub use pairs::PAIR_BYTES;
pub use query::{Query, QueryError};
pub use ring::FLOW_BYTES;
pub use summary::{Example, Open, PairLine, Summary};
pub use watch::Watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use crate::base::Str;
use crate::telemetry::{Flow, FlowSink, ObserveMetrics, OpenConnection, Telemetry};
use follow::Observers;
use pairs::Pairs;
use ring::Ring;

/// How much is remembered; 0 turns a memory off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Recent flows.
    pub flows: usize,
    /// Pairs of the last hour.
    pub pairs: usize,
}

/// The memory of flows, and who follows them.
pub struct Observe {
    /// The node whose flows these are.
    node: Str,
    /// What makes records into flows.
    wanted: Arc<AtomicBool>,
    next: AtomicU64,
    ring: Option<Ring>,
    pairs: Option<Pairs>,
    observers: Observers,
    metrics: ObserveMetrics,
}

/// A flow and its number, by which flows are told apart and put in order.
pub(crate) struct Seen {
    number: u64,
    flow: Flow,
}

impl Observe {
    /// Takes the flows of `telemetry` from now on.
    pub fn new(telemetry: &Telemetry, node: Str, limits: Limits) -> Arc<Self> {
        let metrics = telemetry.observe().clone();
        let observe = Arc::new(Self {
            node,
            wanted: telemetry.wants_flows(),
            next: AtomicU64::new(0),
            ring: (limits.flows > 0).then(|| Ring::new(limits.flows)),
            pairs: (limits.pairs > 0).then(|| Pairs::new(limits.pairs)),
            observers: Observers::new(metrics.observers.clone()),
            metrics,
        });
        telemetry.give_flows_to(observe.clone());
        observe.decide();
        observe
    }

    /// The flows that a query asks for.
    ///
    /// # Errors
    /// As many as may already follow.
    pub fn watch(self: &Arc<Self>, query: Query) -> Result<Watch, TooMany> {
        Watch::new(self.clone(), query)
    }

    /// The pairs of the last hour, and what is open now.
    pub fn summary(&self, open: &[OpenConnection]) -> Summary {
        let pairs = self.pairs.as_ref();
        let lines = pairs.map(|pairs| pairs.lines(SystemTime::now())).unwrap_or_default();
        let count = i64::try_from(lines.len()).unwrap_or(i64::MAX);
        self.metrics.pairs.set(count);
        Summary::new(self.node.clone(), lines, self.metrics.evicted.get(), open)
    }

    /// Whether flows are made at all.
    fn decide(&self) {
        let wanted = self.ring.is_some() || self.pairs.is_some() || self.observers.any();
        self.wanted.store(wanted, Ordering::Relaxed);
    }
}

impl FlowSink for Observe {
    fn take(&self, flow: Flow) {
        if let Some((count, evicted)) = self.pairs.as_ref().and_then(|pairs| pairs.count(&flow)) {
            self.metrics.pairs.set(i64::try_from(count).unwrap_or(i64::MAX));
            self.metrics.evicted.inc_by(evicted);
        }
        let follows = self.observers.any();
        if self.ring.is_none() && !follows {
            return;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let seen = Arc::new(Seen { number, flow });
        // First, so that whoever begins to follow meanwhile sees it here or there.
        if self.ring.as_ref().is_some_and(|ring| !ring.keep(seen.clone())) {
            self.metrics.dropped.inc();
        }
        if follows {
            let lost = self.observers.offer(&seen);
            self.metrics.dropped.inc_by(lost);
        }
    }
}
