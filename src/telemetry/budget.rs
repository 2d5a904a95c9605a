//! Limits on the number of series: in total, and per namespace.
//!
//! A series is charged to the namespace whose workload reports it (the client's if the source reports, otherwise the
//! server's). Within that namespace's budget, each peer namespace may use only a part, so that a tenant that keeps
//! changing labels fills that part and not the whole. Samples without a budget count in a series of the two namespaces,
//! with `other` for all other labels: totals stay correct.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use papaya::{Equivalent, HashMap};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::base::Str;

/// The part of a namespace's series that a peer namespace may use: one over this.
const PART: usize = 4;

/// The memory of one series, in bytes: its counters and, at worst, its labels, which are rarely shared.
pub const SERIES_BYTES: usize = 4 * 1024;

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesLimits {
    /// Of all namespaces together.
    pub total: usize,
    /// Of one namespace.
    pub namespace: usize,
}

/// The namespaces to which a series is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Charged<'a> {
    /// The namespace of the workload that reports.
    pub(super) owner: &'a str,
    /// The namespace at the other end; the same if there is none.
    pub(super) other: &'a str,
}

/// The budget of all series.
pub(super) struct Budget {
    limits: SeriesLimits,
    total: Arc<AtomicUsize>,
    owners: HashMap<Str, Arc<Owner>>,
    pairs: HashMap<Pair, Arc<AtomicUsize>>,
    told: AtomicBool,
    pub(super) metrics: SeriesMetrics,
}

metrics! {
    pub(super) struct SeriesMetrics {
        /// Series of metrics by labels that objects or peers choose ([metrics] max_series).
        pub(super) series: Gauge = "isthmus_metrics_series";
        /// Samples that were counted with the label `other`, because their namespace, or all of them, had as many series
        /// as they may ([metrics]).
        pub(super) folded: Counter = "isthmus_metrics_folded";
    }
}

/// One namespace's series.
#[derive(Default)]
struct Owner {
    taken: AtomicUsize,
    told: AtomicBool,
}

#[derive(PartialEq, Eq)]
struct Pair {
    owner: Str,
    other: Str,
}

/// The reservation of one series; released when dropped, or earlier.
pub(super) struct Charge {
    total: Option<Arc<AtomicUsize>>,
    owner: Option<Arc<Owner>>,
    pair: Option<Arc<AtomicUsize>>,
    given_back: AtomicBool,
}

impl Default for SeriesLimits {
    /// Some 4 KiB each with the longest labels, so 80 MiB at the worst, and most take a quarter of that. A namespace
    /// with 20 services that are called from 10 others with 5 outcomes has 1,000; Prometheus itself advises to stay
    /// far below.
    fn default() -> Self {
        Self { total: 20_000, namespace: 4_000 }
    }
}

impl Budget {
    pub(super) fn new(limits: SeriesLimits) -> Self {
        Self {
            limits,
            total: Arc::default(),
            owners: HashMap::new(),
            pairs: HashMap::new(),
            told: AtomicBool::new(false),
            metrics: SeriesMetrics::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        self.metrics.register_rows(registry);
    }

    /// A reservation for one more series, if the budgets of its namespaces allow it.
    pub(super) fn charge(&self, charged: Charged<'_>) -> Option<Charge> {
        let owner = self.owner(charged.owner);
        let pair = (charged.owner != charged.other).then(|| self.pair(charged));
        if !take(&owner.taken, self.limits.namespace) {
            self.tell(charged, &owner, self.limits.namespace);
            return None;
        }
        let part = (self.limits.namespace / PART).max(1);
        if pair.as_ref().is_some_and(|pair| !take(pair, part)) {
            owner.taken.fetch_sub(1, Ordering::Relaxed);
            self.tell(charged, &owner, part);
            return None;
        }
        // Without a total budget, dropping the charge releases the rest.
        self.in_total(Charge::of(Some(owner), pair))
    }

    /// A reservation for one more series without a namespace.
    pub(super) fn charge_total(&self) -> Option<Charge> {
        self.in_total(Charge::of(None, None))
    }

    fn in_total(&self, mut charge: Charge) -> Option<Charge> {
        if take(&self.total, self.limits.total) {
            charge.total = Some(self.total.clone());
            return Some(charge);
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                limit = self.limits.total,
                setting = "metrics.max_series",
                "the limit of metric series is reached: new ones are counted as `other` until some are idle \
                 for an hour"
            );
        }
        None
    }

