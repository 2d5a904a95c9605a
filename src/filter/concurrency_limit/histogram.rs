//! Latencies of a window, by their logarithm: recorded by many threads without a lock, and asked for a percentile.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Buckets per doubling, so that a percentile is wrong by a sixteenth at most.
const PER_OCTAVE: u64 = 16;
/// The shortest unit: a microsecond, almost.
const UNIT_SHIFT: u32 = 10;
/// Doublings after the first 16 units: up to a minute. What is longer counts as that.
const OCTAVES: u64 = 22;
const BUCKETS: usize = (PER_OCTAVE + OCTAVES * PER_OCTAVE) as usize;

#[derive(Debug)]
pub(super) struct Histogram {
    buckets: Box<[AtomicU32]>,
    count: AtomicU32,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = (0..BUCKETS).map(|_| AtomicU32::new(0)).collect();
        Self { buckets, count: AtomicU32::new(0) }
    }
}

impl Histogram {
    /// Records one, and says how many there are now.
    pub(super) fn record(&self, latency: Duration) -> u32 {
        if let Some(bucket) = self.buckets.get(bucket_of(latency)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    pub(super) fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
        self.count.store(0, Ordering::Relaxed);
    }

    /// The latency that so many of a hundred do not exceed; `None` without any.
    pub(super) fn percentile(&self, percent: u32) -> Option<Duration> {
        let counts = || self.buckets.iter().map(|it| u64::from(it.load(Ordering::Relaxed)));
        let all: u64 = counts().sum();
        let rank = (all * u64::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        for (at, count) in counts().enumerate() {
            if count > 0 && seen + count >= rank {
                let (from, width) = bounds(at as u64);
                let units = from as f64 + width as f64 * (rank - seen) as f64 / count as f64;
                return Some(Duration::from_nanos((units * f64::from(1 << UNIT_SHIFT)) as u64));
            }
            seen += count;
        }
        None
    }
}

fn bucket_of(latency: Duration) -> usize {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    let units = nanos >> UNIT_SHIFT;
    if units < PER_OCTAVE {
        return units as usize;
    }
    let octave = u64::from(units.ilog2() - PER_OCTAVE.ilog2());
    let within = (units >> octave) % PER_OCTAVE;
    ((PER_OCTAVE + octave * PER_OCTAVE + within) as usize).min(BUCKETS - 1)
}

/// Where a bucket begins, and how wide it is, in units.
fn bounds(at: u64) -> (u64, u64) {
    if at < PER_OCTAVE {
        return (at, 1);
    }
    let (octave, within) = ((at - PER_OCTAVE) / PER_OCTAVE, at % PER_OCTAVE);
    ((PER_OCTAVE + within) << octave, 1 << octave)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_not_recorded_has_no_percentile() {
        let histogram = Histogram::default();
        assert_eq!(histogram.percentile(50), None);
        assert_eq!(histogram.record(Duration::from_millis(1)), 1);
        histogram.clear();
        assert_eq!(histogram.percentile(50), None);
    }

    #[test]
    fn what_lasts_for_hours_counts_as_the_longest() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_secs(36_000));
        let longest = histogram.percentile(100).unwrap();
        assert!(longest > Duration::from_secs(30), "{longest:?}");
    }

    proptest! {
        /// Between the latency of its rank and a sixteenth more, or two microseconds.
        #[test]
        fn a_percentile_is_near_the_exact_one(
            mut micros in proptest::collection::vec(1u64..20_000_000, 1..200),
            percent in 1u32..=100,
        ) {
            let histogram = Histogram::default();
            for latency in &micros {
                histogram.record(Duration::from_micros(*latency));
            }
            micros.sort_unstable();
            let rank = (micros.len() * percent as usize).div_ceil(100).max(1);
            let exact = micros[rank - 1] as f64;
            let found = histogram.percentile(percent).unwrap().as_secs_f64() * 1e6;
            prop_assert!((found - exact).abs() <= exact / 16.0 + 2.0, "{found} instead of {exact}");
        }
    }
}
