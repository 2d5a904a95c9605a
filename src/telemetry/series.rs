//! Series by their labels: found with one lock-free hash look-up, limited by the budget, and removed when they are
//! idle.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use papaya::{Equivalent, HashMap};
use tokio::time::Instant;

use super::budget::{Budget, Charge, Charged};

/// The idle time after which a series is removed, so that pods that are gone do not fill the memory. Longer than any
/// usual scrape interval; Prometheus treats a return as a counter reset.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(60 * 60);

/// The counters of a series.
pub(super) trait Counts: Default {
    /// Increases with every change.
    fn activity(&self) -> u64;
}

/// One row of the counters.
pub(super) trait Active {
    /// Increases with every change, unless another row does.
    fn activity(&self) -> u64;
}

impl Active for AtomicU64 {
    fn activity(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }
}

/// The labels of a series, as the caller has them.
pub(super) trait SeriesLabels {
    /// The labels as a key.
    type Owned;
    fn own(&self) -> Self::Owned;
    fn charged(&self) -> Charged<'_>;
    /// Truncates values that exceed the limit of a label.
    fn fit(&self) -> bool;
    /// The labels that remain if there is no room for more.
    fn folded(&self, fold: Fold) -> Self::Owned;
}

/// How much is omitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fold {
    /// All but the namespaces.
    ButNamespaces,
    /// The namespaces too: so few series that they need no budget.
    All,
}

pub(super) struct SeriesMap<K, V> {
    series: HashMap<Arc<K>, Arc<Series<V>>>,
    budget: Arc<Budget>,
    started: Instant,
}

/// One series.
#[derive(Default)]
pub(super) struct Series<V> {
    pub(super) counts: V,
    /// The activity that was seen last.
    seen: AtomicU64,
    /// When it was first seen, in milliseconds since the map's start.
    seen_at: AtomicU64,
    charge: Option<Charge>,
}

/// A series that is being exposed.
pub(super) type Shown<K, V> = (Arc<K>, Arc<Series<V>>);

