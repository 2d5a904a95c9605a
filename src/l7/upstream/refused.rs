//! Requests that an application says it has not looked at, and that are safe to send again whatever their method (RFC 9113, 8.7):
//! it refused the stream, or left and named an earlier one as the last that it may have processed.

use std::error::Error;

use http::{Extensions, HeaderMap, Method, Request, Uri};

use crate::l7::message::body::RequestBody;

/// Whether the application says so of the request that ended like this.
pub(super) fn is_refused(error: &hyper::Error) -> bool {
    let found = error.source().and_then(|it| it.downcast_ref::<h2::Error>());
    found.is_some_and(|error| {
        // h2 ends with a GOAWAY of its peer only the streams above the last one that this names.
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (refused || error.is_go_away())
    })
}

/// A request without a body, which is quick to copy. hyper gives back only what it has not sent.
pub(super) struct HeadCopy {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
}

impl HeadCopy {
    /// `None` for a request with a body: that may have begun to flow, and only a route that retries keeps it. Boxed, because the
    /// future of every request in flight would be larger by it.
    pub(super) fn of(request: &Request<RequestBody>) -> Option<Box<Self>> {
        request.body().is_empty().then(|| {
            Box::new(Self {
                method: request.method().clone(),
                uri: request.uri().clone(),
                headers: request.headers().clone(),
                extensions: request.extensions().clone(),
            })
        })
    }

    pub(super) fn into_request(self: Box<Self>) -> Request<RequestBody> {
        let Self { method, uri, headers, extensions } = *self;
        let mut request = Request::new(RequestBody::default());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        *request.extensions_mut() = extensions;
        request
    }
}
