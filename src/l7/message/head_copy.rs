//! The head of a request, kept so that the request can be sent again. hyper gives back only what it has not sent.

use http::{Extensions, HeaderMap, Method, Request, Uri};

use super::body::RequestBody;

/// Everything of a request but its body.
pub(in crate::l7) struct HeadCopy {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// How names were written, and where the client is told what comes before the response.
    extensions: Extensions,
}

impl HeadCopy {
    pub(in crate::l7) fn of(request: &Request<RequestBody>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            extensions: request.extensions().clone(),
        }
    }

    pub(in crate::l7) fn method(&self) -> &Method {
        &self.method
    }

    /// The request once more.
    pub(in crate::l7) fn with(&self, body: RequestBody) -> Request<RequestBody> {
        let Self { method, uri, headers, extensions } = self;
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        *request.extensions_mut() = extensions.clone();
        request
    }
}
