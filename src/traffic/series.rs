//! What outlier detection has done on this node, by service and port, for the metrics. All policies for a port count together.
//!
//! Tenants create services, so the number of series is bounded, in total and for each namespace of services. What comes beyond counts
//! as `other`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::base::Str;

const MOST_SERIES: usize = 1000;
/// Of the services of one namespace.
const MOST_OF_NAMESPACE: usize = 100;
/// Stands for what has no series of its own.
const OTHER: Str = arcstr::literal!("other");

/// The port of a service, as metrics name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    pub namespace: Str,
    pub service: Str,
    /// 0 where several services count together.
    pub port: u16,
}

/// The counts so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    pub ejections: u64,
    /// Endpoints that were not ejected because enough others were.
    pub overflows: u64,
    /// Ejected at present.
    pub active: i64,
}

/// Counts of one port.
#[derive(Debug, Default)]
pub(super) struct Series {
    ejections: AtomicU64,
    overflows: AtomicU64,
    active: AtomicI64,
}

static ALL: Mutex<BTreeMap<ServicePort, Arc<Series>>> = Mutex::new(BTreeMap::new());

/// All counts. Only who builds and who scrapes come here.
pub fn totals() -> Vec<(ServicePort, Totals)> {
    let all = ALL.lock();
    all.iter().map(|(port, series)| (port.clone(), series.totals())).collect()
}

/// The series of a port.
pub(super) fn of(port: &ServicePort) -> Arc<Series> {
    let mut all = ALL.lock();
    if let Some(known) = all.get(port) {
        return known.clone();
    }
    let is_full = |all: &BTreeMap<ServicePort, Arc<Series>>| {
        let of_namespace = all.keys().filter(|known| known.namespace == port.namespace);
        (all.len() >= MOST_SERIES, of_namespace.count() >= MOST_OF_NAMESPACE)
    };
    if is_full(&all) != (false, false) {
        // Of services that are gone.
        all.retain(|_, series| Arc::strong_count(series) > 1);
    }
    let key = match is_full(&all) {
        (false, false) => port.clone(),
        (false, true) => ServicePort { service: OTHER, port: 0, ..port.clone() },
        (true, _) => ServicePort { namespace: OTHER, service: OTHER, port: 0 },
    };
    all.entry(key).or_default().clone()
}

impl Series {
    fn totals(&self) -> Totals {
        Totals {
            ejections: self.ejections.load(Ordering::Relaxed),
            overflows: self.overflows.load(Ordering::Relaxed),
            active: self.active.load(Ordering::Relaxed),
        }
    }

    pub(super) fn ejected(&self) {
        self.ejections.fetch_add(1, Ordering::Relaxed);
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn returned(&self, endpoints: usize) {
        self.active.fetch_sub(i64::try_from(endpoints).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    pub(super) fn overflowed(&self) {
        self.overflows.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(namespace: &str, number: usize) -> ServicePort {
        let service = format!("web-{number}").into();
        ServicePort { namespace: namespace.into(), service, port: 80 }
    }

    /// One test, because the table is the process's.
    #[test]
    fn the_number_of_series_is_bounded_in_total_and_by_namespace() {
        let greedy: Vec<_> = (0..2000).map(|number| of(&port("series-greedy", number))).collect();
        greedy.iter().for_each(|series| series.ejected());
        let of_greedy = || {
            let all = totals();
            let own = all.into_iter().filter(|(port, _)| port.namespace == "series-greedy");
            own.collect::<Vec<_>>()
        };
        assert_eq!(of_greedy().len(), MOST_OF_NAMESPACE + 1);
        let counted: u64 = of_greedy().iter().map(|(_, totals)| totals.ejections).sum();
        assert_eq!(counted, 2000, "none is lost");
        let modest = of(&port("series-modest", 1));
        assert!(Arc::ptr_eq(&modest, &of(&port("series-modest", 1))));
        assert!(totals().iter().any(|(known, _)| *known == port("series-modest", 1)));
        let others: Vec<_> = (0..50)
            .flat_map(|namespace| (0..90).map(move |number| (namespace, number)))
            .map(|(namespace, number)| of(&port(&format!("series-{namespace}"), number)))
            .collect();
        assert!(totals().len() <= MOST_SERIES + 1, "{}", totals().len());
        drop((others, greedy));
        // Services that are gone make room.
        let late = port("series-late", 1);
        let _series = of(&late);
        assert!(totals().iter().any(|(known, _)| *known == late));
    }
}
