//! A request as it arrived, in canonical form, with what both halves need to know of it.

use std::sync::Arc;

use http::{Method, Request, Version};
use hyper::body::Incoming;

use super::body::RequestBody;
use super::budget::Full;
use super::respond::Form;
use super::seat::{RequestPermit, Seat};
use super::upgrade::{self, Upgrade};
use super::worker::Context;
use super::{detect, headers, sent};
use crate::base::Str;
use crate::telemetry::RequestStart;

/// A request on its way up.
pub(super) struct Arrived {
    /// Canonical (see [`headers`]), unless there is a fault.
    pub(super) request: Request<RequestBody>,
    pub(super) version: detect::Version,
    /// How the access log names the version.
    pub(super) protocol: &'static str,
    pub(super) form: Form,
    /// The client asks to speak another protocol from here on.
    pub(super) upgrade: Option<Upgrade>,
    /// What is wrong with the request.
    pub(super) fault: Option<&'static str>,
}

impl Arrived {
    pub(super) fn new(mut request: Request<Incoming>, context: &Arc<Context>) -> Self {
        let upgrade = upgrade::requested(&mut request, context);
        let protocol = headers::protocol(request.version());
        let version = match request.version() {
            Version::HTTP_2 => detect::Version::Http2,
            _ => detect::Version::Http1,
        };
        let form = match request.method() {
            _ if headers::is_grpc(request.headers()) => Form::Grpc,
            &Method::HEAD => Form::Head,
            _ => Form::Text,
        };
        let fault = headers::canonical(&mut request).err();
        let request = request.map(RequestBody::new);
        Self { request, version, protocol, form, upgrade, fault }
    }

    /// Takes the request's places in the budgets: its own, and its body's in the connection's receive window.
    pub(super) fn admit(&mut self, seat: &Arc<Seat>) -> Result<RequestPermit, Full> {
        let permit = seat.request(self.version, headers::size(&self.request))?;
        if !self.request.body().is_empty() {
            let receiving = seat.receive()?;
            self.request.body_mut().receiving(receiving);
        }
        Ok(permit)
    }

    /// Fills in what the record says of the request itself.
    pub(super) fn describe(&self, start: RequestStart) -> RequestStart {
        RequestStart {
            method: self.request.method().clone(),
            path: Str::from(sent::target(self.request.uri())),
            authority: Str::from(headers::host(self.request.headers())),
            protocol: self.protocol,
            grpc: self.form == Form::Grpc,
            ..start
        }
    }
}
