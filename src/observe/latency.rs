//! How long requests took: counts in buckets whose bounds grow by about a half or a third each, from which percentiles are read to
//! that accuracy.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Up to 2^24 microseconds, or 16 s, and beyond.
const BUCKETS: usize = 48;

/// Counts that threads add to.
pub(super) struct Buckets([AtomicU32; BUCKETS]);

/// Counts as they were at some moment. Buckets without any are left out, as pairs of bucket and count.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Latency(Vec<(u8, u32)>);

impl Default for Buckets {
    fn default() -> Self {
        Self([const { AtomicU32::new(0) }; BUCKETS])
    }
}

impl Buckets {
    pub(super) fn add(&self, duration: Duration) {
        if let Some(bucket) = self.0.get(bucket(duration)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn now(&self) -> Latency {
        let counts = (0..).zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)));
        Latency(counts.filter(|(_, count)| *count > 0).collect())
    }
}

impl Latency {
    /// What came since an earlier moment.
    pub fn since(&self, before: &Self) -> Self {
        let old = |bucket| before.0.iter().find(|(it, _)| *it == bucket).map_or(0, |(_, it)| *it);
        let more = self.0.iter().map(|(bucket, count)| (*bucket, count.wrapping_sub(old(*bucket))));
        Self(more.filter(|(_, count)| *count > 0).collect())
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            match self.0.iter_mut().find(|(it, _)| it == bucket) {
                Some((_, sum)) => *sum = sum.wrapping_add(*count),
                None => self.0.push((*bucket, *count)),
            }
        }
        self.0.sort_unstable();
    }

    /// What so many percent took at the most, about; `None` if there is nothing.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let total: u64 = self.0.iter().map(|(_, count)| u64::from(*count)).sum();
        let mut left = total as f64 * percent / 100.0;
        let last = self.0.last()?.0;
        for (bucket, count) in &self.0 {
            left -= f64::from(*count);
            if left <= 0.0 {
                return Some(bound(*bucket));
            }
        }
        Some(bound(last))
    }
}

/// Two buckets for each power of two of microseconds.
fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1);
    let power = micros.ilog2();
    let half = if power == 0 { 0 } else { (micros >> (power - 1)) & 1 };
    let bucket = 2 * power as usize + usize::from(half == 1);
    bucket.min(BUCKETS - 1)
}

/// The upper bound of a bucket.
fn bound(bucket: u8) -> Duration {
    let power = 1_u64 << (bucket / 2).min(62);
    let micros = if bucket.is_multiple_of(2) { power + power / 2 } else { power * 2 };
    Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_read_to_half_of_their_value() {
        let buckets = Buckets::default();
        (1..=1_000).for_each(|ms| buckets.add(Duration::from_millis(ms)));
        let all = buckets.now();
        for (percent, exact) in [(50.0, 500.0), (90.0, 900.0), (99.0, 990.0)] {
            let read = all.percentile(percent).unwrap().as_secs_f64() * 1e3;
            assert!(read >= exact * 0.99 && read <= exact * 1.5, "{percent}: {read}");
        }
        assert_eq!(Latency::default().percentile(50.0), None);
    }

    #[test]
    fn what_came_since_is_counted_alone() {
        let buckets = Buckets::default();
        buckets.add(Duration::from_micros(100));
        let before = buckets.now();
        buckets.add(Duration::from_secs(3_600));
        let since = buckets.now().since(&before);
        assert_eq!(since.percentile(1.0), Some(bound(47)), "the longest are one bucket");
        let mut both = before.clone();
        both.add(&since);
        assert_eq!(both, buckets.now());
    }
}
