//! What a filter decides of a request: it goes on, it is answered here, or the decision takes a while.

use std::future::Future;
use std::pin::Pin;

use http::{HeaderMap, StatusCode};

use crate::base::{PolicyNote, Reason};

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
    /// The status of gRPC, where it is another than what gRPC makes of the HTTP status.
    pub grpc: Option<u32>,
}

impl Answer {
    /// An answer that is no failure, without a body.
    pub fn plain(status: StatusCode, headers: HeaderMap) -> Self {
        Self { status, headers, text: "", reason: Reason::None, why: String::new(), grpc: None }
    }
}

/// How a request goes on after a filter.
pub enum Flow {
    Next,
    Answer(Answer),
    /// It goes on, and this is to be said of it.
    Note(PolicyNote),
    /// The filter has to wait: only such a filter pays for the box.
    Wait(Pin<Box<dyn Future<Output = Waited> + Send>>),
}

/// What a filter says after it has waited.
pub struct Waited {
    /// `None`: the request goes on.
    pub answer: Option<Answer>,
    /// What the record says of a request that goes on and does not fail.
    pub mark: Option<(Reason, String)>,
}
