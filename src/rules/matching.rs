//! Whether a request fulfils a match (Gateway API, HTTPRouteMatch; Istio, HTTPMatchRequest).

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::HOST;
use http::{HeaderMap, HeaderName, Method};

use crate::base::{Bits, Identity, Str};
use crate::filter::sent_text;
use crate::model::{HeaderMatch, HttpMatch, MoreMatch, PathMatch, TextMatch, Without};

/// The parts of a request's head that routes match.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub client: Client<'a>,
}

/// A header of the request, with its text.
pub(super) type Known<'a> = Option<(&'a HeaderName, Cow<'a, str>)>;

/// Who asks, as far as VirtualServices match it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client<'a> {
    pub namespace: &'a str,
    pub who: Who<'a>,
    /// The selections of labels that select it, in the snapshot at hand. Looked up for rules that match them; `None` for a client
    /// that is not known.
    pub selected_by: Option<&'a Bits>,
}

/// The client's workload.
#[derive(Clone, Copy, Debug, Default)]
pub enum Who<'a> {
    #[default]
    Unknown,
    /// By its uid.
    Workload(&'a str),
    /// By its address, and the identity that it has proven.
    Peer(IpAddr, &'a Identity),
}

/// `known`: a header that was looked up already.
pub(super) fn matches(rule: &HttpMatch, head: &Head<'_>, known: &Known<'_>) -> bool {
    let fits = |header: &HeaderMatch| match known {
        Some((name, text)) if **name == header.name => header.value.matches(text),
        _ => header.matches(head.headers),
    };
    path_matches(&rule.path, head.path)
        && rule.method.as_ref().is_none_or(|method| method == head.method)
        && rule.headers.iter().all(fits)
        && rule.query.iter().all(|(name, wanted)| query_matches(name, wanted, head.query))
        && rule.more.as_ref().is_none_or(|more| more_matches(more, head))
}

fn more_matches(more: &MoreMatch, head: &Head<'_>) -> bool {
    let MoreMatch {
        method,
        authority,
        present,
        present_query,
        without,
        source_namespace,
        source_labels,
    } = more;
    let selected_by = |number: u32| head.client.selected_by.is_some_and(|it| it.contains(number));
    let is_host = |wanted: &TextMatch| {
        sent_text(head.headers, &HOST).is_some_and(|host| wanted.matches(&host))
    };
    source_namespace.as_ref().is_none_or(|namespace| head.client.namespace == namespace.as_str())
        && source_labels.is_none_or(selected_by)
        && method.as_ref().is_none_or(|wanted| wanted.matches(head.method.as_str()))
        && authority.as_ref().is_none_or(is_host)
        && present.iter().all(|name| head.headers.contains_key(name))
        && present_query.iter().all(|name| parameter(name, head.query).is_some())
        && !without.iter().any(|without| excludes(without, head.headers))
}

/// A header that is missing counts as an empty one (Envoy, `treat_missing_header_as_empty`).
fn excludes(without: &Without, headers: &HeaderMap) -> bool {
    let Without { name, value } = without;
    match value {
        None => headers.contains_key(name),
        Some(value) if headers.contains_key(name) => {
            sent_text(headers, name).is_some_and(|text| value.matches(&text))
        }
        Some(value) => value.matches(""),
    }
}

fn path_matches(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Exact(exact) => path == exact.as_str(),
        PathMatch::Prefix(prefix) => has_prefix(path, prefix),
        PathMatch::Starts(start) => path.starts_with(start.as_str()),
        PathMatch::ExactAnyCase(exact) => path.eq_ignore_ascii_case(exact),
        PathMatch::StartsAnyCase(start) => {
            path.get(..start.len()).is_some_and(|it| it.eq_ignore_ascii_case(start))
        }
        PathMatch::Regex(regex) => regex.is_whole(path),
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
        let regex =
            |text: &str| Some(TextMatch::Regex(crate::base::Regex::anywhere(text).unwrap()));
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