impl<K: Hash + Eq, V: Counts> SeriesMap<K, V> {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self { series: HashMap::new(), budget: budget.clone(), started: Instant::now() }
    }

    /// The series with these labels, to keep: it is not removed while a caller holds it.
    pub(super) fn get<Q>(&self, labels: &Q) -> Arc<Series<V>>
    where
        Q: SeriesLabels<Owned = K> + Equivalent<Arc<K>> + Hash + ?Sized,
    {
        let pinned = self.series.pin();
        if let Some(found) = pinned.get(labels) {
            return found.clone();
        }
        let place = if labels.fit() { self.budget.charge(labels.charged()) } else { None };
        match place {
            Some(charge) => self.insert(labels.own(), Some(charge)),
            None => self.folded(labels),
        }
    }

    /// The series of a key that is charged so, or `None` if the budget has no room for it.
    pub(super) fn within_budget<Q>(
        &self,
        key: &Q,
        charged: Charged<'_>,
        own: impl FnOnce() -> K,
    ) -> Option<Arc<Series<V>>>
    where
        Q: Equivalent<Arc<K>> + Hash + ?Sized,
    {
        let pinned = self.series.pin();
        if let Some(found) = pinned.get(key) {
            return Some(found.clone());
        }
        let charge = self.budget.charge(charged)?;
        Some(self.insert(own(), Some(charge)))
    }

    /// One of the series for samples without a budget.
    pub(super) fn folded<Q: SeriesLabels<Owned = K> + ?Sized>(&self, labels: &Q) -> Arc<Series<V>> {
        self.budget.metrics.folded.inc();
        let folded = Arc::new(labels.folded(Fold::ButNamespaces));
        if let Some(found) = self.series.pin().get(&folded) {
            return found.clone();
        }
        match self.budget.charge_total() {
            Some(charge) => self.insert_shared(folded, Some(charge)),
            None => self.insert(labels.folded(Fold::All), None),
        }
    }

    fn insert(&self, labels: K, charge: Option<Charge>) -> Arc<Series<V>> {
        self.insert_shared(Arc::new(labels), charge)
    }

    fn insert_shared(&self, labels: Arc<K>, charge: Option<Charge>) -> Arc<Series<V>> {
        let new = Arc::new(Series {
            counts: V::default(),
            seen: AtomicU64::new(0),
            seen_at: AtomicU64::new(self.now()),
            charge,
        });
        self.series.pin().get_or_insert(labels, new).clone()
    }

    /// Removes series that have been idle for too long. A concurrent change may be lost.
    pub(super) fn sweep(&self) {
        let now = self.now();
        let limit = u64::try_from(IDLE_LIMIT.as_millis()).unwrap_or(u64::MAX);
        self.series.pin().retain(|_, series| {
            let activity = series.counts.activity();
            if series.seen.swap(activity, Ordering::Relaxed) != activity {
                series.seen_at.store(now, Ordering::Relaxed);
            }
            let idle = now.saturating_sub(series.seen_at.load(Ordering::Relaxed));
            let stays = idle < limit || Arc::strong_count(series) > 1;
            if let Some(charge) = series.charge.as_ref().filter(|_| !stays) {
                charge.give_back();
            }
            stays
        });
    }

    /// All current series, to expose without blocking anybody.
    pub(super) fn all(&self) -> Vec<Shown<K, V>> {
        let pinned = self.series.pin();
        pinned.iter().map(|(labels, series)| (labels.clone(), series.clone())).collect()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::SeriesLimits;
    use super::*;

    #[derive(Default)]
    struct One(AtomicU64);
    impl Counts for One {
        fn activity(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// `namespace/name`
    struct Named<'a>(&'a str);
    impl Hash for Named<'_> {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }
    impl Equivalent<Arc<String>> for Named<'_> {
        fn equivalent(&self, key: &Arc<String>) -> bool {
            self.0 == key.as_str()
        }
    }
    impl SeriesLabels for Named<'_> {
        type Owned = String;
        fn own(&self) -> String {
            self.0.to_owned()
        }
        fn charged(&self) -> Charged<'_> {
            let namespace = self.0.split_once('/').map_or("", |(namespace, _)| namespace);
            Charged { owner: namespace, other: namespace }
        }
        fn fit(&self) -> bool {
            self.0.len() < 20
        }
        fn folded(&self, fold: Fold) -> String {
            match fold {
                Fold::ButNamespaces => format!("{}/other", self.charged().owner),
                Fold::All => "other".to_owned(),
            }
        }
    }

    fn map(total: usize, namespace: usize) -> SeriesMap<String, One> {
        SeriesMap::new(&Arc::new(Budget::new(SeriesLimits { total, namespace })))
    }

    fn names(map: &SeriesMap<String, One>) -> Vec<String> {
        let mut names: Vec<_> = map.all().iter().map(|(name, _)| name.to_string()).collect();
        names.sort();
        names
    }

    #[tokio::test(start_paused = true)]
    async fn idle_series_are_forgotten_and_held_ones_are_not() {
        let map = map(100, 3);
        let get = |name: &str| map.get(&Named(name));
        let held = get("held");
        get("idle");
        get("busy");
        map.sweep();
        tokio::time::advance(IDLE_LIMIT).await;
        get("busy").counts.0.fetch_add(1, Ordering::Relaxed);
        map.sweep();
        assert_eq!(names(&map), ["busy", "held"]);
        drop(held);
        map.sweep();
        assert_eq!(names(&map), ["busy"]);
        get("new");
        assert_eq!(names(&map), ["busy", "new"], "the place of what was forgotten is free");
    }

    #[test]
    fn what_finds_no_place_is_counted_in_sum() {
        let map = map(7, 3);
        let count = |name: &str| map.get(&Named(name)).counts.0.fetch_add(1, Ordering::Relaxed);
        for number in 0..50 {
            count(&format!("evil/{number}"));
        }
        count(&format!("evil/{:040}", 1));
        for name in ["shop/a", "shop/b", "shop/a", "bank/a", "bank/b", "bank/a"] {
            count(name);
        }
        let shown = [
            ("bank/a", 2),
            ("evil/0", 1),
            ("evil/1", 1),
            ("evil/2", 1),
            ("evil/other", 48),
            ("other", 1),
            ("shop/a", 2),
            ("shop/b", 1),
        ];
        let mut all: Vec<_> =
            map.all().iter().map(|(name, it)| (name.to_string(), it.counts.activity())).collect();
        all.sort();
        let shown = shown.map(|(name, count)| (name.to_owned(), count));
        assert_eq!(all, shown, "7 places, and one series for all that found none");
        assert_eq!(map.budget.metrics.folded.get(), 49);
    }
}
