//! Sending a request again that may have reached an application, where its route wants that (GEP-1731).
//!
//! After a status that the route names whatever the method is: its author has said so. After a reset connection or a
//! timeout only what is idempotent (RFC 9110, 9.2.2), because nobody knows what became of the request. What was
//! certainly not sent always. An upgrade is never asked for again, nor a request whose body was too long to be kept.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::balance::Ended;
use crate::base::Backoff;
use crate::l7::budget::{Reserved, Share};
use crate::l7::exchange::answer::Form;
use crate::l7::exchange::arrived::Arrived;
use crate::l7::message::body::{Replay, RequestBody};
use crate::l7::message::head_copy::HeadCopy;
use crate::l7::version::Version;
use crate::model::Retry;
use crate::traffic::{Destination, Overflow, Place};

/// The longest time between two attempts, as a multiple of the first: Envoy's.
const MOST_BACKOFF: u32 = 10;

/// What is needed to send a request again.
pub(in crate::l7) struct Retries {
    head: HeadCopy,
    body: Option<Replay>,
    arrived: (Version, &'static str, Form),
    sent: u32,
    _buffer: Option<Reserved>,
    /// Among the retries that the destination may have at once.
    place: Option<Box<Place>>,
}

impl Retries {
    /// `None` when this request is sent once: its route does not want it otherwise, or there is no room for its body.
    pub(in crate::l7) fn of(
        retry: Option<&Retry>,
        arrived: &mut Arrived,
        share: &Arc<Share>,
    ) -> Option<Box<Self>> {
        retry.filter(|retry| !retry.is_off() && arrived.upgrade.is_none())?;
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
            place: None,
        }))
    }

    /// Takes a place among the retries of a destination, for as long as this request is retried.
    pub(in crate::l7) fn take_place(&mut self, destination: &Destination) -> Result<(), Overflow> {
        if self.place.is_none() {
            self.place = destination.retry()?;
        }
        Ok(())
    }

    /// The request once more after this status, and how long to wait.
    pub(in crate::l7) fn after_status(
        &mut self,
        retry: &Retry,
        status: StatusCode,
    ) -> Option<(Arrived, Duration)> {
        retry.codes.contains(&status).then(|| self.next(retry)).flatten()
    }

    /// The request once more after an attempt without a response, and how long to wait.
    pub(in crate::l7) fn after_failure(
        &mut self,
        retry: &Retry,
        ended: Ended,
    ) -> Option<(Arrived, Duration)> {
        let allowed = match ended {
            Ended::Unreached | Ended::NotTried | Ended::Stale => true,
            Ended::Broken | Ended::TimedOut => self.head.method().is_idempotent(),
            Ended::Denied | Ended::GivenUp | Ended::Served | Ended::Answered(_) => false,
        };
        allowed.then(|| self.next(retry)).flatten()
    }

    fn next(&mut self, retry: &Retry) -> Option<(Arrived, Duration)> {
        if self.sent >= retry.attempts {
            return None;
        }
        let body = match &self.body {
            Some(body) => body.again()?,
            None => RequestBody::default(),
        };
        let wait = backoff(retry.backoff, self.sent);
        self.sent += 1;
        Some((Arrived::again(self.head.with(body), self.arrived), wait))
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
