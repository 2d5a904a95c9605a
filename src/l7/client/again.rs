//! What it takes to send a request again, and when its policy wants that ([`RetryCondition`]).
//!
//! What was certainly not processed is sent again under any policy. After a response, and where nobody knows what became of a
//! request, the policy's conditions decide. An upgrade is never asked for again, nor a request whose body was too long to be kept.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};

use super::attempt::{Got, Outcome};
use crate::balance::Ended;
use crate::base::Backoff;
use crate::l7::budget::{Reserved, Share};
use crate::l7::exchange::answer::Form;
use crate::l7::exchange::arrived::Arrived;
use crate::l7::message::body::{self, Replay, RequestBody};
use crate::l7::message::head_copy::HeadCopy;
use crate::l7::version::Version;
use crate::model::{Retry, RetryCondition, RetryOn};
use crate::traffic::{Destination, Overflow, RetryPlace};

/// A proxy before the application has limited the request's rate.
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

/// The longest time between two attempts, as a multiple of the first: Envoy's.
const MOST_BACKOFF: u32 = 10;

/// What is needed to send a request again.
pub(in crate::l7) struct Retries {
    head: HeadCopy,
    body: Option<Replay>,
    arrived: (Version, &'static str, Form),
    pub(super) sent: u32,
    /// Where it was sent.
    tried: Vec<SocketAddr>,
    _buffer: Option<Reserved>,
    /// Among the retries that the destination may have at once.
    place: Option<RetryPlace>,
}

impl Retries {
    /// `None` when this request is sent once: it is an upgrade, or there is no room for its body.
    pub(super) fn of(arrived: &mut Arrived, share: &Arc<Share>) -> Option<Box<Self>> {
        if arrived.upgrade.is_some() {
            return None;
        }
        let buffer = match arrived.request.body().is_empty() {
            true => None,
            false => Some(share.replay()?),
        };
        Some(Box::new(Self {
            _buffer: buffer,
            head: HeadCopy::of(&arrived.request),
            body: arrived.request.body_mut().keep(),
            arrived: (arrived.version, arrived.protocol, arrived.form),
            sent: 0,
            tried: Vec::new(),
            place: None,
        }))
    }

    /// Takes a place among the retries of a destination, until the next one or as long as this request is retried.
    pub(in crate::l7) fn take_place(&mut self, destination: &Destination) -> Result<(), Overflow> {
        self.place = None;
        self.place = Some(destination.retry()?);
        Ok(())
    }

    /// Whether this is not good enough.
    pub(super) fn wants(&self, retry: &Retry, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Got(Got { response, .. }, _) => {
                after_response(&retry.on, response.status(), response.headers())
            }
            Outcome::Failed(_, ended, _) => {
                after_failure(&retry.on, *ended, self.head.method().is_idempotent())
            }
        }
    }

    /// All that was sent of it is there to be sent again.
    pub(in crate::l7) fn is_kept(&self) -> bool {
        self.body.as_ref().is_none_or(|body| !body.is_lost())
    }

    /// It has been sent as often as it may be.
    pub(in crate::l7) fn is_exhausted(&self, retry: &Retry) -> bool {
        self.sent >= retry.attempts
    }

    /// It was sent there.
    pub(in crate::l7) fn sent_to(&mut self, endpoint: SocketAddr) {
        if !self.tried.contains(&endpoint) {
            self.tried.push(endpoint);
        }
    }

    /// Where it was sent.
    pub(super) fn tried(&self) -> &[SocketAddr] {
        &self.tried
    }

    /// Where it is not sent again while there are others. `sticks`: a property of the request selects its endpoint.
    pub(in crate::l7) fn avoided(&self, retry: &Retry, sticks: bool) -> &[SocketAddr] {
        if retry.avoids_previous.unwrap_or(!sticks) { &self.tried } else { &[] }
    }

    /// The request once more while it is being sent. `None`: its body is not there as a whole.
    pub(super) fn copy(&self) -> Option<Arrived> {
        let body = match &self.body {
            Some(body) if body.is_whole() => body.again()?,
            Some(_) => return None,
            None => RequestBody::default(),
        };
        Some(Arrived::again(self.head.with(body), self.arrived))
    }

    /// The request once more, and how long to wait. `None`: its body was not kept.
    pub(in crate::l7) fn next(&mut self, retry: &Retry) -> Option<(Arrived, Duration)> {
        let body = match &self.body {
            Some(body) => body.again()?,
            None => RequestBody::default(),
        };
        let wait = backoff(retry.backoff, self.sent);
        self.sent += 1;
        Some((Arrived::again(self.head.with(body), self.arrived), wait))
    }
}

