//! Peak EWMA: how long an endpoint takes, as Finagle and Linkerd estimate it.
//!
//! The estimate rises to a slow answer at once and falls slowly. What was not measured for a while loses weight, so that an
//! endpoint that was slow is tried again; a request in flight counts as much as the estimate, so that few go there at first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// After so long without an answer an estimate has lost two thirds of its weight: Finagle's and Linkerd's default.
const DECAY: Duration = Duration::from_secs(10);
/// What a failure counts as, at least: an endpoint that refuses at once must not look fast.
const FAILURE: Duration = Duration::from_secs(1);

/// Microseconds as `f32`, above the milliseconds at which they were right. 0: nothing was measured.
#[derive(Debug, Default)]
pub(super) struct Latency(AtomicU64);

impl Latency {
    /// The estimate at `now`, in microseconds; `None` before the first answer.
    pub(super) fn estimate(&self, now: u64) -> Option<f32> {
        estimate(self.0.load(Ordering::Relaxed), now)
    }

    pub(super) fn observe(&self, now: u64, took: Duration, failed: bool) {
        let took = if failed { took.max(FAILURE) } else { took };
        // At least one, because zero stands for nothing.
        let sample = (took.as_secs_f32() * 1e6).max(1.0);
        let next = |packed| {
            let value = match unpack(packed) {
                Some((before, at)) if sample <= before * left(now, at) => {
                    let left = left(now, at);
                    before * left + sample * (1.0 - left)
                }
                _ => sample,
            };
            Some(pack(value, now))
        };
        _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// As before the first answer.
    pub(super) fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// What a request would wait for, to be compared with others: the estimate for each request in flight and the new one. An endpoint of
/// which nothing is known gets one request at a time.
pub(super) fn cost(estimate: Option<f32>, in_flight: u32) -> f32 {
    match (estimate, in_flight) {
        (Some(estimate), _) => estimate * (in_flight as f32 + 1.0),
        (None, 0) => 0.0,
        (None, _) => f32::INFINITY,
    }
}

fn estimate(packed: u64, now: u64) -> Option<f32> {
    unpack(packed).map(|(value, at)| value * left(now, at))
}

fn unpack(packed: u64) -> Option<(f32, u32)> {
    let value = f32::from_bits((packed >> 32) as u32);
    (value > 0.0).then_some((value, packed as u32))
}

fn pack(value: f32, now: u64) -> u64 {
    u64::from(value.to_bits()) << 32 | (now & u64::from(u32::MAX))
}

/// What is left of a value's weight. Clocks of threads differ a little, so `at` may be later.
fn left(now: u64, at: u32) -> f32 {
    let elapsed = (now as u32).wrapping_sub(at) as i32;
    (-(elapsed.max(0) as f32) / DECAY.as_millis() as f32).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_rises_at_once_and_falls_slowly() {
        let latency = Latency::default();
        assert_eq!(latency.estimate(0), None);
        latency.observe(0, 10 * MS, false);
        latency.observe(1, 500 * MS, false);
        assert_eq!(latency.estimate(1), Some(500_000.0));
        latency.observe(2, 10 * MS, false);
        assert!(latency.estimate(2).unwrap() > 490_000.0);
        // Answer by answer, or by time alone.
        for second in 1..=60 {
            latency.observe(second * 1000, 10 * MS, false);
        }
        let fast = latency.estimate(60_000).unwrap();
        assert!((9_000.0..15_000.0).contains(&fast), "{fast}");
        assert!(latency.estimate(120_000).unwrap() < fast / 100.0);
    }

    #[test]
    fn a_failure_is_never_fast() {
        let latency = Latency::default();
        latency.observe(0, MS, true);
        assert_eq!(latency.estimate(0), Some(1e6));
        latency.observe(0, Duration::from_secs(3), true);
        assert_eq!(latency.estimate(0), Some(3e6));
    }

    #[test]
    fn what_is_in_flight_counts_and_the_unknown_gets_one_at_a_time() {
        assert_eq!(cost(Some(10.0), 0), 10.0);
        assert_eq!(cost(Some(10.0), 3), 40.0);
        assert_eq!(cost(None, 0), 0.0);
        assert!(cost(None, 1) > cost(Some(1e9), 1000));
    }

    #[test]
    fn clocks_that_differ_or_wrap_do_no_harm() {
        let latency = Latency::default();
        let late = u64::from(u32::MAX) - 10;
        latency.observe(late, 100 * MS, false);
        assert_eq!(latency.estimate(late - 5), Some(100_000.0));
        let after = latency.estimate(late + 1000).unwrap();
        assert!((90_000.0..91_000.0).contains(&after), "{after}");
    }
}
