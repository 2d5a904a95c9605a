//! How long requests take: a histogram of atomics that forgets, and one percentile of it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// A step is a quarter of a power of two, from 64 microseconds to more than an hour.
const STEPS: usize = 128;
/// The power of two with which they begin.
const FIRST: u32 = 6;
/// After so many requests the percentile is computed again; before as many nothing is said.
const EACH: u32 = 128;
/// From so many requests on, all counts are halved: what was long ago counts for less and less.
const MOST: u32 = 4096;

#[derive(Debug)]
pub(super) struct Latencies {
    steps: [AtomicU32; STEPS],
    requests: AtomicU32,
    /// In microseconds; 0: unknown.
    known: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            steps: std::array::from_fn(|_| AtomicU32::new(0)),
            requests: AtomicU32::new(0),
            known: AtomicU64::new(0),
        }
    }
}

impl Latencies {
    /// The percentile as it was computed last: never too short, and too long by a quarter at most.
    pub(super) fn known(&self) -> Option<Duration> {
        let known = self.known.load(Ordering::Relaxed);
        (known > 0).then(|| Duration::from_micros(known))
    }

    pub(super) fn add(&self, time: Duration, percentile: u32) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Some(step) = self.steps.get(step_of(micros)) {
            step.fetch_add(1, Ordering::Relaxed);
        }
        let requests = self.requests.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if requests.is_multiple_of(EACH) {
            self.compute(percentile);
        }
        if requests.is_multiple_of(MOST) {
            for step in &self.steps {
                // Others may count meanwhile; a few more or less are no matter.
                step.store(step.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            }
        }
    }

    fn compute(&self, percentile: u32) {
        let counts = self.steps.each_ref().map(|step| u64::from(step.load(Ordering::Relaxed)));
        let all: u64 = counts.iter().sum();
        let mut below = 0;
        for (step, count) in counts.iter().enumerate() {
            below += count;
            if below * 100 >= all * u64::from(percentile) {
                self.known.store(end_of(step), Ordering::Relaxed);
                return;
            }
        }
    }
}

fn step_of(micros: u64) -> usize {
    if micros < 1 << FIRST {
        return 0;
    }
    let power = micros.ilog2();
    let quarter = (micros >> (power - 2)) & 3;
    let step = (power - FIRST) as usize * 4 + quarter as usize;
    step.min(STEPS - 1)
}

/// The shortest time that is longer than all of a step.
fn end_of(step: usize) -> u64 {
    let (power, quarter) = (step as u64 / 4 + u64::from(FIRST), step as u64 % 4);
    (5 + quarter) << (power - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_within_its_step() {
        for micros in (0..=10_000).chain([100_000, 1 << 25, 3_600_000_000]) {
            let step = step_of(micros);
            let end = end_of(step);
            assert!(micros < end, "{micros} {step} {end}");
            assert!(micros < 64 || end * 4 <= micros * 5 + 4, "{micros} {step} {end}");
        }
        assert_eq!(step_of(u64::MAX), STEPS - 1);
    }
}
