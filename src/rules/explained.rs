//! Why a match of a rule holds for a request, and why not: for people. It asks the predicate that decides ([`matching`]), about one
//! part of a match at a time.

use std::sync::Arc;

use super::group::Rules;
use super::matching::{self, Head};
use crate::model::{HttpMatch, HttpRoute, MoreMatch, PathMatch};

/// One match of a rule.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub route: Arc<HttpRoute>,
    /// The rule's place in the route, and the match's in the rule.
    pub rule: usize,
    pub matched: usize,
    /// What keeps it from holding; empty where it holds.
    pub missing: Vec<String>,
}

impl Rules<'_> {
    /// The matches of all routes of the kind that holds, in the order in which they take precedence. The first that lacks nothing holds.
    /// Routes of other ports are among them.
    pub fn candidates(&self, head: &Head<'_>) -> Vec<Candidate> {
        let all = self.matches();
        let candidates = all.map(|(route, rule, matched, of)| Candidate {
            route: route.clone(),
            rule,
            matched,
            missing: missing(of, head),
        });
        candidates.collect()
    }
}

fn missing(of: &HttpMatch, head: &Head<'_>) -> Vec<String> {
    let holds = |part: &HttpMatch| matching::matches(part, head, &None);
    let mut missing = Vec::new();
    let mut want = |part: HttpMatch, wanted: String, found: String| {
        if !holds(&part) {
            missing.push(format!("{wanted}; {found}"));
        }
    };
    want(
        HttpMatch { path: of.path.clone(), ..HttpMatch::default() },
        format!("wants the path {}", path(&of.path)),
        format!("it is {:?}", head.path),
    );
    if let Some(method) = &of.method {
        want(
            HttpMatch { method: Some(method.clone()), ..HttpMatch::default() },
            format!("wants the method {method}"),
            format!("it is {}", head.method),
        );
    }
    for header in &of.headers {
        let found = match head.headers.contains_key(&header.name) {
            true => "it has another value",
            false => "there is none",
        };
        want(
            HttpMatch { headers: vec![header.clone()], ..HttpMatch::default() },
            format!("wants the header {} {}", header.name, header.value),
            found.to_owned(),
        );
    }
    for (name, wanted) in &of.query {
        want(
            HttpMatch { query: vec![(name.clone(), wanted.clone())], ..HttpMatch::default() },
            format!("wants the query parameter {name} {wanted}"),
            format!("the query is {:?}", head.query.unwrap_or_default()),
        );
    }
    for (part, wanted) in of.more.iter().flat_map(|more| parts(more)) {
        let more = Some(Box::new(part));
        let found = "the request has it otherwise".to_owned();
        want(HttpMatch { more, ..HttpMatch::default() }, wanted, found);
    }
    missing
}

/// The parts of what only VirtualServices match, each by itself, with what it wants.
fn parts(more: &MoreMatch) -> Vec<(MoreMatch, String)> {
    let none = MoreMatch::default;
    let mut parts = Vec::new();
    if let Some(namespace) = &more.source_namespace {
        let part = MoreMatch { source_namespace: Some(namespace.clone()), ..none() };
        parts.push((part, format!("wants clients of the namespace {namespace}")));
    }
    if let Some(labels) = more.source_labels {
        let part = MoreMatch { source_labels: Some(labels), ..none() };
        parts.push((part, "wants clients with other labels (sourceLabels)".to_owned()));
    }
    if let Some(method) = &more.method {
        let part = MoreMatch { method: Some(method.clone()), ..none() };
        parts.push((part, format!("wants the method {method}")));
    }
    if let Some(authority) = &more.authority {
        let part = MoreMatch { authority: Some(authority.clone()), ..none() };
        parts.push((part, format!("wants the host {authority}")));
    }
    for name in &more.present {
        let part = MoreMatch { present: vec![name.clone()], ..none() };
        parts.push((part, format!("wants the header {name}")));
    }
    for name in &more.present_query {
        let part = MoreMatch { present_query: vec![name.clone()], ..none() };
        parts.push((part, format!("wants the query parameter {name}")));
    }
    for without in &more.without {
        let part = MoreMatch { without: vec![without.clone()], ..none() };
        parts.push((part, format!("wants the header {} not to be as it is", without.name)));
    }
    parts
}

/// As routes write it.
fn path(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(text) => format!("{text:?}"),
        PathMatch::ExactAnyCase(text) => format!("{text:?} in any case"),
        PathMatch::Prefix(text) | PathMatch::Starts(text) => format!("{text:?} or below"),
        PathMatch::StartsAnyCase(text) => format!("{text:?} or below in any case"),
        PathMatch::Regex(regex) => format!("/{regex}/"),
        PathMatch::Grpc { service, method } => {
            let text = |it: &Option<_>| match it {
                Some(wanted) => format!("{wanted}"),
                None => "any".to_owned(),
            };
            format!("of the gRPC service {} and method {}", text(service), text(method))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, Method};

    use super::*;
    use crate::filter::{HeaderMatch, TextMatch};
    use crate::rules::Client;

    #[test]
    fn each_part_that_does_not_hold_is_named_and_no_other() {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-user"),
            http::HeaderValue::from_static("ann"),
        )]);
        let head = Head {
            method: &Method::GET,
            path: "/reviews/1",
            query: Some("a=1"),
            headers: &headers,
            client: Client::default(),
        };
        let exact = |text: &str| TextMatch::Exact(text.into());
        let header = |name, value| HeaderMatch { name: HeaderName::from_static(name), value };
        let of = HttpMatch {
            path: PathMatch::Prefix("/reviews".into()),
            method: Some(Method::POST),
            headers: vec![header("x-user", exact("bob")), header("x-other", exact("1"))],
            query: vec![("a".into(), exact("1")), ("b".into(), exact("2"))],
            more: None,
        };
        assert_eq!(
            missing(&of, &head),
            [
                "wants the method POST; it is GET",
                "wants the header x-user \"bob\"; it has another value",
                "wants the header x-other \"1\"; there is none",
                "wants the query parameter b \"2\"; the query is \"a=1\"",
            ]
        );
        let holds =
            HttpMatch { path: PathMatch::Exact("/reviews/1".into()), ..HttpMatch::default() };
        assert_eq!(missing(&holds, &head), [""; 0]);
        let other = HttpMatch { path: PathMatch::Exact("/other".into()), ..HttpMatch::default() };
        assert_eq!(missing(&other, &head), ["wants the path \"/other\"; it is \"/reviews/1\""]);
    }
}
