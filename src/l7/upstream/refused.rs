//! Requests that an application says it has not looked at, and that are safe to send again whatever their method (RFC 9113, 8.7):
//! it refused the stream, or left and named an earlier one as the last that it may have processed.

use std::error::Error;

/// Whether the application says so of the request that ended like this.
pub(super) fn is_refused(error: &hyper::Error) -> bool {
    let found = error.source().and_then(|it| it.downcast_ref::<h2::Error>());
    found.is_some_and(|error| {
        // h2 ends with a GOAWAY of its peer only the streams above the last one that this names.
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (refused || error.is_go_away())
    })
}
