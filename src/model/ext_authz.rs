//! Providers of external authorization (Istio MeshConfig, `extensionProviders[].envoyExtAuthzHttp`): whom to ask, what to tell
//! them, and which of their headers count.

use std::fmt;
use std::time::Duration;

use super::StringMatch;
use crate::base::{ObjectKey, Str};

/// A provider that says whether a request may pass.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ExtAuthz {
    /// The provider's name, which policies refer to.
    pub name: Str,
    pub service: ProviderService,
    pub port: u16,
    /// How long one check may take.
    pub timeout: Duration,
    /// A request passes if the provider cannot say anything.
    pub fail_open: bool,
    /// The status of the answer if the provider cannot say anything, and a request does not pass then.
    pub status_on_error: u16,
    /// How much of a request's body the provider gets to see.
    pub body: Option<CheckBody>,
    pub protocol: CheckProtocol,
}

/// The service that is asked.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum ProviderService {
    /// A Service's or ServiceEntry's host, `[namespace/]hostname`.
    Host {
        /// The namespace that the service belongs to; without one, the first that all clients see.
        namespace: Option<Str>,
        hostname: Str,
    },
    /// Of a route's filter.
    Service(ObjectKey),
}

/// For messages.
impl fmt::Display for ProviderService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { hostname, .. } => f.write_str(hostname),
            Self::Service(key) => key.fmt(f),
        }
    }
}

/// `includeRequestBodyInCheck`
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CheckBody {
    pub max_bytes: u32,
    /// A longer body is cut; otherwise the request is answered with 413.
    pub allow_partial: bool,
    /// As bytes rather than as UTF-8 (gRPC).
    pub as_bytes: bool,
}

/// How a provider is asked.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum CheckProtocol {
    /// By the request's own method and path, with 200 for yes.
    Http(HttpCheck),
    /// `envoy.service.auth.v3.Authorization/Check`
    Grpc {
        /// Headers of the request that the provider gets to see, in lower case; none listed: all.
        include_headers: Vec<StringMatch>,
    },
}

/// `envoyExtAuthzHttp`: names of headers are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct HttpCheck {
    /// Stands before the path of the request.
    pub path_prefix: Str,
    /// Headers of the request that the provider gets to see, besides its host and `authorization`.
    pub include_headers: Vec<StringMatch>,
    /// Headers that every check has.
    pub additional_headers: Vec<(Str, Str)>,
    /// Headers of the provider that the application gets.
    pub upstream_on_allow: Vec<StringMatch>,
    /// The application gets all headers of the provider but those that describe its answer.
    pub all_upstream: bool,
    /// Headers of the provider that the client gets with a denial; none listed: all.
    pub downstream_on_deny: Vec<StringMatch>,
    /// Headers of the provider that the client gets with the application's response.
    pub downstream_on_allow: Vec<StringMatch>,
}
