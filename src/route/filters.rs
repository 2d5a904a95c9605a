//! What a rule does to a request and to its response (Gateway API, HTTPRouteFilter). Filters hold in the order of the
//! route, first the rule's, then the backend's.

use http::header::HOST;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use super::{Head, cors, redirect, rewrite};
use crate::model::{HeaderFilter, HttpFilter};

/// The answer of a filter that answers instead of forwarding. It has no body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
}

/// The first answer that a filter gives itself: a redirect, or what CORS says to a browser's question. `port` was dialled.
pub fn own_answer(filters: &[HttpFilter], head: &Head<'_>, port: u16) -> Option<OwnAnswer> {
    filters.iter().find_map(|filter| match filter {
        HttpFilter::Redirect(redirect) => Some(redirect::answer(redirect, head, port)),
        HttpFilter::Cors(cors) => cors::preflight(cors, head),
        _ => None,
    })
}

/// Whether [`filter_request`] may change anything.
pub fn changes_request(filters: &[HttpFilter]) -> bool {
    let changes =
        |it: &HttpFilter| matches!(it, HttpFilter::RequestHeaders(_) | HttpFilter::Rewrite(_));
    filters.iter().any(changes)
}

/// Whether [`filter_response`] looks at the origin.
pub fn asks_for_origin(filters: &[HttpFilter]) -> bool {
    filters.iter().any(|filter| matches!(filter, HttpFilter::Cors(_)))
}

/// Applies the request filters to a request in canonical form.
pub fn filter_request(filters: &[HttpFilter], uri: &mut Uri, headers: &mut HeaderMap) {
    for filter in filters {
        match filter {
            HttpFilter::RequestHeaders(filter) => apply(filter, headers),
            HttpFilter::Rewrite(rewrite) => {
                if let Some(path) = &rewrite.path {
                    rewrite::apply(path, uri);
                }
                if let Some(hostname) = &rewrite.hostname {
                    headers.insert(HOST, hostname.clone());
                }
            }
            _ => {}
        }
    }
}

/// Applies the response filters. `origin` is the header of the request as the client sent it.
pub fn filter_response(
    filters: &[HttpFilter],
    origin: Option<&HeaderValue>,
    headers: &mut HeaderMap,
) {
    for filter in filters {
        match (filter, origin) {
            (HttpFilter::ResponseHeaders(filter), _) => apply(filter, headers),
            (HttpFilter::Cors(cors), Some(origin)) => cors::allow(cors, origin, headers),
            _ => {}
        }
    }
}

fn apply(filter: &HeaderFilter, headers: &mut HeaderMap) {
    for (name, value) in &filter.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &filter.add {
        headers.append(name, value.clone());
    }
    for name in &filter.remove {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::model::{PathRewrite, Rewrite};

    fn pair(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    }

    #[test]
    fn set_then_add_then_remove() {
        let filter = HeaderFilter {
            set: vec![pair("x-set", "new")],
            add: vec![pair("x-add", "second"), pair("x-fresh", "one")],
            remove: vec![HeaderName::from_static("x-gone")],
        };
        let mut headers: HeaderMap =
            [pair("x-set", "old"), pair("x-add", "first"), pair("x-gone", "1")]
                .into_iter()
                .collect();
        apply(&filter, &mut headers);
        let all = |name: &str| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("x-set"), ["new"]);
        assert_eq!(all("x-add"), ["first", "second"]);
        assert_eq!(all("x-fresh"), ["one"]);
        assert!(all("x-gone").is_empty());
    }

    #[test]
    fn filters_hold_in_their_order() {
        let host = |value| {
            let set = vec![pair("host", value)];
            HttpFilter::RequestHeaders(HeaderFilter { set, ..HeaderFilter::default() })
        };
        let rewrite = HttpFilter::Rewrite(Rewrite {
            hostname: Some(HeaderValue::from_static("rewritten")),
            path: Some(PathRewrite::Full("/new".into())),
        });
        for (filters, expected) in
            [([host("set"), rewrite.clone()], "rewritten"), ([rewrite, host("set")], "set")]
        {
            let mut headers = HeaderMap::from_iter([pair("host", "old")]);
            let mut uri = Uri::from_static("/old?a=b");
            assert!(changes_request(&filters));
            filter_request(&filters, &mut uri, &mut headers);
            assert_eq!(
                (uri.to_string().as_str(), &headers["host"]),
                ("/new?a=b", &expected.parse().unwrap())
            );
        }
    }
}
