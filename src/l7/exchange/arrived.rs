//! A request as it arrived, in canonical form, with what both halves need to know of it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::EXPECT;
use http::{HeaderMap, Method, Request};

use super::answer::Form;
use super::upgrade::{self, Upgrade};
use crate::base::Str;
use crate::ext_authz::Mutations;
use crate::jwt;
use crate::l7::budget::Full;
use crate::l7::budget::seat::{RequestPermit, Seat};
use crate::l7::message::body::RequestBody;
use crate::l7::message::framing::{self, Fault};
use crate::l7::message::sent::Sent;
use crate::l7::message::{headers, sent};
use crate::l7::version::Version;
use crate::telemetry::{RequestRecord, RequestStart};

/// A request on its way up.
pub(in crate::l7) struct Arrived {
    /// Canonical (see [`headers`]), unless there is a fault.
    pub(in crate::l7) request: Request<RequestBody>,
    pub(in crate::l7) version: Version,
    /// How the access log names the version.
    pub(in crate::l7) protocol: &'static str,
    pub(in crate::l7) form: Form,
    /// The client asks to speak another protocol from here on.
    pub(in crate::l7) upgrade: Option<Upgrade>,
    /// What is wrong with the request.
    pub(in crate::l7) fault: Option<Fault>,
    /// How many checks of external authorization led to it.
    pub(in crate::l7) checks: u8,
    /// The head as policies judge it, where a token or a provider changed it for an attempt.
    pub(in crate::l7) untold: Option<Box<Untold>>,
}

/// The head of a request before its token was taken out, and before providers of external authorization changed it.
pub(in crate::l7) struct Untold {
    pub(in crate::l7) sent: Sent,
    pub(in crate::l7) mutations: Option<Arc<Mutations>>,
}

/// What a worker lets a request have.
pub(in crate::l7) struct Limits<'a> {
    /// Fields in its head.
    pub(in crate::l7) fields: usize,
    /// What it may upgrade to, in lower case.
    pub(in crate::l7) upgrades: &'a [Str],
}

impl Arrived {
    /// `dialled`: the address that the client asked for, which stands for a host that it need not name.
    pub(in crate::l7) fn new(
        mut request: Request<RequestBody>,
        limits: &Limits<'_>,
        dialled: SocketAddr,
    ) -> Self {
        let checks = headers::take_checks(request.headers_mut());
        let upgrade = upgrade::requested(&request, limits.upgrades);
        let protocol = headers::protocol(request.version());
        let version = match request.version() {
            http::Version::HTTP_2 => Version::Http2,
            _ => Version::Http1,
        };
        let form = match request.method() {
            _ if headers::is_grpc(request.headers()) => Form::Grpc,
            &Method::HEAD => Form::Head,
            _ => Form::Text,
        };
        let framed = framing::check_request(request.headers(), limits.fields);
        let fault =
            framed.and_then(|()| Ok(headers::canonical(&mut request, Some(dialled))?)).err();
        let expects = expects_continue(request.headers());
        if request.version() == http::Version::HTTP_10 {
            // Nobody may be told 100 over HTTP/1.0, whatever it expects (RFC 9110, 10.1.1).
            request.headers_mut().remove(EXPECT);
        }
        if form == Form::Grpc {
            request.body_mut().count_messages();
        }
        if expects && request.version() == http::Version::HTTP_11 {
            request.body_mut().wait();
        }
        Self { request, version, protocol, form, upgrade, fault, checks, untold: None }
    }

    /// The same once more, for another attempt or as a copy.
    pub(in crate::l7) fn again(
        request: Request<RequestBody>,
        (version, protocol, form): (Version, &'static str, Form),
    ) -> Self {
        let (upgrade, fault, checks, untold) = (None, None, 0, None);
        Self { request, version, protocol, form, upgrade, fault, checks, untold }
    }

    /// Takes the request's places in the budgets: its own, and its body's in the connection's receive window.
    pub(in crate::l7) fn admit(&mut self, seat: &Arc<Seat>) -> Result<RequestPermit, Full> {
        let permit = seat.request(self.version, headers::size(&self.request))?;
        if !self.request.body().is_empty() {
            let receiving = seat.receive()?;
            self.request.body_mut().receiving(receiving);
        }
        Ok(permit)
    }

    /// Fills in what the record says of the request itself, but for its target.
    pub(in crate::l7) fn describe(&self, start: RequestStart) -> RequestStart {
        RequestStart {
            method: self.request.method().clone(),
            protocol: self.protocol,
            grpc: self.form == Form::Grpc,
            ..start
        }
    }

    /// Tells the record what the request asks for and of whom. Called once the record has its rules and its span, which read it.
    pub(in crate::l7) fn name_target(&self, record: &mut RequestRecord) {
        record.target(|| {
            let path = Str::from(jwt::redacted(sent::target(self.request.uri())));
            (path, Str::from(headers::host(self.request.headers())))
        });
    }
}

/// Whether the client waits for 100 before it sends the body, as the server has it, which will say so.
fn expects_continue(headers: &HeaderMap) -> bool {
    let last = headers.get_all(EXPECT).iter().next_back();
    last.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
