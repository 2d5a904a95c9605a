//! One request from its arrival to the end of its response: the record, and what is held as long as it runs.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::body::{self, Expectation, RequestBody, Uploaded};
use super::budget::{Full, Reserved};
use super::detect::Version;
use super::seat::{RequestPermit, Seat};
use super::upstream::Lease;
use crate::base::Reason;
use crate::telemetry::RequestRecord;
use crate::world::InFlight;

/// Recorded once, when dropped. An exchange that is dropped before it was finished was given up by the client.
pub(super) struct Exchange {
    pub(super) record: RequestRecord,
    started: Instant,
    uploaded: Option<Uploaded>,
    /// The client waits to be asked for the body.
    expectation: Option<Expectation>,
    finished: bool,
    /// The upstream connection, which others may use after this request.
    lease: Option<Lease>,
    /// The endpoint counts as busy.
    in_flight: Option<InFlight>,
    _place: Place,
}

/// What a request holds of the budgets.
pub(super) enum Place {
    Granted { _permit: RequestPermit },
    Refused { _answer: Option<Reserved> },
}

impl Place {
    /// The place of one that was let in, or of the answer to one that was not. Over HTTP/1 a connection has one answer, which
    /// counts with it.
    pub(super) fn of(admitted: Result<RequestPermit, Full>, seat: &Seat, version: Version) -> Self {
        match (admitted, version) {
            (Ok(permit), _) => Self::Granted { _permit: permit },
            (Err(_), Version::Http1) => Self::Refused { _answer: None },
            (Err(_), Version::Http2) => Self::Refused { _answer: seat.refuse() },
        }
    }
}

impl Exchange {
    pub(super) fn new(record: RequestRecord, body: &RequestBody, place: Place) -> Box<Self> {
        Box::new(Self {
            record,
            started: Instant::now(),
            uploaded: body.uploaded(),
            expectation: body.expectation(),
            finished: false,
            lease: None,
            in_flight: None,
            _place: place,
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

    /// Nobody has asked for the request's body. The client may send it or not after the response, so nothing can follow it
    /// (RFC 9110, 10.1.1).
    pub(super) fn withholds_body(&self) -> bool {
        self.expectation.as_ref().is_some_and(Expectation::is_open)
    }

    pub(super) fn grpc_status(&mut self, headers: &HeaderMap) {
        if let Some(status) = body::grpc_status(headers) {
            self.record.grpc_status(status);
        }
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
