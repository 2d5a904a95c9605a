//! A limit that follows the latency: the gradient controller of Envoy's `adaptive_concurrency`.
//!
//! While few requests are in progress, the latency without congestion is measured (`minRtt`). In each window after that,
//! the limit is multiplied by the ratio of that latency, with some buffer, to the window's, and gets the square root of the
//! result on top: it grows while latency stays low and shrinks as requests begin to queue.
//!
//! Two things differ from Envoy. Requests that find few others count as measurements at any time, so a window in which the
//! limit is the lowest, and traffic is shed for it, comes only where traffic leaves no calm moment in an interval. And a
//! limit of which less than half was used does not grow, since nothing says that more would do.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::Histogram;

/// After so many windows in a row at the lowest limit the latency is measured again: it may be another one now (Envoy).
const PINNED: u32 = 5;

/// How the limit follows the latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Adaptive {
    /// The limit is never lower, and it is this one while the latency is measured.
    pub min: u32,
    /// The limit is never higher.
    pub max: u32,
    /// Which latency of a window counts.
    pub percentile: u32,
    #[serde(serialize_with = "crate::filter::duration")]
    pub window: Duration,
    pub min_rtt: MinRtt,
}

/// The latency without congestion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MinRtt {
    /// It is measured again after this time.
    #[serde(serialize_with = "crate::filter::duration")]
    pub interval: Duration,
    /// Of so many requests.
    pub requests: u32,
    /// By how many percent an interval may be longer, so that pods do not measure at the same time.
    pub jitter: u32,
    /// How many percent more are no congestion.
    pub buffer: u32,
    /// It is known, and not measured.
    pub fixed: Option<Duration>,
}

/// A response, as the gradient sees it. Times are nanoseconds of the same clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) began: u64,
    pub(super) now: u64,
    pub(super) latency: Duration,
    /// Few others were in progress.
    pub(super) calm: bool,
}

/// The state of one limit.
#[derive(Debug)]
pub(super) struct Gradient {
    /// 0: nothing is known yet.
    limit: AtomicU32,
    /// Nanoseconds; 0: not measured yet.
    min_rtt: AtomicU64,
    /// The latency is measured, with the lowest limit.
    measuring: AtomicBool,
    /// When that began.
    since: AtomicU64,
    next_window: AtomicU64,
    next_measurement: AtomicU64,
    /// Windows in a row at the lowest limit.
    pinned: AtomicU32,
    /// The most requests in progress since the window began.
    peak: AtomicU32,
    /// One thread changes the state at a time; others go on.
    changing: AtomicBool,
    seen: OnceLock<Box<Seen>>,
}

/// The latencies since the window and the measurement began.
#[derive(Debug, Default)]
struct Seen {
    window: Histogram,
    calm: Histogram,
}

impl Default for Gradient {
    fn default() -> Self {
        Self {
            limit: AtomicU32::new(0),
            min_rtt: AtomicU64::new(0),
            measuring: AtomicBool::new(true),
            since: AtomicU64::new(0),
            next_window: AtomicU64::new(0),
            next_measurement: AtomicU64::new(0),
            pinned: AtomicU32::new(0),
            peak: AtomicU32::new(0),
            changing: AtomicBool::new(false),
            seen: OnceLock::new(),
        }
    }
}

impl Gradient {
    /// The limit at present.
    pub(super) fn limit(&self, by: &Adaptive) -> u32 {
        match self.measures(by) {
            true => by.min,
            false => self.limit.load(Ordering::Relaxed).clamp(by.min, by.max),
        }
    }

    /// So many requests are in progress.
    pub(super) fn note(&self, in_progress: u32) {
        self.peak.fetch_max(in_progress, Ordering::Relaxed);
    }

    fn measures(&self, by: &Adaptive) -> bool {
        by.min_rtt.fixed.is_none() && self.measuring.load(Ordering::Relaxed)
    }

