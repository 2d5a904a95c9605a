//! Exemplars of a histogram (OpenMetrics 1.0): requests whose traces show where the time went. The last one of each quarter of
//! the buckets is kept, so that slow requests are not overwritten by the many that are quick.
//!
//! Only requests that are traced come here. One that finds another at its place at this moment is left out.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::trace::TraceId;

/// How many exemplars a histogram has at the most.
const PLACES: usize = 4;

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Exemplar {
    bucket: usize,
    trace: TraceId,
    value: f64,
    at: SystemTime,
}

/// The exemplars of a histogram; they take no memory before there is one.
#[derive(Debug, Default)]
pub(super) struct Exemplars(OnceLock<Box<[Mutex<Option<Exemplar>>; PLACES]>>);

impl Exemplars {
    /// Keeps a request that counted in this one of so many buckets.
    pub(super) fn keep(&self, (bucket, buckets): (usize, usize), trace: TraceId, value: f64) {
        let places = self.0.get_or_init(Box::default);
        let place = places.get(bucket * PLACES / buckets.max(1)).and_then(|it| it.try_lock());
        if let Some(mut place) = place {
            *place = Some(Exemplar { bucket, trace, value, at: SystemTime::now() });
        }
    }

    /// The one of this bucket.
    pub(super) fn of(&self, (bucket, buckets): (usize, usize)) -> Option<Exemplar> {
        let place = self.0.get()?.get(bucket * PLACES / buckets.max(1))?;
        place.lock().clone().filter(|exemplar| exemplar.bucket == bucket)
    }
}

impl Exemplar {
    /// As it stands behind the sample.
    pub(super) fn text(&self) -> String {
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        format!(" # {{trace_id=\"{}\"}} {:?} {at:.3}", self.trace, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_request_stays_among_quick_ones() {
        let exemplars = Exemplars::default();
        assert!(exemplars.of((3, 20)).is_none());
        exemplars.keep((17, 20), TraceId(7), 40_000.0);
        (0..100).for_each(|trace| exemplars.keep((3, 20), TraceId(trace + 1), 9.5));
        let slow = exemplars.of((17, 20)).expect("the slow one").text();
        let trace = format!(" # {{trace_id=\"{:032x}\"}} 40000.0 ", 7);
        assert!(slow.starts_with(&trace), "{slow}");
        assert!(exemplars.of((3, 20)).is_some_and(|it| it.trace == TraceId(100)));
        assert!(exemplars.of((4, 20)).is_none(), "it is the last one's place");
    }
}
