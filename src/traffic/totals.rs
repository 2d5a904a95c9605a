//! What all destinations of this node have done together, for the metrics.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

static EJECTIONS: AtomicU64 = AtomicU64::new(0);
static OVERFLOWS: AtomicU64 = AtomicU64::new(0);
static ACTIVE: AtomicI64 = AtomicI64::new(0);

/// The counts so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    pub ejections: u64,
    /// Endpoints that were not ejected because enough others were.
    pub overflows: u64,
    /// Ejected at present.
    pub active: i64,
}

pub fn totals() -> Totals {
    Totals {
        ejections: EJECTIONS.load(Ordering::Relaxed),
        overflows: OVERFLOWS.load(Ordering::Relaxed),
        active: ACTIVE.load(Ordering::Relaxed),
    }
}

pub(super) fn ejected() {
    EJECTIONS.fetch_add(1, Ordering::Relaxed);
    ACTIVE.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn returned(endpoints: usize) {
    ACTIVE.fetch_sub(i64::try_from(endpoints).unwrap_or(i64::MAX), Ordering::Relaxed);
}

pub(super) fn overflowed() {
    OVERFLOWS.fetch_add(1, Ordering::Relaxed);
}