/// Whether a response with this head has its request sent again.
fn after_response(on: &RetryOn, status: StatusCode, headers: &HeaderMap) -> bool {
    use RetryCondition::{
        GatewayError, Headers, RateLimited, Retriable4xx, ServerError, StatusCodes,
    };
    if headers.contains_key(RATE_LIMITED) {
        return on.has(RateLimited);
    }
    (on.has(ServerError) && status.is_server_error())
        || (on.has(GatewayError) && matches!(status.as_u16(), 502..=504))
        || (on.has(Retriable4xx) && status == StatusCode::CONFLICT)
        || (on.has(StatusCodes) && on.codes.contains(&status))
        || (on.has(Headers) && on.headers.iter().any(|name| headers.contains_key(name)))
        || body::grpc_status(headers).is_some_and(|status| on.has_grpc_status(status))
}

/// Whether an attempt without a response has its request sent again.
fn after_failure(on: &RetryOn, ended: Ended, is_idempotent: bool) -> bool {
    use RetryCondition::{GatewayError, Reset, ResetOfIdempotent, ServerError};
    match ended {
        Ended::Unreached | Ended::NotTried | Ended::Stale => true,
        Ended::Broken | Ended::TimedOut => {
            [Reset, ServerError, GatewayError].iter().any(|condition| on.has(*condition))
                || (is_idempotent && on.has(ResetOfIdempotent))
        }
        Ended::Denied | Ended::GivenUp | Ended::Served | Ended::Answered(_) => false,
    }
}

/// The pause before the attempt that follows the one and the `sent` others. The route's is the shortest.
fn backoff(first: Duration, sent: u32) -> Duration {
    let most = first.saturating_mul(MOST_BACKOFF);
    Backoff::new(first, most).spread(1.0..=1.25).after(sent.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row by row what Envoy's reference says of `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
    #[test]
    fn conditions_mean_what_envoy_says() {
        use RetryCondition::*;
        let unprocessed = [Ended::Unreached, Ended::NotTried, Ended::Stale];
        let unknown = [Ended::Broken, Ended::TimedOut];
        let decided = [Ended::Denied, Ended::GivenUp];
        for (condition, statuses, grpc, without_response, of_idempotent) in [
            (ConnectFailure, &[][..], None, false, false),
            (RefusedStream, &[], None, false, false),
            (ResetBeforeRequest, &[], None, false, false),
            (Reset, &[], None, true, true),
            (ResetOfIdempotent, &[], None, false, true),
            (ServerError, &[500, 501, 502, 503, 504, 599][..], None, true, true),
            (GatewayError, &[502, 503, 504], None, true, true),
            (Retriable4xx, &[409], None, false, false),
            (StatusCodes, &[418, 500], None, false, false),
            (Headers, &[], None, false, false),
            (RateLimited, &[], None, false, false),
            (Cancelled, &[], Some(1), false, false),
            (DeadlineExceeded, &[], Some(4), false, false),
            (ResourceExhausted, &[], Some(8), false, false),
            (Internal, &[], Some(13), false, false),
            (Unavailable, &[], Some(14), false, false),
        ] {
            let mut on = RetryOn::any(&[condition]);
            on.codes = [418, 500].map(|code| StatusCode::from_u16(code).unwrap()).into();
            on.headers = vec![HeaderName::from_static("x-again")];
            for status in [200, 400, 404, 409, 418, 429, 500, 501, 502, 503, 504, 599] {
                let code = StatusCode::from_u16(status).unwrap();
                let expected = statuses.contains(&status);
                assert_eq!(after_response(&on, code, &HeaderMap::new()), expected, "{on:?} {code}");
                let limited = HeaderMap::from_iter([(RATE_LIMITED, "true".parse().unwrap())]);
                let expected = condition == RateLimited;
                assert_eq!(after_response(&on, code, &limited), expected, "{on:?} {code}, limited");
            }
            for status in 0..=16 {
                let name = HeaderName::from_static("grpc-status");
                let headers = HeaderMap::from_iter([(name, status.into())]);
                let expected = grpc == Some(status);
                assert_eq!(
                    after_response(&on, StatusCode::OK, &headers),
                    expected,
                    "{on:?} {status}"
                );
            }
            let again = HeaderMap::from_iter([(on.headers[0].clone(), "".parse().unwrap())]);
            let expected = condition == Headers;
            assert_eq!(after_response(&on, StatusCode::OK, &again), expected, "{on:?}");
            for is_idempotent in [true, false] {
                let expected = if is_idempotent { of_idempotent } else { without_response };
                let after = |ended| after_failure(&on, ended, is_idempotent);
                assert!(unprocessed.into_iter().all(after), "{on:?}");
                assert_eq!(unknown.map(after), [expected; 2], "{on:?} {is_idempotent}");
                assert_eq!(decided.map(after), [false; 2], "{on:?}");
            }
        }
    }

    #[test]
    fn backoff_is_never_shorter_than_asked_for_and_bounded() {
        let first = Duration::from_millis(100);
        for (sent, least) in [(0, 100), (1, 200), (2, 400), (3, 800), (4, 1000), (40, 1000)] {
            let least = Duration::from_millis(least);
            for _ in 0..100 {
                let wait = backoff(first, sent);
                assert!(wait >= least && wait <= least.mul_f64(1.25), "{sent}: {wait:?}");
            }
        }
    }
}