    /// Takes note of a response, and changes the limit when it is time.
    pub(super) fn heard(&self, by: &Adaptive, sample: Sample) {
        let seen = self.seen.get_or_init(Box::default);
        let measures = self.measures(by);
        if measures && sample.began < self.since.load(Ordering::Relaxed) {
            // It began with others that were let in by a higher limit.
            return;
        }
        let mut enough = false;
        if by.min_rtt.fixed.is_none() && (measures || sample.calm) {
            enough = seen.calm.record(sample.latency) >= by.min_rtt.requests;
        }
        if !measures {
            seen.window.record(sample.latency);
        }
        let has_to_measure = by.min_rtt.fixed.is_none()
            && !measures
            && !sample.calm
            && sample.now >= self.next_measurement.load(Ordering::Relaxed);
        let is_over = !measures && sample.now >= self.next_window.load(Ordering::Relaxed);
        if !(enough || has_to_measure || is_over) || self.changing.swap(true, Ordering::Acquire) {
            return;
        }
        if enough {
            self.measured(by, seen, sample.now);
        } else if has_to_measure {
            self.measure(seen, sample.now);
        } else {
            self.update(by, seen, sample.now);
        }
        self.changing.store(false, Ordering::Release);
    }

    /// Begins to measure.
    fn measure(&self, seen: &Seen, now: u64) {
        seen.calm.clear();
        self.since.store(now, Ordering::Relaxed);
        self.measuring.store(true, Ordering::Relaxed);
    }

    fn measured(&self, by: &Adaptive, seen: &Seen, now: u64) {
        if let Some(latency) = seen.calm.percentile(by.percentile) {
            self.min_rtt.store(nanos(latency).max(1), Ordering::Relaxed);
        }
        seen.calm.clear();
        let MinRtt { interval, jitter, .. } = by.min_rtt;
        let longer = nanos(interval) / 100 * u64::from(fastrand::u32(..=jitter));
        self.next_measurement.store(now + nanos(interval) + longer, Ordering::Relaxed);
        if self.measuring.swap(false, Ordering::Relaxed) {
            seen.window.clear();
            self.pinned.store(0, Ordering::Relaxed);
            self.next_window.store(now + nanos(by.window), Ordering::Relaxed);
        }
    }

