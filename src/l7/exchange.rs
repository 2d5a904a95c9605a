//! One request from its arrival to the end of its response: the record, and what is held as long as it runs.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::body::{self, Uploaded};
use super::headers;
use super::seat::RequestPermit;
use super::upstream::Lease;
use crate::base::Reason;
use crate::telemetry::RequestRecord;
use crate::world::InFlight;

/// Recorded once, when dropped. An exchange that is dropped before it was finished was given up by the client.
pub(super) struct Exchange {
    pub(super) record: RequestRecord,
    started: Instant,
    uploaded: Option<Uploaded>,
    finished: bool,
    /// The upstream connection, which others may use after this request.
    lease: Option<Lease>,
    /// The endpoint counts as busy.
    in_flight: Option<InFlight>,
    permit: Option<RequestPermit>,
}

impl Exchange {
    pub(super) fn new(
        record: RequestRecord,
        uploaded: Option<Uploaded>,
        permit: Option<RequestPermit>,
    ) -> Box<Self> {
        Box::new(Self {
            record,
            started: Instant::now(),
            uploaded,
            finished: false,
            lease: None,
            in_flight: None,
            permit,
        })
    }

    /// The application answered over this connection.
    pub(super) fn answered(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        lease: Lease,
        in_flight: Option<InFlight>,
    ) {
        self.record.response(status);
        self.record.upstream_time(self.elapsed());
        self.grpc_status(headers);
        self.lease = Some(lease);
        self.in_flight = in_flight;
    }

    pub(super) fn grpc_status(&mut self, headers: &HeaderMap) {
        if let Some(status) = body::grpc_status(headers) {
            self.record.grpc_status(status);
        }
    }

    /// Reserves what a head of the response, or its trailers, take until they have been sent; or says why it cannot.
    pub(super) fn reserve(&mut self, fields: &HeaderMap) -> Result<(), String> {
        let Some(permit) = &mut self.permit else { return Ok(()) };
        let grown = permit.grow(headers::size_of(fields));
        grown.map_err(|full| permit.share().why(full))
    }

    /// The request's place, for what is sent last to hold.
    pub(super) fn place(&mut self) -> Option<RequestPermit> {
        self.permit.take_if(|permit| permit.waits_in_frames())
    }

    /// All of the response has passed.
    pub(super) fn finish(&mut self) {
        self.finished = true;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    /// The response will not come to its end.
    pub(super) fn fail(&mut self, reason: Reason, why: String) {
        self.finished = true;
        self.record.fail(reason, why);
    }

    /// When a request that may take this long must be at its end.
    pub(super) fn deadline(&self, limit: Duration) -> Instant {
        self.started + limit
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(uploaded) = &self.uploaded {
            self.record.request_bytes(uploaded.bytes());
        }
        if !self.finished {
            let why = "the client left before the response had ended".to_owned();
            self.record.fail(Reason::PeerReset, why);
        }
    }
}
