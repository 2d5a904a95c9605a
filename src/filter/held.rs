//! What a request holds because of filters, until its end.

use tokio::time::Instant;

use super::circuit_breaker::Call;
use super::concurrency_limit::Place;

#[derive(Debug)]
pub enum Held {
    /// A place in a concurrency limit.
    Place(Place),
    /// A call through a circuit breaker.
    Call(Call),
}

impl Held {
    /// Whether somebody wants to know when the response came.
    pub fn is_timed(&self) -> bool {
        matches!(self, Self::Place(place) if place.is_timed())
    }

    /// The response came. `sent`: when the client's part of the request was at its end, if that was after it was let in.
    pub fn answered(&self, sent: Option<Instant>) {
        if let Self::Place(place) = self {
            place.answered(sent);
        }
    }

    /// How the request ended at the service, as [`Call::ended`] takes it.
    pub fn ended(&self, has_failed: Option<bool>) {
        if let Self::Call(call) = self {
            call.ended(has_failed);
        }
    }
}
