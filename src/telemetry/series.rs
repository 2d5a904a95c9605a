//! Series by their labels: found with one hash look-up without a lock, and forgotten when nothing happens any more.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use papaya::{Equivalent, HashMap};
use tokio::time::Instant;

/// Series of one kind at the most: beyond it, what is new is not counted by labels. About 100 MiB at the worst;
/// Prometheus itself advises to stay far below.
const MAX_SERIES: usize = 50_000;

/// A series without any change for so long is forgotten with the next scrape, so that pods that are gone do not
/// fill the memory for ever. Longer than any usual scrape interval; Prometheus takes a return as a counter's reset.
const IDLE_LIMIT: Duration = Duration::from_secs(60 * 60);

/// What a series counts.
pub(super) trait Counts: Default {
    /// Grows with every change.
    fn activity(&self) -> u64;
}

pub(super) struct SeriesMap<K, V> {
    series: HashMap<K, Arc<Series<V>>>,
    /// For what came when the map was full; never shown.
    overflow: Arc<Series<V>>,
    started: Instant,
}

/// One series.
#[derive(Default)]
pub(super) struct Series<V> {
    pub(super) counts: V,
    /// The activity that the last scrape saw.
    seen: AtomicU64,
    /// When it was seen first, in milliseconds since the map's start.
    seen_at: AtomicU64,
}

impl<K: Hash + Eq, V: Counts> SeriesMap<K, V> {
    pub(super) fn new() -> Self {
        Self { series: HashMap::new(), overflow: Arc::default(), started: Instant::now() }
    }

    /// The series with these labels, to keep: it is not forgotten while somebody holds it.
    pub(super) fn get<Q>(&self, labels: &Q, own: impl FnOnce() -> K) -> Arc<Series<V>>
    where
        Q: Equivalent<K> + Hash + ?Sized,
    {
        let pinned = self.series.pin();
        if let Some(found) = pinned.get(labels) {
            return found.clone();
        }
        if pinned.len() >= MAX_SERIES {
            return self.overflow.clone();
        }
        let new = Arc::new(Series {
            counts: V::default(),
            seen: AtomicU64::new(0),
            seen_at: AtomicU64::new(self.now()),
        });
        pinned.get_or_insert(own(), new).clone()
    }

    /// Forgets what has been idle for too long. A change in the very moment of it may be lost.
    pub(super) fn sweep(&self) {
        let now = self.now();
        let limit = u64::try_from(IDLE_LIMIT.as_millis()).unwrap_or(u64::MAX);
        self.series.pin().retain(|_, series| {
            let activity = series.counts.activity();
            if series.seen.swap(activity, Ordering::Relaxed) != activity {
                series.seen_at.store(now, Ordering::Relaxed);
            }
            let idle = now.saturating_sub(series.seen_at.load(Ordering::Relaxed));
            idle < limit || Arc::strong_count(series) > 1
        });
    }

    pub(super) fn for_each<E>(
        &self,
        mut visit: impl FnMut(&K, &V) -> Result<(), E>,
    ) -> Result<(), E> {
        self.series.pin().iter().try_for_each(|(labels, series)| visit(labels, &series.counts))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct One(AtomicU64);
    impl Counts for One {
        fn activity(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn names(map: &SeriesMap<String, One>) -> Vec<String> {
        let mut names = Vec::new();
        let visited: Result<(), ()> = map.for_each(|name, _| {
            names.push(name.clone());
            Ok(())
        });
        assert_eq!(visited, Ok(()));
        names.sort();
        names
    }

    #[tokio::test(start_paused = true)]
    async fn idle_series_are_forgotten_and_held_ones_are_not() {
        let map: SeriesMap<String, One> = SeriesMap::new();
        let get = |name: &str| map.get(name, || name.to_owned());
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
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let map: SeriesMap<usize, One> = SeriesMap::new();
        for labels in 0..MAX_SERIES + 10 {
            map.get(&labels, || labels);
        }
        assert_eq!(map.series.len(), MAX_SERIES);
    }
}
