//! The record of a request as collectors get it.

use std::time::Duration;

use super::RequestRecord;
use super::formatted::Kept;
use crate::telemetry::Peer;
use crate::telemetry::access::Values;
use crate::telemetry::records::{Common, RecordSink};

/// The headers that the formats of a sink show.
pub(super) struct Exported {
    body: Kept,
    attributes: Option<Kept>,
}

impl Exported {
    pub(super) fn new(sink: &RecordSink) -> Self {
        let attributes = sink.attributes.clone().map(Kept::new);
        Self { body: Kept::new(sink.body.clone()), attributes }
    }

    pub(super) fn kept(&mut self) -> impl Iterator<Item = &mut Kept> {
        std::iter::once(&mut self.body).chain(&mut self.attributes)
    }
}

impl RequestRecord {
    pub(super) fn export(&self, duration: Duration) {
        let Some(ruled) = self.rules.as_deref() else { return };
        let Some(access) = &ruled.rules.access else { return };
        let unknown = Peer::default();
        let of = match (&self.destination, self.start.outbound) {
            (_, true) => &*self.start.source,
            (Some((peer, _)), false) => peer,
            (None, false) => &unknown,
        };
        let context = self.span.as_ref().map(|span| &span.context);
        let trace = context.map(|context| (context.trace, context.span));
        let common = Common { of, failed: self.failure.is_some(), trace };
        for (sink, Exported { body, attributes }) in access.exports.iter().zip(&ruled.exports) {
            let attributes = attributes.as_ref().map(|kept| kept.of(self, duration));
            let attributes = attributes.as_ref().map(|values| values as &dyn Values);
            sink.offer(&self.telemetry, &common, &body.of(self, duration), attributes);
        }
    }
}
