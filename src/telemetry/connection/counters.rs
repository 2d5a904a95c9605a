//! The counters of a connection: one series, unless Telemetry objects disable metrics or change labels of some.

use std::sync::Arc;

use super::facts::Seen;
use super::labels;
use crate::base::Reason;
use crate::telemetry::metric_set::{Metric, MetricSet};
use crate::telemetry::metrics::ConnectionCounts;
use crate::telemetry::rules::Rules;
use crate::telemetry::series::Series;
use crate::telemetry::tagged::Wanted;
use crate::telemetry::{ConnectionStart, Telemetry};

type Counted = Arc<Series<ConnectionCounts>>;

/// Resolved once: counting bytes is an addition.
pub(super) enum Counters {
    Plain(Counted),
    /// Where rules say something of connections.
    Ruled(Box<Ruled>),
}

/// The series of each metric.
pub(super) struct Ruled {
    opened: Counted,
    closed: Counted,
    sent: Counted,
    received: Counted,
}

impl Counters {
    pub(super) fn of(telemetry: &Telemetry, start: &ConnectionStart) -> Self {
        match start.rules.as_deref().filter(|rules| rules.count_connections_otherwise()) {
            None => Counters::Plain(plain(telemetry, start)),
            Some(rules) => Counters::Ruled(Box::new(Ruled::new(telemetry, start, rules))),
        }
    }

    pub(super) fn of_metric(&self, metric: Metric) -> &ConnectionCounts {
        let ruled = match self {
            Counters::Plain(series) => return &series.counts,
            Counters::Ruled(ruled) => ruled,
        };
        match metric {
            Metric::TcpOpenedConnections => &ruled.opened.counts,
            Metric::TcpClosedConnections => &ruled.closed.counts,
            Metric::TcpSentBytes => &ruled.sent.counts,
            _ => &ruled.received.counts,
        }
    }
}

fn plain(telemetry: &Telemetry, start: &ConnectionStart) -> Counted {
    let labels = labels(start, Reason::None);
    telemetry.traffic().connections.get(&Wanted { labels, changed: None })
}

impl Ruled {
    fn new(telemetry: &Telemetry, start: &ConnectionStart, rules: &Rules) -> Self {
        // As the connection begins, since its series are those of all its bytes.
        let seen = Seen::begun(start);
        let tags = rules.connection_tags.as_deref();
        let values = tags.map(|tags| tags.evaluate(|_| seen)).unwrap_or_default();
        let series = |metric| {
            if rules.disabled.has(metric) {
                // Of no map, and so never shown.
                return Counted::default();
            }
            let group = tags.and_then(|it| it.groups.iter().find(|it| it.metrics.has(metric)));
            let changed = group.map(|group| (group, &values[..]));
            let labels = labels(start, Reason::None);
            telemetry.traffic().connections.get(&Wanted { labels, changed })
        };
        Self {
            opened: series(Metric::TcpOpenedConnections),
            closed: series(Metric::TcpClosedConnections),
            sent: series(Metric::TcpSentBytes),
            received: series(Metric::TcpReceivedBytes),
        }
    }
}

impl Rules {
    fn count_connections_otherwise(&self) -> bool {
        let disabled = self.disabled.and(MetricSet::CONNECTIONS);
        !disabled.is_empty() || self.connection_tags.is_some()
    }
}
