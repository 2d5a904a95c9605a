//! What a provider of external authorization, or a rate limit service, is asked, and what its answer means. Pure: whoever has a request builds the check
//! here, sends it, and reads the answer here.
//!
//! A provider is believed as far as its definition says. It can never set what frames a message, what routes it, or what only
//! agents may say of a client ([`may_set`]). What it adds for the application takes the place of what the client sent; and a
//! header that it could add, that the client sent and that it has not seen, does not reach the application.

mod grpc;
pub mod grpc_check;
pub mod http_check;
mod messages;
pub mod rate_limit;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::base::{Str, alike, is_alike};
use crate::filter::{AuthProtocol, BackendRef, ExternalAuth};
use crate::model::{CheckBody, CheckProtocol, ExtAuthz, HttpCheck, ProviderService, StringMatch};

/// How much of a provider's answer is read, in bytes. Pages that ask for a login are shorter.
pub const MOST_OF_AN_ANSWER: usize = 64 * 1024;

/// What nobody may set on behalf of a message: its framing, its connection, its host, and what only agents may say.
const RESERVED: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-client-cert",
    "x-isthmus-checks",
    "x-isthmus-original",
];

/// How long the authorizer of a route's filter may take, which says nothing of that itself: longer than a person waits for a page.
const FILTER_TIMEOUT: Duration = Duration::from_secs(5);

/// The provider that a route's filter asks, or why there is none.
pub fn of_filter(filter: &ExternalAuth) -> Result<Arc<ExtAuthz>, Str> {
    let (service, port) = match &filter.target {
        Some(BackendRef::Service { service, port }) => (service.clone(), *port),
        Some(BackendRef::Invalid { why, .. }) => return Err(why.clone()),
        None => return Err("its backendRef leads nowhere".into()),
    };
    let names = |list: &[Str]| list.iter().cloned().map(StringMatch::Exact).collect();
    let protocol = match &filter.protocol {
        AuthProtocol::Http { path, allowed, copied } => CheckProtocol::Http(HttpCheck {
            path_prefix: path.clone(),
            include_headers: names(allowed),
            upstream_on_allow: names(copied),
            all_upstream: copied.is_empty(),
            ..HttpCheck::default()
        }),
        AuthProtocol::Grpc { allowed } => CheckProtocol::Grpc { include_headers: names(allowed) },
    };
    let body = CheckBody { max_bytes: filter.body, allow_partial: false, as_bytes: false };
    Ok(Arc::new(ExtAuthz {
        name: arcstr::format!("ExternalAuth {service}:{port}"),
        service: ProviderService::Service(service),
        port,
        timeout: FILTER_TIMEOUT,
        fail_open: false,
        status_on_error: StatusCode::FORBIDDEN.as_u16(),
        body: Some(body).filter(|body| body.max_bytes > 0),
        protocol,
    }))
}

/// What becomes of a request that passes although its provider has failed: nobody but the provider may set its headers, so they
/// are as if it had set none.
pub fn without_answer(provider: &ExtAuthz, asked: &HeaderMap) -> Changes {
    match &provider.protocol {
        CheckProtocol::Http(check) => http_check::changes(check, asked, &HeaderMap::new()),
        CheckProtocol::Grpc { .. } => Changes::default(),
    }
}

/// The request that is asked about.
#[derive(Clone, Copy)]
pub struct About<'a> {
    pub method: &'a Method,
    /// With the query.
    pub target: &'a str,
    pub headers: &'a HeaderMap,
    /// What the provider gets to see of the body.
    pub body: Option<SeenBody<'a>>,
}

/// The part of a body that is shown.
#[derive(Clone, Copy)]
pub struct SeenBody<'a> {
    pub bytes: &'a Bytes,
    /// There is more.
    pub partial: bool,
}

/// What the provider says.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow(Changes),
    Deny(Refusal),
}

