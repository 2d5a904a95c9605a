//! The load of an endpoint, as this node sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Connections or requests in flight to one endpoint; shared by all worlds in which the endpoint exists.
#[derive(Debug, Default)]
pub struct Load(AtomicU32);

impl Load {
    pub fn in_flight(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.0.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }
}

/// One connection or request in flight.
#[derive(Debug)]
pub struct InFlight(Arc<Load>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
