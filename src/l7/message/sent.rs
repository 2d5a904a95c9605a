//! The head of a request as the client sent it, beside what a route's filters make of it. Both halves come to the
//! same result: the client's node changes the request, and the destination's verifies the change.

use http::{HeaderMap, Method, Request, Uri};

use super::headers;
use crate::filter::{self, HttpFilter, Pair};
use crate::policy;
use crate::route::{Client, Head};

/// The parts of a request in canonical form that filters may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::l7) struct Sent {
    pub(in crate::l7) uri: Uri,
    pub(in crate::l7) headers: HeaderMap,
}

impl Sent {
    pub(in crate::l7) fn of<B>(request: &Request<B>) -> Self {
        Self { uri: request.uri().clone(), headers: request.headers().clone() }
    }

    /// As a request.
    pub(in crate::l7) fn request(&self, method: &Method) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// What the filters make of it.
    pub(in crate::l7) fn filtered(&self, filters: Pair<'_>) -> Self {
        let mut changed = self.clone();
        self.apply(filters, &mut changed.uri, &mut changed.headers);
        changed
    }

    /// Whether the filters make of it what arrived. Headers that they may set to anything do not count.
    pub(in crate::l7) fn becomes<B>(&self, filters: Pair<'_>, arrived: &Request<B>) -> bool {
        let mut made = self.filtered(filters);
        let mut volatile = filters.into_iter().flat_map(filter::volatile).peekable();
        if volatile.peek().is_none() {
            return made.uri == *arrived.uri() && made.headers == *arrived.headers();
        }
        let mut headers = arrived.headers().clone();
        for name in volatile {
            made.headers.remove(name);
            headers.remove(name);
        }
        made.uri == *arrived.uri() && made.headers == headers
    }

    /// Applies the filters to `uri` and `headers`, which are as they were sent. A filter may neither speak for the agent,
    /// nor leave the request without the host that HTTP/1.1 demands.
    fn apply(&self, filters: Pair<'_>, uri: &mut Uri, headers: &mut HeaderMap) {
        for filters in filters {
            filter::change(filters, uri, headers);
        }
        headers::strip_internal(headers);
        headers::keep_host(headers, &self.headers);
    }
}

/// What was sent, where the filters may make something else of it.
pub(in crate::l7) fn keep<B>(filters: &[HttpFilter], request: &Request<B>) -> Option<Box<Sent>> {
    let changes = filter::changes(filters) || filter::volatile(filters).next().is_some();
    changes.then(|| Box::new(Sent::of(request)))
}

/// Makes of a request what is forwarded.
pub(in crate::l7) fn filter<B>(filters: Pair<'_>, sent: &Sent, request: &mut Request<B>) {
    let mut uri = request.uri().clone();
    sent.apply(filters, &mut uri, request.headers_mut());
    *request.uri_mut() = uri;
}

/// A request as routes look at it; target and headers may be others than those it has now.
pub(in crate::l7) fn head<'a>(
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    client: Client<'a>,
) -> Head<'a> {
    Head { method, path: uri.path(), query: uri.query(), headers, client }
}

/// A request as policies look at it; target and headers may be others than those it has now.
pub(in crate::l7) fn policy_request<'a>(
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
) -> policy::Request<'a> {
    policy::Request { method, path: target(uri), host: headers::host(headers), headers }
}

/// The path with the query.
pub(in crate::l7) fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}