/// What becomes of the headers of a request that may pass.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Taken off the request.
    pub removed: Vec<HeaderName>,
    /// The application gets these in place of others of their names.
    pub set: HeaderMap,
    /// The client gets these with the response.
    pub response: HeaderMap,
    /// Names that are the provider's to set. The client sends none of them, in trailers either.
    pub own: Vec<StringMatch>,
}

/// The answer to a request that may not pass.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Changes {
    /// Changes the headers of the request.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in self.removed.iter().chain(self.set.keys()) {
            let taken: Vec<_> = alike(headers, name.as_str()).cloned().collect();
            taken.iter().for_each(|name| _ = headers.remove(name));
        }
        for (name, value) in &self.set {
            headers.append(name.clone(), value.clone());
        }
    }

    fn decides(&self, name: &HeaderName) -> bool {
        let mut named = self.removed.iter().chain(self.set.keys());
        may_be_listed(&self.own, name) || named.any(|own| is_alike(own.as_str(), name.as_str()))
    }
}

/// The changes of all providers that permit a request, in the order in which they were asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mutations(Vec<Changes>);

impl Mutations {
    /// What becomes of a request about which nobody was asked.
    pub const NONE: &'static Self = &Self(Vec::new());

    pub fn add(&mut self, changes: Changes) {
        self.0.push(changes);
    }

    /// Changes the headers of the request.
    pub fn apply(&self, headers: &mut HeaderMap) {
        self.0.iter().for_each(|changes| changes.apply(headers));
    }

    /// Whether a field that the client sends in trailers would speak in a provider's stead.
    pub fn forbids_in_trailers(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|changes| changes.decides(name))
    }

    /// The headers that the client gets with the response.
    pub fn response(&self) -> HeaderMap {
        let mut response = HeaderMap::new();
        self.0.iter().for_each(|changes| add_to_response(&changes.response, &mut response));
        response
    }
}

/// Adds what a provider gives for the response: cookies beside those that are there, anything else in their place.
pub fn add_to_response(given: &HeaderMap, headers: &mut HeaderMap) {
    for name in given.keys().filter(|name| **name != http::header::SET_COOKIE) {
        headers.remove(name);
    }
    for (name, value) in given {
        headers.append(name.clone(), value.clone());
    }
}

/// Whether anybody but agents may set, or remove, a header of the requests of others.
pub fn may_set(name: &HeaderName) -> bool {
    !RESERVED.iter().any(|reserved| is_alike(name.as_str(), reserved))
}

/// Some value of the list fits the name.
fn is_listed(list: &[StringMatch], name: &HeaderName) -> bool {
    let name = name.as_str();
    list.iter().any(|value| match value {
        StringMatch::Exact(text) => name == text.as_str(),
        StringMatch::Prefix(text) => name.starts_with(text.as_str()),
        StringMatch::Suffix(text) => name.ends_with(text.as_str()),
        StringMatch::Present => true,
        StringMatch::Template(_) => false,
    })
}

/// The same for whoever reads names that are alike as one.
fn may_be_listed(list: &[StringMatch], name: &HeaderName) -> bool {
    let name = name.as_str();
    let begin = |text: &Str| name.get(..text.len()).is_some_and(|begin| is_alike(begin, text));
    let end = |text: &Str| {
        let end = name.len().checked_sub(text.len()).and_then(|at| name.get(at..));
        end.is_some_and(|end| is_alike(end, text))
    };
    list.iter().any(|value| match value {
        StringMatch::Exact(text) => is_alike(name, text),
        StringMatch::Prefix(text) => begin(text),
        StringMatch::Suffix(text) => end(text),
        StringMatch::Present => true,
        StringMatch::Template(_) => false,
    })
}

/// The headers of a list that a provider may set.
fn listed(
    headers: &HeaderMap,
    mut wanted: impl FnMut(&HeaderName) -> bool,
) -> HeaderMap<HeaderValue> {
    let mut found = HeaderMap::new();
    for (name, value) in headers {
        if may_set(name) && wanted(name) {
            found.append(name.clone(), value.clone());
        }
    }
    found
}
