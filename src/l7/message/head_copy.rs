//! The head of a request, kept so that the request can be sent again.

use http::{Method, Request};

use super::body::{Came, RequestBody};
use super::head_text::HeadText;

/// Everything of a request but its body.
pub(in crate::l7) struct HeadCopy {
    head: HeadText,
    /// How names were written, and where the client is told what comes before the response.
    came: Came,
}

impl HeadCopy {
    pub(in crate::l7) fn of(request: &Request<RequestBody>) -> Self {
        Self { head: HeadText::of(request), came: request.body().came().clone() }
    }

    pub(in crate::l7) fn method(&self) -> &Method {
        self.head.method()
    }

    /// The request once more.
    pub(in crate::l7) fn with(&self, body: RequestBody) -> Request<RequestBody> {
        self.head.request().map(|()| body.of(self.came.clone()))
    }
}
