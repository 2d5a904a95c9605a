//! The answers that a worker gives itself. Texts and statuses are Envoy's, so that clients and people recognise them;
//! a gRPC request is answered as gRPC (HTTP 200, the failure in `grpc-status`).

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri};

use super::{Exchange, ResponseBody};
use crate::base::{ObjectKey, Reason};
use crate::ext_authz::{self, Refusal};
use crate::filter;
use crate::l7::message::body::{Broken, OVERLOADED};
use crate::l7::message::framing::Fault;
use crate::l7::message::headers;
use crate::policy::Denial;
use crate::telemetry::Verdict;

/// Goes with every 401 (RFC 9110, 15.5.2); that a token was brought and is not good (RFC 6750, 3.1).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer error=\"invalid_token\"");

/// The longest name of what was asked for in a challenge, in bytes: Envoy's.
const MAX_REALM: usize = 256;

/// An answer of our own, and what the record says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::l7) struct Answer {
    pub(in crate::l7) status: StatusCode,
    pub(in crate::l7) text: &'static str,
    pub(in crate::l7) reason: Reason,
    /// Names the policy, the route or the failure, for the log; the client does not see it.
    pub(in crate::l7) why: Box<str>,
    /// What a filter, or a provider of external authorization, answers with.
    given: Option<Box<Given>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Given {
    headers: HeaderMap,
    /// A status of gRPC.
    grpc: Option<u32>,
    /// Instead of the text.
    body: Option<Bytes>,
    /// The policy that refused, for who observes.
    policy: Option<ObjectKey>,
}

/// What an answer of our own must look like, by the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::l7) enum Form {
    Text,
    /// The head of `Text`: hyper's HTTP/2 server would send the body.
    Head,
    /// HTTP 200, and the failure in `grpc-status`.
    Grpc,
}

impl Answer {
    fn new(status: StatusCode, text: &'static str, reason: Reason, why: impl Into<String>) -> Self {
        Self { status, text, reason, why: why.into().into_boxed_str(), given: None }
    }

    /// What a filter answers with.
    pub(in crate::l7) fn of_filter(answer: filter::Answer) -> Self {
        let filter::Answer { headers, grpc, body, .. } = answer;
        let given = Some(Box::new(Given { headers, grpc, body, policy: None }));
        Self { given, ..Self::new(answer.status, answer.text, answer.reason, answer.why) }
    }

    /// What a provider of external authorization answers instead of the application.
    pub(in crate::l7) fn of_provider(refusal: Refusal, why: impl Into<String>) -> Self {
        let Refusal { status, headers, body } = refusal;
        let given = Some(Box::new(Given { headers, body: Some(body), ..Given::default() }));
        let text = "denied by external authorization";
        Self { given, ..Self::new(status, text, Reason::Unauthorized, why) }
    }

    /// A provider of external authorization said nothing.
    pub(in crate::l7) fn unasked(status: StatusCode, why: impl Into<String>) -> Self {
        Self::new(status, "external authorization failed", Reason::Unauthorized, why)
    }

    /// A body is longer than a provider may be shown.
    pub(in crate::l7) fn too_long(why: impl Into<String>) -> Self {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        Self::new(status, "payload too large", Reason::Unauthorized, why)
    }

