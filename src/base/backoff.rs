//! The pauses between attempts that fail. They double up to a bound, and chance spreads them, so that clients that failed
//! together do not come back together.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How long to wait after a number of failures in a row.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    spread: RangeInclusive<f64>,
}

impl Backoff {
    /// Waits `first` after the first failure and twice as long after each further one, but never more than `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, spread: 1.0..=1.0 }
    }

    /// Multiplies each pause, also the longest, by a random factor in `spread`.
    pub const fn spread(self, spread: RangeInclusive<f64>) -> Self {
        Self { first: self.first, most: self.most, spread }
    }

    /// The pause after so many failures in a row. None counts as one.
    pub fn after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(u32::BITS - 1);
        let pause = self.first.saturating_mul(1 << doublings).min(self.most);
        let (least, most) = (*self.spread.start(), *self.spread.end());
        if least >= most {
            return pause;
        }
        pause.mul_f64(least + (most - least) * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(200);
    const MOST: Duration = Duration::from_secs(5);

    #[test]
    fn pauses_double_up_to_the_bound_and_are_spread_by_chance() {
        let rows = [(0, 200), (1, 200), (2, 400), (3, 800), (5, 3200), (6, 5000), (40, 5000)];
        for (failures, full) in rows.into_iter().chain([(u32::MAX, 5000)]) {
            let full = Duration::from_millis(full);
            assert_eq!(Backoff::new(FIRST, MOST).after(failures), full, "{failures}");
            for (least, most) in [(0.5, 1.0), (0.8, 1.2), (1.0, 1.25)] {
                let backoff = Backoff::new(FIRST, MOST).spread(least..=most);
                let pauses: Vec<_> = (0..100).map(|_| backoff.after(failures)).collect();
                let bounds = full.mul_f64(least)..=full.mul_f64(most);
                assert!(pauses.iter().all(|it| bounds.contains(it)), "{failures}: {pauses:?}");
                assert!(pauses.iter().any(|it| *it != pauses[0]), "{failures}: no chance");
            }
        }
    }

    #[test]
    fn a_pause_that_cannot_be_counted_is_the_longest() {
        assert_eq!(Backoff::new(Duration::MAX, MOST).after(u32::MAX), MOST);
        assert_eq!(Backoff::new(Duration::ZERO, MOST).after(9), Duration::ZERO);
    }
}
