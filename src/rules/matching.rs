//! Whether a request fulfils a match (Gateway API, HTTPRouteMatch).

use std::borrow::Cow;

use http::{HeaderMap, Method};

use crate::base::Str;
use crate::filter::matches_whole;
use crate::model::{HttpMatch, PathMatch, TextMatch};

/// The parts of a request's head that routes match.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
}

pub(super) fn matches(rule: &HttpMatch, head: &Head<'_>) -> bool {
    path_matches(&rule.path, head.path)
        && rule.method.as_ref().is_none_or(|method| method == head.method)
        && rule.headers.iter().all(|header| header.matches(head.headers))
        && rule.query.iter().all(|(name, wanted)| query_matches(name, wanted, head.query))
}

fn path_matches(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Exact(exact) => path == exact.as_str(),
        PathMatch::Prefix(prefix) => has_prefix(path, prefix),
        PathMatch::Regex(regex) => matches_whole(regex, path),
        PathMatch::Grpc { service, method } => grpc_matches(service, method, path),
    }
}

/// gRPC's paths are `/service/method` (gRPC over HTTP2, "Requests").
fn grpc_matches(service: &Option<TextMatch>, method: &Option<TextMatch>, path: &str) -> bool {
    let parts = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    let Some((of_service, of_method)) = parts else { return false };
    let fits = |wanted: &Option<TextMatch>, text: &str| {
        wanted.as_ref().is_none_or(|wanted| wanted.matches(text))
    };
    fits(service, of_service) && fits(method, of_method)
}

/// By segments: `/foo` takes `/foo`, `/foo/` and `/foo/bar`, not `/foobar`; a trailing slash of the prefix is ignored.
fn has_prefix(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn query_matches(name: &Str, wanted: &TextMatch, query: Option<&str>) -> bool {
    parameter(name, query).is_some_and(|value| wanted.matches(&value))
}

/// The first parameter of that name counts; names are compared exactly.
pub(super) fn parameter<'q>(name: &Str, query: Option<&'q str>) -> Option<Cow<'q, str>> {
    let mut parameters = form_urlencoded::parse(query?.as_bytes());
    parameters.find(|(key, _)| key == name.as_str()).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_by_segment() {
        for (prefix, path, expected) in [
            ("/", "/", true),
            ("/", "/anything", true),
            ("/v2", "/v2", true),
            ("/v2", "/v2/", true),
            ("/v2/", "/v2", true),
            ("/v2", "/v2/x", true),
            ("/v2", "/v2example", false),
            ("/v2", "/foo/v2/example", false),
        ] {
            assert_eq!(has_prefix(path, prefix), expected, "{prefix} {path}");
        }
    }

    #[test]
    fn services_and_methods_of_grpc() {
        let exact = |text: &str| Some(TextMatch::Exact(text.into()));
        let regex = |text: &str| Some(TextMatch::Regex(regex::Regex::new(text).unwrap()));
        for (service, method, path, expected) in [
            (exact("shop.Cart"), exact("Add"), "/shop.Cart/Add", true),
            (exact("shop.Cart"), exact("Add"), "/shop.Cart/Added", false),
            (exact("shop.Cart"), exact("Add"), "/shop.Cart/Add/x", false),
            (exact("shop.Cart"), None, "/shop.Cart/Any", true),
            (exact("shop.Cart"), None, "/shop.Carts/Any", false),
            (None, exact("Add"), "/other/Add", true),
            (None, exact("Add"), "/other/add", false),
            (None, None, "/any/Thing", true),
            (None, None, "/no-method", false),
            (regex("^(?:shop[.].*)$"), None, "/shop.Cart/Add", true),
            (regex("^(?:shop)$"), None, "/shop.Cart/Add", false),
        ] {
            assert_eq!(grpc_matches(&service, &method, path), expected, "{path}");
        }
    }

    #[test]
    fn a_query_is_decoded_and_its_first_value_counts() {
        let wanted = TextMatch::Exact("blue whale".into());
        let matches = |query| query_matches(&"animal".into(), &wanted, query);
        assert!(matches(Some("x=1&animal=blue%20whale&animal=dog")));
        assert!(!matches(Some("animal=dog&animal=blue+whale")));
        assert!(!matches(None));
    }
}