    pub(in crate::l7) fn denied(why: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "RBAC: access denied", Reason::Denied, why)
    }

    /// What is wrong with a request itself.
    pub(in crate::l7) fn fault(fault: Fault) -> Self {
        let text = match fault.status {
            StatusCode::NOT_IMPLEMENTED => "not implemented",
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "request header fields too large",
            _ => "bad request",
        };
        Self::new(fault.status, text, Reason::BadRequest, fault.why)
    }

    /// A policy refuses the request; one that cannot tell who asks says so (RFC 6750, 3).
    pub(in crate::l7) fn of_denial(denial: &Denial, uri: &Uri, headers: &HeaderMap) -> Self {
        let policy = || denial.policy.clone();
        let named = || policy().map(|_| Box::new(Given { policy: policy(), ..Given::default() }));
        let Some(fault) = denial.token else {
            return Self { given: named(), ..Self::denied(&*denial.why) };
        };
        let answer = |status| {
            let answer = Self::new(status, fault.text(), Reason::Denied, &*denial.why);
            Self { given: named(), ..answer }
        };
        if fault.is_known_bearer() {
            return answer(StatusCode::FORBIDDEN);
        }
        let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, challenge(uri, headers))]);
        let given = Given { headers, policy: policy(), ..Given::default() };
        Self { given: Some(Box::new(given)), ..answer(StatusCode::UNAUTHORIZED) }
    }

    /// An object wants it encrypted as the mesh does not do it.
    pub(in crate::l7) fn in_the_clear(why: impl Into<String>) -> Self {
        let text = "TLS to the destination is not carried out";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, text, Reason::Unencrypted, why)
    }

    pub(in crate::l7) fn no_route(why: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "no route matches", Reason::NoRoute, why)
    }

    /// A rule without a backend that can be used (Gateway API, HTTPRouteRule.backendRefs).
    pub(in crate::l7) fn no_backend(status: StatusCode, why: impl Into<String>) -> Self {
        Self::new(status, "the route has no usable backend", Reason::NoRoute, why)
    }

    pub(in crate::l7) fn no_healthy_upstream(why: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "no healthy upstream", Reason::NoHealthyUpstream, why)
    }

    /// The name below a wildcard that was asked for has no address; the text is Envoy's.
    pub(in crate::l7) fn dns_failure(why: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "DNS resolution failure", Reason::DnsFailure, why)
    }

    /// A budget or a limit is full. Whoever passes it on hears that it is no error of the endpoint: a client could otherwise have
    /// endpoints ejected for others by what it takes itself.
    pub(in crate::l7) fn overflow(why: impl Into<String>) -> Self {
        let headers = HeaderMap::from_iter([
            (RETRY_AFTER, HeaderValue::from_static("1")),
            (HeaderName::from_static(OVERLOADED), HeaderValue::from_static("true")),
        ]);
        let given = Some(Box::new(Given { headers, ..Given::default() }));
        let text = "upstream overflow";
        Self { given, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, text, Reason::Overflow, why) }
    }

    pub(in crate::l7) fn waypoint_unusable(why: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "the waypoint cannot be used", Reason::WaypointUnusable, why)
    }

    /// What the application answered is none of HTTP, or nothing that can be passed on.
    pub(in crate::l7) fn bad_gateway(why: impl Into<String>) -> Self {
        let text = "upstream connect error or disconnect/reset before headers. reset reason: protocol error";
        Self::new(StatusCode::BAD_GATEWAY, text, Reason::BadResponse, why)
    }

    /// The way to the application failed.
    pub(in crate::l7) fn unreachable(reason: Reason, why: impl Into<String>) -> Self {
        let (status, text) = match reason {
            Reason::Timeout => (StatusCode::GATEWAY_TIMEOUT, "upstream request timeout"),
            Reason::StreamDuration => {
                (StatusCode::GATEWAY_TIMEOUT, "upstream max stream duration reached")
            }
            Reason::Overflow => return Self::overflow(why),
            // The destination refused the tunnel at layer 4.
            Reason::Denied => return Self::denied(why),
            _ => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream connect error or disconnect/reset before headers",
            ),
        };
        Self::new(status, text, reason, why)
    }

    /// What a request whose body came to no end is answered, if anybody still listens; else the client would look for the
    /// fault at the application, which has got no whole request either.
    fn of_body(broken: Broken) -> Self {
        let (reason, why) = match broken {
            Broken::Malformed => (
                Reason::BadRequest,
                "the chunks of the request's body break the rules (RFC 9112, 7.1)",
            ),
            Broken::Cut => (Reason::PeerReset, "the client broke off within the request's body"),
        };
        Self::new(StatusCode::BAD_REQUEST, "bad request", reason, why)
    }

    /// Closes the books and answers.
    pub(in crate::l7) fn respond(
        self,
        mut exchange: Box<Exchange>,
        form: Form,
    ) -> Response<ResponseBody> {
        if self.reason == Reason::PeerReset
            && let Some(broken) = exchange.broken_body()
        {
            exchange.abandon();
            return Self::of_body(broken).write(exchange, form);
        }
        self.write(exchange, form)
    }

    fn write(mut self, mut exchange: Box<Exchange>, form: Form) -> Response<ResponseBody> {
        if self.reason != Reason::None {
            let why = std::mem::take(&mut self.why);
            exchange.record.fail(self.reason, why.into_string());
            self.tell_observers(&mut exchange);
        }
        if form == Form::Grpc && self.reason != Reason::None {
            return self.respond_grpc(exchange);
        }
        let Given { headers, body, .. } = self.given.take().map(|given| *given).unwrap_or_default();
        let is_own = body.is_none();
        let text = body.unwrap_or_else(|| Bytes::from_static(self.text.as_bytes()));
        let length = text.len();
        let text = if form == Form::Head { Bytes::new() } else { text };
        exchange.record.response(self.status);
        let closes = exchange.withholds_body();
        // Also with an answer of our own the client gets what a provider that permits gives it, such as a cookie.
        let added = exchange.added.take();
        let mut response = Response::new(ResponseBody::own(text, exchange));
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        if let Some(added) = added {
            ext_authz::add_to_response(&added, response.headers_mut());
        }
        if closes {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::UNAUTHORIZED && is_own {
            response.headers_mut().entry(WWW_AUTHENTICATE).or_insert(CHALLENGE);
        }
        if is_own && length > 0 {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        // These have no body (RFC 9110, 8.6).
        let has_none = matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if (length > 0 || !is_own) && !has_none {
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        response
    }

    /// Names the policy that refused, and has the client's agent hear that one did; that takes the header off.
    fn tell_observers(&mut self, exchange: &mut Exchange) {
        if Verdict::of(self.reason) != Verdict::Denied {
            return;
        }
        if let Some(policy) = self.given.as_mut().and_then(|given| given.policy.take()) {
            exchange.record.policy(Some(policy));
        }
        if exchange.record.is_of_a_routed_arrival() {
            let given = self.given.get_or_insert_default();
            given.headers.insert(headers::DENIED, HeaderValue::from_static("true"));
        }
    }

    /// A failure as gRPC has it, with the headers that a filter answers with.
    fn respond_grpc(self, mut exchange: Box<Exchange>) -> Response<ResponseBody> {
        let Given { headers, grpc, .. } = self.given.map(|given| *given).unwrap_or_default();
        let code = grpc.unwrap_or_else(|| grpc_code(self.status));
        exchange.record.response(StatusCode::OK);
        exchange.record.grpc_status(code);
        let added = exchange.added.take();
        let mut response = Response::new(ResponseBody::own(Bytes::new(), exchange));
        *response.headers_mut() = headers;
        let headers = response.headers_mut();
        if let Some(added) = added {
            ext_authz::add_to_response(&added, headers);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(HeaderName::from_static("grpc-status"), code.into());
        headers
            .insert(HeaderName::from_static("grpc-message"), HeaderValue::from_static(self.text));
        response
    }
}

/// As Envoy writes it, but without the query, in which the token may stand.
fn challenge(uri: &Uri, headers: &HeaderMap) -> HeaderValue {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let realm = format!("http://{host}{}", uri.path());
    let plain = realm.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\'));
    let realm: String = plain.take(MAX_REALM).collect();
    let text = format!("Bearer realm=\"{realm}\", error=\"invalid_token\"");
    HeaderValue::try_from(text).unwrap_or(CHALLENGE)
}

/// gRPC "HTTP to gRPC Status Code Mapping".
fn grpc_code(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_statuses_as_grpc_documents() {
        for (status, code) in [(403, 7), (404, 12), (503, 14), (504, 14), (500, 2), (400, 13)] {
            assert_eq!(grpc_code(StatusCode::from_u16(status).unwrap()), code, "{status}");
        }
    }

    #[test]
    fn failures_upstream_keep_their_reason() {
        let answer = Answer::unreachable(Reason::NetworkPolicy, "x");
        assert_eq!(answer.status, 503);
        assert_eq!(answer.reason, Reason::NetworkPolicy);
        assert_eq!(Answer::unreachable(Reason::Timeout, "x").status, 504);
        assert_eq!(Answer::unreachable(Reason::Overflow, "x").text, "upstream overflow");
        assert_eq!(Answer::unreachable(Reason::Denied, "x").status, 403);
    }
}
