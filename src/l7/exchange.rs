//! One request from its arrival to the end of its response: the record, and what is held as long as it runs.

pub(in crate::l7) mod answer;
pub(in crate::l7) mod arrived;
pub(in crate::l7) mod guards;
pub(in crate::l7) mod response;
pub(in crate::l7) mod upgrade;

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use crate::base::Reason;
use crate::l7::budget::admission::Admission;
use crate::l7::message::body::{self, Broken, Expectation, RequestBody, Uploaded};
use crate::l7::message::headers;
use crate::l7::upstream::Lease;
use crate::l7::version::Version;
use crate::telemetry::RequestRecord;
use crate::world::InFlight;

/// Recorded once, when dropped. An exchange that is dropped before it was finished was given up by the client.
pub(in crate::l7) struct Exchange {
    pub(in crate::l7) record: RequestRecord,
    started: Instant,
    uploaded: Option<Uploaded>,
    /// The client waits to be asked for the body.
    expectation: Option<Expectation>,
    finished: bool,
    /// A filter has made it wait, so the mesh may be another one by now.
    pub(in crate::l7) waited: bool,
    /// The upstream connection, which others may use after this request.
    lease: Option<Lease>,
    /// The endpoint counts as busy.
    in_flight: Option<InFlight>,
    place: Option<Admission>,
}

impl Exchange {
    pub(in crate::l7) fn new(
        record: RequestRecord,
        body: &RequestBody,
        place: Option<Admission>,
    ) -> Box<Self> {
        Box::new(Self {
            record,
            started: Instant::now(),
            uploaded: body.uploaded(),
            expectation: body.expectation(),
            finished: false,
            waited: false,
            lease: None,
            in_flight: None,
            place,
        })
    }

    /// The application answered over this connection.
    pub(in crate::l7) fn answered(
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

    /// Nobody has asked for the request's body. The client may send it or not after the response, so nothing can follow it
    /// (RFC 9110, 10.1.1).
    pub(in crate::l7) fn withholds_body(&self) -> bool {
        self.expectation.as_ref().is_some_and(Expectation::is_open)
    }

    /// What is wrong with the request's body, as far as it was read.
    pub(in crate::l7) fn broken_body(&self) -> Option<Broken> {
        self.uploaded.as_ref()?.broken()
    }

    pub(in crate::l7) fn grpc_status(&mut self, headers: &HeaderMap) {
        if let Some(status) = body::grpc_status(headers) {
            self.record.grpc_status(status);
        }
    }

    /// Reserves what a head of the response, or its trailers, take until they have been sent; or says why it cannot.
    pub(in crate::l7) fn reserve(&mut self, fields: &HeaderMap) -> Result<(), String> {
        let Some(Admission::Granted(permit)) = &mut self.place else { return Ok(()) };
        let grown = permit.grow(headers::size_of(fields));
        grown.map_err(|full| permit.share().why(full))
    }

    /// The request's place, for what is sent last to hold.
    pub(in crate::l7) fn place(&mut self) -> Option<Admission> {
        self.place.take_if(|place| place.waits_in_frames())
    }

    /// All of the response has passed.
    pub(in crate::l7) fn finish(&mut self) {
        self.finished = true;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    /// The response will not come to its end.
    pub(in crate::l7) fn fail(&mut self, reason: Reason, why: String) {
        self.finished = true;
        self.record.fail(reason, why);
    }

    /// When a request that may take this long must be at its end.
    pub(in crate::l7) fn deadline(&self, limit: Duration) -> Instant {
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
