//! The head of a request as the client sent it, beside what a route's filters make of it. Both halves come to the
//! same result: the client's node changes the request, and the destination's verifies the change.

use http::{HeaderMap, Method, Request, Uri};

use super::headers;
use crate::model::HttpFilter;
use crate::policy;
use crate::route::{self, Head};

/// The filters of a rule, then those of the backend.
pub(super) type Filters<'a> = [&'a [HttpFilter]; 2];

/// The parts of a request in canonical form that filters may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
}

impl Sent {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        Self { uri: request.uri().clone(), headers: request.headers().clone() }
    }

    /// What the filters make of it.
    pub(super) fn filtered(&self, filters: Filters<'_>) -> Self {
        let mut changed = self.clone();
        self.apply(filters, &mut changed.uri, &mut changed.headers);
        changed
    }

    /// Applies the filters to `uri` and `headers`, which are as they were sent. A filter may neither speak for the agent,
    /// nor leave the request without the host that HTTP/1.1 demands.
    fn apply(&self, filters: Filters<'_>, uri: &mut Uri, headers: &mut HeaderMap) {
        for filters in filters {
            route::filter_request(filters, uri, headers);
        }
        headers::strip_internal(headers);
        headers::keep_host(headers, &self.headers);
    }
}

/// Applies the filters to a request; returns what was sent, when they may have changed anything.
pub(super) fn filter<B>(filters: Filters<'_>, request: &mut Request<B>) -> Option<Box<Sent>> {
    if !filters.iter().any(|filters| route::changes_request(filters)) {
        return None;
    }
    let sent = Box::new(Sent::of(request));
    let mut uri = sent.uri.clone();
    sent.apply(filters, &mut uri, request.headers_mut());
    *request.uri_mut() = uri;
    Some(sent)
}

/// A request as routes look at it; target and headers may be others than those it has now.
pub(super) fn head<'a>(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap) -> Head<'a> {
    Head { method, path: uri.path(), query: uri.query(), headers }
}

/// A request as policies look at it; target and headers may be others than those it has now.
pub(super) fn policy_request<'a>(
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
) -> policy::Request<'a> {
    policy::Request { method, path: target(uri), host: headers::host(headers), headers }
}

/// The path with the query.
pub(super) fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}
