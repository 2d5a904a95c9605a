//! Bodies that pass through: counted, never collected, and the end of a response ends its record. Only what a route
//! may send again or mirrors is kept for a while, within bounds.

mod copied;
mod expected;
mod forbidden;
mod part;
mod request;

pub(in crate::l7) use expected::{Expectation, Withheld};
pub(in crate::l7) use request::{Ahead, Broken, Replay, RequestBody, Uploaded};

use http::HeaderMap;

/// Why a body does not come to its end.
#[derive(Debug, thiserror::Error)]
pub(in crate::l7) enum BodyError {
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    #[error("the route's timeout has passed")]
    Late,
    #[error("a policy refuses it since a change")]
    Cut,
    #[error("the application has answered without asking for the body")]
    Withheld,
    #[error("there is no room for the trailers: {0}")]
    NoRoom(String),
    #[error("the body that is copied has broken off, or this copy fell behind it")]
    Behind,
}

/// `grpc-status` of trailers, or of a response that has nothing but headers.
pub(in crate::l7) fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
