//! A filter's decision on a request: it continues, the filter answers it, or the filter waits first.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::Charges;
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
    /// The request continues, and this goes with it. Only such requests pay for the box.
    Pass(Box<Passing>),
    /// The filter waits. Only such filters pay for the box.
    Wait(Pin<Box<dyn Future<Output = Waited> + Send>>),
}

/// What goes with a request that continues.
#[derive(Debug, Default)]
pub struct Passing {
    /// For the request's record.
    pub notes: Vec<PolicyNote>,
    /// What its response will cost.
    pub charges: Option<Charges>,
    /// For the response.
    pub headers: HeaderMap,
}

impl Passing {
    pub fn into_flow(self) -> Flow {
        if self.notes.is_empty() && self.charges.is_none() && self.headers.is_empty() {
            return Flow::Next;
        }
        Flow::Pass(Box::new(self))
    }
}

/// A filter's decision after it has waited.
pub struct Waited {
    /// `None`: the request continues.
    pub answer: Option<Answer>,
    /// The reason in the record of a request that continues and does not fail.
    pub mark: Option<(Reason, String)>,
}
