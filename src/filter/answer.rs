//! A filter's decision on a request: it continues, the filter answers it, or the filter waits first.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::base::{PolicyNote, Reason};

/// An answer that a filter gives instead of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The body for the client; may be empty.
    pub text: &'static str,
    /// Instead of the text.
    pub body: Option<Bytes>,
    /// [`Reason::None`] if nothing failed, as with a redirect. gRPC clients get failures in gRPC's form.
    pub reason: Reason,
    /// Names the filter's cause, for the log; the client does not see it.
    pub why: String,
    /// The gRPC status, if it differs from the one that gRPC derives from the HTTP status.
    pub grpc: Option<u32>,
}

impl Answer {
    /// An answer that is no failure, without a body.
    pub fn plain(status: StatusCode, headers: HeaderMap) -> Self {
        let (text, body, why) = ("", None, String::new());
        Self { status, headers, text, body, reason: Reason::None, why, grpc: None }
    }
}

/// How a request continues after a filter.
pub enum Flow {
    Next,
    Answer(Answer),
    /// The request continues, and its record gets this note.
    Note(PolicyNote),
    /// The filter waits. Only such filters pay for the box.
    Wait(Pin<Box<dyn Future<Output = Waited> + Send>>),
}

/// A filter's decision after it has waited.
pub struct Waited {
    /// `None`: the request continues.
    pub answer: Option<Answer>,
    /// The reason in the record of a request that continues and does not fail.
    pub mark: Option<(Reason, String)>,
}
