//! The most recent flows. A flow's number is its place: writers meet only where one has come round the whole ring meanwhile, and
//! none waits for a reader. Who finds a place taken at this moment loses the flow, which is counted.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Seen;

/// The memory of one flow, in bytes: its own texts are at most 512 bytes each, and a host 256, and the rest, the names of both workloads, it
/// shares with others unless they are gone.
pub const FLOW_BYTES: usize = 2_560;

/// So many flows.
pub(super) struct Ring {
    places: Box<[Mutex<Option<Arc<Seen>>>]>,
}

impl Ring {
    pub(super) fn new(flows: usize) -> Self {
        Self { places: (0..flows).map(|_| Mutex::default()).collect() }
    }

    /// Forgets the one that stood there. False if there was no room for it.
    pub(super) fn keep(&self, seen: Arc<Seen>) -> bool {
        let place = seen.number % self.places.len() as u64;
        let place = usize::try_from(place).ok().and_then(|place| self.places.get(place));
        let Some(mut place) = place.and_then(|place| place.try_lock()) else { return false };
        if place.as_ref().is_some_and(|other| other.number > seen.number) {
            return false;
        }
        let before = place.replace(seen);
        drop(place);
        // Freed when nobody else could wait for it.
        drop(before);
        true
    }

    /// All of them, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Seen>> {
        let mut all: Vec<_> = self.places.iter().filter_map(|place| place.lock().clone()).collect();
        all.sort_unstable_by_key(|seen| seen.number);
        all
    }
}
