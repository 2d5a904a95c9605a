//! What both halves do to each request, opened to `benches/`. Nothing else uses it, so that no program that is shipped has it.

use http::{HeaderMap, HeaderValue, Request, StatusCode};

use crate::filter::{self, ResponseHead, Seen};
use crate::l7::message::headers;
use crate::l7::message::original::Original;
use crate::l7::message::sent::{self, Sent};
use crate::model::HttpRule;

/// A request as routes and policies see it; `None` when it is answered 400.
pub fn canonical(mut request: Request<()>) -> Option<Request<()>> {
    headers::canonical(&mut request, None).ok()?;
    headers::strip_internal(request.headers_mut());
    headers::add_missing(request.headers_mut());
    Some(request)
}

/// A request after the filters of its rule.
#[derive(Debug)]
pub struct Filtered {
    before: Option<Box<Sent>>,
    pub request: Request<()>,
}

/// Applies the filters of a rule to a request in canonical form.
pub fn filter_request(rule: &HttpRule, mut request: Request<()>) -> Filtered {
    let before = sent::keep(&rule.filters, &request);
    if let Some(before) = &before {
        sent::filter([&rule.filters, &[]], before, &mut request);
    }
    Filtered { before, request }
}

/// Applies them to the head of a response.
pub fn filter_response(rule: &HttpRule, mut headers: HeaderMap) -> HeaderMap {
    let mut head = ResponseHead { status: StatusCode::OK, headers: &mut headers };
    filter::respond(&[], [&rule.filters, &[]], &mut head, &Seen::default());
    headers
}

impl Filtered {
    /// What the client's half tells the destination's of the values before the filters; `None` when they changed nothing.
    pub fn original(&self) -> Option<HeaderValue> {
        let after = &self.request;
        Original::between(self.before.as_ref()?, after.uri(), after.headers()).encode()
    }

    /// What the destination's half makes of that: the target of the request as it was sent.
    pub fn restored(&self, original: &HeaderValue) -> Option<String> {
        let arrived = &self.request;
        let sent = Original::decode(original)?.restore(arrived.uri(), arrived.headers())?;
        Some(sent.uri.to_string())
    }
}