    /// The limit after a window.
    fn update(&self, by: &Adaptive, seen: &Seen, now: u64) {
        self.next_window.store(now + nanos(by.window), Ordering::Relaxed);
        let peak = self.peak.swap(0, Ordering::Relaxed);
        let latency = seen.window.percentile(by.percentile);
        seen.window.clear();
        let fixed = by.min_rtt.fixed.map(nanos);
        let min_rtt = fixed.unwrap_or_else(|| self.min_rtt.load(Ordering::Relaxed));
        let (Some(latency), true) = (latency, min_rtt > 0) else { return };
        let before = self.limit(by);
        let expected = min_rtt as f64 * (1.0 + f64::from(by.min_rtt.buffer) / 100.0);
        let gradient = (expected / nanos(latency).max(1) as f64).clamp(0.5, 2.0);
        let scaled = f64::from(before) * gradient;
        let after = ((scaled + scaled.sqrt()) as u32).clamp(by.min, by.max);
        if after <= before || peak.saturating_mul(2) >= before {
            self.limit.store(after, Ordering::Relaxed);
        }
        if after > by.min {
            self.pinned.store(0, Ordering::Relaxed);
        } else if self.pinned.fetch_add(1, Ordering::Relaxed) + 1 >= PINNED
            && by.min_rtt.fixed.is_none()
        {
            self.measure(seen, now);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY: Adaptive = Adaptive {
        min: 3,
        max: 200,
        percentile: 50,
        window: Duration::from_millis(100),
        min_rtt: MinRtt {
            interval: Duration::from_secs(60),
            requests: 50,
            jitter: 0,
            buffer: 25,
            fixed: None,
        },
    };

    const MILLI: u64 = 1_000_000;

    /// An application that works on `capacity` requests at once, each for 10 ms, and lets others queue; clients always ask for
    /// `demand` at once. Advances by so many milliseconds; the rejected are counted.
    struct Trial {
        gradient: Gradient,
        by: Adaptive,
        now: u64,
        capacity: u64,
        demand: u32,
        rejected: u32,
    }

    impl Trial {
        fn new(by: Adaptive, capacity: u64, demand: u32) -> Self {
            Self { gradient: Gradient::default(), by, now: 0, capacity, demand, rejected: 0 }
        }

        /// Rounds of requests that begin together, each as many as the limit lets in.
        fn run(&mut self, millis: u64) -> u32 {
            let until = self.now + millis * MILLI;
            while self.now < until {
                let limit = self.gradient.limit(&self.by);
                let admitted = self.demand.min(limit);
                self.rejected += self.demand - admitted;
                self.gradient.note(admitted);
                let began = self.now;
                let waves = u64::from(admitted).div_ceil(self.capacity).max(1);
                self.now += waves * 10 * MILLI;
                for number in 0..u64::from(admitted) {
                    let latency = Duration::from_millis((number / self.capacity + 1) * 10);
                    let calm = admitted <= self.by.min;
                    self.gradient.heard(&self.by, Sample { began, now: self.now, latency, calm });
                }
            }
            self.gradient.limit(&self.by)
        }
    }

    #[test]
    fn finds_what_an_application_takes_without_queueing() {
        for capacity in [10, 40, 100] {
            let mut trial = Trial::new(BY, capacity, 1000);
            let limit = u64::from(trial.run(20_000));
            // p50 beyond 12.5 ms needs more than half of the requests to queue.
            assert!(limit >= capacity && limit <= 3 * capacity, "{limit} at {capacity}");
        }
    }

    #[test]
    fn follows_an_application_that_takes_less_and_then_more() {
        let mut trial = Trial::new(BY, 100, 1000);
        let high = trial.run(15_000);
        trial.capacity = 10;
        let low = trial.run(15_000);
        assert!(low * 2 < high, "{low} after {high}");
        trial.capacity = 100;
        let again = trial.run(15_000);
        assert!(again > 2 * low, "{again} after {low}");
    }

    #[test]
    fn stays_within_its_bounds() {
        let mut trial = Trial::new(Adaptive { max: 20, ..BY }, 1000, 1000);
        assert_eq!(trial.run(10_000), 20);
        let mut trial = Trial::new(Adaptive { min: 8, ..BY }, 1, 1000);
        trial.run(10_000);
        assert!(trial.gradient.limit(&trial.by) >= 8);
    }

    #[test]
    fn begins_with_the_lowest_limit_until_the_latency_is_known() {
        let mut trial = Trial::new(BY, 10, 1000);
        assert_eq!(trial.gradient.limit(&BY), 3);
        trial.run(150);
        assert!(trial.gradient.measuring.load(Ordering::Relaxed), "45 of 50 requests");
        trial.run(30);
        assert!(!trial.gradient.measuring.load(Ordering::Relaxed));
        let min_rtt = trial.gradient.min_rtt.load(Ordering::Relaxed);
        assert!((min_rtt as i64 - 10 * MILLI as i64).abs() < MILLI as i64, "{min_rtt}");
    }

    /// Calm traffic is measured as it comes, and nothing is shed for it.
    #[test]
    fn calm_traffic_needs_no_window_of_its_own() {
        let mut trial = Trial::new(BY, 10, 2);
        trial.run(300_000);
        assert_eq!(trial.rejected, 0);
        assert!(!trial.gradient.measuring.load(Ordering::Relaxed));
    }

    #[test]
    fn busy_traffic_is_measured_once_an_interval() {
        let mut trial = Trial::new(BY, 50, 20);
        trial.run(30_000);
        trial.rejected = 0;
        trial.run(29_000);
        assert_eq!(trial.rejected, 0, "between two measurements the limit suffices");
        trial.run(10_000);
        assert!(trial.rejected > 0, "the interval has passed");
    }

    #[test]
    fn a_limit_that_nobody_uses_does_not_grow() {
        let mut trial = Trial::new(BY, 1000, 10);
        let limit = trial.run(30_000);
        assert!((10..=40).contains(&limit), "{limit}");
    }

    #[test]
    fn a_latency_that_is_given_is_not_measured() {
        let fixed = Some(Duration::from_millis(10));
        let by = Adaptive { min_rtt: MinRtt { fixed, ..BY.min_rtt }, ..BY };
        let mut trial = Trial::new(by, 40, 1000);
        let limit = trial.run(20_000);
        assert!((40..=120).contains(&limit), "{limit}");
        assert_eq!(trial.gradient.min_rtt.load(Ordering::Relaxed), 0);
    }

    /// What a higher limit had let in says nothing about the latency without congestion.
    #[test]
    fn requests_from_before_do_not_count_as_calm() {
        let gradient = Gradient::default();
        gradient.measure(gradient.seen.get_or_init(Box::default), 100 * MILLI);
        for _ in 0..100 {
            let latency = Duration::from_secs(1);
            gradient.heard(&BY, Sample { began: 0, now: 200 * MILLI, latency, calm: false });
        }
        assert!(gradient.measuring.load(Ordering::Relaxed));
    }
}
