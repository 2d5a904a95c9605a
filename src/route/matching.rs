//! Whether a request fulfils a match (Gateway API, HTTPRouteMatch).

use super::Head;
use crate::base::Str;
use crate::filter::matches_whole;
use crate::model::{HttpMatch, PathMatch, TextMatch};

pub(super) fn matches(rule: &HttpMatch, head: &Head<'_>) -> bool {
    path_matches(&rule.path, head.path)
        && rule.method.as_ref().is_none_or(|method| method == head.method)
        && rule.headers.iter().all(|header| header.matches(head.headers))
        && rule.query.iter().all(|parameter| query_matches(parameter, head.query))
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

/// The first parameter of that name counts; names are compared exactly.
fn query_matches((name, wanted): &(Str, TextMatch), query: Option<&str>) -> bool {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .find(|(key, _)| key == name.as_str())
        .is_some_and(|(_, value)| wanted.matches(&value))
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
        let wanted = (Str::from("animal"), TextMatch::Exact("blue whale".into()));
        assert!(query_matches(&wanted, Some("x=1&animal=blue%20whale&animal=dog")));
        assert!(!query_matches(&wanted, Some("animal=dog&animal=blue+whale")));
        assert!(!query_matches(&wanted, None));
    }
}
