//! What became of the attempts of all requests on this node, for the metrics: retries as Envoy counts them, and hedged requests.

use std::sync::atomic::{AtomicU64, Ordering};

static RETRIES: AtomicU64 = AtomicU64::new(0);
static SUCCESSES: AtomicU64 = AtomicU64::new(0);
static EXHAUSTED: AtomicU64 = AtomicU64::new(0);
static OVERFLOWS: AtomicU64 = AtomicU64::new(0);
static HEDGES: AtomicU64 = AtomicU64::new(0);
static HEDGES_WON: AtomicU64 = AtomicU64::new(0);
static HEDGES_OVERFLOWED: AtomicU64 = AtomicU64::new(0);

/// The counts so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// Requests that were sent again, each time.
    pub retries: u64,
    /// Of these, those whose last response was good enough.
    pub successes: u64,
    /// Requests for which no attempt was left.
    pub exhausted: u64,
    /// Requests that a budget or a limit kept from being sent again.
    pub overflows: u64,
    /// Requests that were sent to another endpoint while they waited for an answer, each time.
    pub hedges: u64,
    /// Of these, those that were answered first.
    pub hedges_won: u64,
    /// Those that the budget forbade.
    pub hedges_overflowed: u64,
}

pub fn totals() -> Attempts {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Attempts {
        retries: read(&RETRIES),
        successes: read(&SUCCESSES),
        exhausted: read(&EXHAUSTED),
        overflows: read(&OVERFLOWS),
        hedges: read(&HEDGES),
        hedges_won: read(&HEDGES_WON),
        hedges_overflowed: read(&HEDGES_OVERFLOWED),
    }
}

fn count(one: &AtomicU64) {
    one.fetch_add(1, Ordering::Relaxed);
}

pub fn retried() {
    count(&RETRIES);
}

pub fn retry_succeeded() {
    count(&SUCCESSES);
}

pub fn retries_exhausted() {
    count(&EXHAUSTED);
}

pub fn retry_overflowed() {
    count(&OVERFLOWS);
}

pub fn hedged() {
    count(&HEDGES);
}

pub fn hedge_won() {
    count(&HEDGES_WON);
}

pub fn hedge_overflowed() {
    count(&HEDGES_OVERFLOWED);
}
