//! What a filter decides of a request: it goes on, it is answered here, or the decision takes a while.

use std::future::Future;
use std::pin::Pin;

use http::{HeaderMap, StatusCode};

use crate::base::Reason;

/// An answer that a filter gives instead of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// What the client reads; may be empty.
    pub text: &'static str,
    /// [`Reason::None`] where nothing failed, as with a redirect. A failure is answered in gRPC's form where the client
    /// speaks that.
    pub reason: Reason,
    /// Names the filter's cause, for the log; the client does not see it.
    pub why: String,
}

impl Answer {
    /// An answer that is no failure, without a body.
    pub fn plain(status: StatusCode, headers: HeaderMap) -> Self {
        Self { status, headers, text: "", reason: Reason::None, why: String::new() }
    }
}

/// How a request goes on after a filter.
pub enum Flow {
    Next,
    Answer(Answer),
    /// The filter has to wait: only such a filter pays for the box. `None` means [`Flow::Next`].
    Wait(Pin<Box<dyn Future<Output = Option<Answer>> + Send>>),
}
