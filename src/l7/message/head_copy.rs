//! The head of a request, kept so that the request can be sent again. hyper gives back only what it has not sent.

use http::{Extensions, Method, Request};

use super::body::RequestBody;
use super::head_text::HeadText;

/// Everything of a request but its body.
pub(in crate::l7) struct HeadCopy {
    head: HeadText,
    /// How names were written, and where the client is told what comes before the response.
    extensions: Extensions,
}

impl HeadCopy {
    pub(in crate::l7) fn of(request: &Request<RequestBody>) -> Self {
        Self { head: HeadText::of(request), extensions: request.extensions().clone() }
    }

    pub(in crate::l7) fn method(&self) -> &Method {
        self.head.method()
    }

    /// The request once more.
    pub(in crate::l7) fn with(&self, body: RequestBody) -> Request<RequestBody> {
        let mut request = self.head.request().map(|()| body);
        *request.extensions_mut() = self.extensions.clone();
        request
    }
}
