//! Bodies that pass through: counted, never collected, and the end of a response ends its record. Only what a route
//! may send again or mirrors is kept for a while, within bounds.

mod copied;
mod expected;
mod forbidden;
mod incoming;
mod part;
mod request;
mod uploaded;

pub(in crate::l7) use expected::{Expectation, Withheld};
pub(in crate::l7) use request::{Ahead, Came, Replay, RequestBody};
pub(in crate::l7) use uploaded::{Broken, Uploaded};

use http::{HeaderMap, StatusCode};

use super::connection_error::ConnectionError;
use crate::l7::http1;

/// Why a body does not come to its end.
#[derive(Debug, thiserror::Error)]
pub(in crate::l7) enum BodyError {
    #[error(transparent)]
    Http1(#[from] http1::error::Error),
    #[error(transparent)]
    Http2(#[from] hyper::Error),
    #[error(transparent)]
    Upstream(#[from] ConnectionError),
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

/// An agent says so of its pod (`concurrencyLimit`), and of its own budgets, as Envoy does.
pub(in crate::l7) const OVERLOADED: &str = "x-envoy-overloaded";

/// `grpc-status` of trailers, or of a response that has nothing but headers.
pub(in crate::l7) fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The status by which an endpoint is judged. gRPC answers with 200 and tells an error apart, here in the head of a response
/// without a body; those that are the server's fault count as their HTTP equivalents (as in Envoy, but for UNIMPLEMENTED, which
/// a client can ask for).
pub(in crate::l7) fn outcome(status: StatusCode, headers: &HeaderMap) -> StatusCode {
    // Its agent sheds load: it works, and ejecting it would leave its load to the others.
    if headers.contains_key(OVERLOADED) {
        return StatusCode::TOO_MANY_REQUESTS;
    }
    match grpc_status(headers) {
        // UNKNOWN, INTERNAL, DATA_LOSS.
        Some(2 | 13 | 15) => StatusCode::INTERNAL_SERVER_ERROR,
        // DEADLINE_EXCEEDED.
        Some(4) => StatusCode::GATEWAY_TIMEOUT,
        // UNAVAILABLE.
        Some(14) => StatusCode::SERVICE_UNAVAILABLE,
        _ => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_grpc_count_as_those_of_http() {
        for (grpc, expected) in
            [("0", 200), ("5", 200), ("12", 200), ("13", 500), ("14", 503), ("4", 504), ("x", 200)]
        {
            let headers =
                HeaderMap::from_iter([("grpc-status".parse().unwrap(), grpc.parse().unwrap())]);
            assert_eq!(outcome(StatusCode::OK, &headers), expected, "{grpc}");
        }
        assert_eq!(outcome(StatusCode::BAD_GATEWAY, &HeaderMap::new()), 502);
    }
}
