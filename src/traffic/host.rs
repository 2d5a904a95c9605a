//! What this node has seen of one endpoint of a destination: failures in a row, whether it is ejected, its age, its latency.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::latency::Latency;
use super::{Heard, OutlierDetection};

/// One endpoint. Times are milliseconds after the destination's epoch.
#[derive(Debug, Default)]
pub struct Host {
    errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_failures: AtomicU32,
    phase: AtomicU8,
    /// Ejections in a row, and when the last one ended.
    times: AtomicU32,
    returned: AtomicU64,
    /// When it began to warm up; 0: it is warm.
    pub(super) warming: AtomicU64,
    /// Until when the request that probes it is waited for.
    pub(super) probed_until: AtomicU64,
    /// Kubernetes says so.
    pub(super) ready: AtomicBool,
    pub(super) latency: Latency,
}

/// Whether an endpoint gets requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    Serving = 0,
    Ejected = 1,
    /// Its ejection has ended: it gets one request, which decides (half open).
    Probing = 2,
    /// This request is in flight.
    Probed = 3,
    /// It is not among the endpoints any more.
    Gone = 4,
}

impl Phase {
    fn of(number: u8) -> Self {
        match number {
            1 => Phase::Ejected,
            2 => Phase::Probing,
            3 => Phase::Probed,
            4 => Phase::Gone,
            _ => Phase::Serving,
        }
    }
}

impl Host {
    pub(super) fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Ordering::Acquire))
    }

    pub(super) fn warming_since(&self) -> u64 {
        self.warming.load(Ordering::Relaxed)
    }

    /// Whether a request may go there.
    pub fn is_open(&self) -> bool {
        !matches!(self.phase(), Phase::Ejected | Phase::Probed)
    }

    /// Whether it went from one phase to the other by this.
    pub(super) fn turn(&self, from: Phase, to: Phase) -> bool {
        let (from, to) = (from as u8, to as u8);
        self.phase.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether a request decides whether it serves again, or has yet to come.
    pub(super) fn is_half_open(&self) -> bool {
        matches!(self.phase(), Phase::Probing | Phase::Probed)
    }

    /// Whether it went from half open to this.
    pub(super) fn decide(&self, to: Phase) -> bool {
        self.turn(Phase::Probed, to) || self.turn(Phase::Probing, to)
    }

    /// Gives the phase before.
    pub(super) fn set(&self, phase: Phase) -> Phase {
        Phase::of(self.phase.swap(phase as u8, Ordering::AcqRel))
    }

    /// Whether this is one failure too many.
    pub(super) fn count(&self, outliers: &OutlierDetection, counts: &Counts) -> bool {
        let rows = [
            (&self.errors, counts.error, outliers.consecutive_errors),
            (&self.gateway_errors, counts.gateway_error, outliers.consecutive_gateway_errors),
            (
                &self.local_failures,
                counts.local_failure,
                outliers.consecutive_local_failures.unwrap_or(0),
            ),
        ];
        let mut reached = false;
        for (count, counted, threshold) in rows {
            reached |= counted.is_some_and(|failed| count_one(count, failed, threshold));
        }
        reached
    }

    /// Its ejection is over at `now`: errors before it do not count, nor does what it took before.
    pub(super) fn forgive(&self, now: u64) {
        self.returned.store(now, Ordering::Relaxed);
        for count in [&self.errors, &self.gateway_errors, &self.local_failures] {
            count.store(0, Ordering::Relaxed);
        }
        self.latency.forget();
    }

    /// Which ejection in a row the next one is: each interval without one makes up for one.
    pub(super) fn next_time(&self, outliers: &OutlierDetection, now: u64) -> u32 {
        let quiet = match self.phase() {
            // It was not quiet: it failed when it was tried.
            Phase::Probing | Phase::Probed => 0,
            _ => now.saturating_sub(self.returned.load(Ordering::Relaxed)),
        };
        let made_up = quiet / super::millis(outliers.interval).max(1);
        let made_up = u32::try_from(made_up).unwrap_or(u32::MAX);
        self.times.load(Ordering::Relaxed).saturating_sub(made_up).saturating_add(1)
    }

    pub(super) fn set_times(&self, times: u32) {
        self.times.store(times, Ordering::Relaxed);
    }

    pub(super) fn times(&self) -> u32 {
        self.times.load(Ordering::Relaxed)
    }
}

/// Whether a result counts as a failure; `None` where it says nothing.
pub(super) struct Counts {
    error: Option<bool>,
    gateway_error: Option<bool>,
    local_failure: Option<bool>,
}

impl Counts {
    pub(super) fn of(outliers: &OutlierDetection, heard: Heard) -> Self {
        let split = outliers.consecutive_local_failures.is_some();
        let of_both = |failed| Self {
            error: (!split).then_some(failed),
            gateway_error: (!split).then_some(failed),
            local_failure: split.then_some(failed),
        };
        match heard {
            Heard::Failed => of_both(true),
            Heard::Accepted => of_both(false),
            Heard::Status(status) => {
                let is_error = match &outliers.codes[..] {
                    [] => (500..600).contains(&status),
                    codes => codes.contains(&status),
                };
                Self {
                    error: Some(is_error),
                    gateway_error: Some(is_error && (502..=504).contains(&status)),
                    // It was reached.
                    local_failure: split.then_some(false),
                }
            }
        }
    }

    /// Whether it is a failure of a kind that the policy counts.
    pub(super) fn fails(&self, outliers: &OutlierDetection) -> bool {
        let local = outliers.consecutive_local_failures.unwrap_or(0);
        let counted = [
            (self.error, outliers.consecutive_errors),
            (self.gateway_error, outliers.consecutive_gateway_errors),
            (self.local_failure, local),
        ];
        counted.into_iter().any(|(failed, threshold)| failed == Some(true) && threshold > 0)
    }
}

/// Whether the count reaches the threshold with this one. It then starts again.
fn count_one(count: &AtomicU32, failed: bool, threshold: u32) -> bool {
    if !failed {
        // Nearly always nothing is there to be cleared, and other threads read it.
        if count.load(Ordering::Relaxed) != 0 {
            count.store(0, Ordering::Relaxed);
        }
        return false;
    }
    let reached = threshold > 0 && count.fetch_add(1, Ordering::Relaxed) + 1 == threshold;
    if reached {
        count.store(0, Ordering::Relaxed);
    }
    reached
}