    /// Exposes the number of series, and forgets namespaces without any.
    pub(super) fn tidy(&self) {
        let total = self.total.load(Ordering::Relaxed);
        self.metrics.series.set(i64::try_from(total).unwrap_or(i64::MAX));
        let idle = |taken: &AtomicUsize| taken.load(Ordering::Relaxed) == 0;
        self.owners.pin().retain(|_, owner| !idle(&owner.taken) || Arc::strong_count(owner) > 1);
        self.pairs.pin().retain(|_, pair| !idle(pair) || Arc::strong_count(pair) > 1);
        if total < self.limits.total / 2 {
            self.told.store(false, Ordering::Relaxed);
        }
    }

    fn owner(&self, namespace: &str) -> Arc<Owner> {
        let pinned = self.owners.pin();
        if let Some(owner) = pinned.get(namespace) {
            return owner.clone();
        }
        pinned.get_or_insert_with(namespace.into(), Arc::default).clone()
    }

    fn pair(&self, charged: Charged<'_>) -> Arc<AtomicUsize> {
        let pinned = self.pairs.pin();
        if let Some(pair) = pinned.get(&charged) {
            return pair.clone();
        }
        let pair = Pair { owner: charged.owner.into(), other: charged.other.into() };
        pinned.get_or_insert_with(pair, Arc::default).clone()
    }

    /// Once per namespace.
    fn tell(&self, charged: Charged<'_>, owner: &Owner, limit: usize) {
        if !owner.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                namespace = charged.owner,
                with = charged.other,
                limit,
                setting = "metrics.max_namespace_series",
                "a namespace is at its limit of metric series (a quarter of it with any other one): new ones are counted \
                 as `other`; check whether its pods' labels change all the time"
            );
        }
    }
}

impl Charge {
    fn of(owner: Option<Arc<Owner>>, pair: Option<Arc<AtomicUsize>>) -> Self {
        Self { total: None, owner, pair, given_back: AtomicBool::new(false) }
    }

    /// For a series that is removed: its memory is freed when the last reader of the map has left.
    pub(super) fn give_back(&self) {
        if self.given_back.swap(true, Ordering::Relaxed) {
            return;
        }
        let owner = self.owner.as_ref().map(|owner| &owner.taken);
        for count in [self.total.as_deref(), owner, self.pair.as_deref()].into_iter().flatten() {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Hash for Pair {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Charged { owner: &self.owner, other: &self.other }.hash(state);
    }
}

impl Hash for Charged<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.owner, self.other).hash(state);
    }
}

impl Equivalent<Pair> for Charged<'_> {
    fn equivalent(&self, key: &Pair) -> bool {
        self.owner == &*key.owner && self.other == &*key.other
    }
}

/// One more, within the limit.
fn take(count: &AtomicUsize, limit: usize) -> bool {
    let more = |taken| (taken < limit).then_some(taken + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SeriesLimits = SeriesLimits { total: 100, namespace: 40 };

    /// How many places these two get.
    fn fill(budget: &Budget, owner: &str, other: &str, held: &mut Vec<Charge>) -> usize {
        let before = held.len();
        held.extend(std::iter::from_fn(|| budget.charge(Charged { owner, other })).take(1_000));
        held.len() - before
    }

    #[test]
    fn a_namespace_takes_its_part_of_another_s_and_no_more() {
        let (budget, mut held) = (Budget::new(LIMITS), Vec::new());
        assert_eq!(fill(&budget, "shop", "evil", &mut held), 10);
        assert_eq!(fill(&budget, "shop", "", &mut held), 10);
        assert_eq!(fill(&budget, "shop", "shop", &mut held), 20, "the rest is its own");
        assert_eq!(fill(&budget, "evil", "shop", &mut held), 10, "and evil's is another");
        held.clear();
        assert_eq!(fill(&budget, "shop", "evil", &mut held), 10, "given back when dropped");
    }

    #[test]
    fn there_is_a_limit_for_all() {
        let (budget, mut held) = (Budget::new(LIMITS), Vec::new());
        let namespaces = ["a", "b", "c", "d"];
        let got = namespaces.map(|it| fill(&budget, it, it, &mut held));
        assert_eq!(got, [40, 40, 20, 0]);
        assert!(budget.charge_total().is_none());
        budget.tidy();
        assert_eq!(budget.metrics.series.get(), 100);
        held.clear();
        budget.tidy();
        assert_eq!(
            (budget.metrics.series.get(), budget.owners.len(), budget.pairs.len()),
            (0, 0, 0)
        );
        assert!(budget.charge_total().is_some());
    }
}
