//! New paths (Gateway API, HTTPPathModifier).

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;
use serde::Deserialize;
use serde_json::Value;

use super::{Fault, RuleContext};
use crate::base::Str;
use crate::base::schema::forms::any;
use crate::base::schema::{Objection, Rule, text};
use Rule::{Fields, OneOf, Text, With};

/// The values that the API server accepts.
pub(super) const SCHEMA: Rule = With(
    &Fields(&[
        ("type", OneOf(&["ReplaceFullPath", "ReplacePrefixMatch"])),
        ("replaceFullPath", Text(any(1024))),
        ("replacePrefixMatch", Text(any(1024))),
    ]),
    &[goes_with_type],
);

/// A new path (HTTPPathModifier). The query stays.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum PathRewrite {
    /// Begins with `/`.
    Full(Str),
    /// Puts `with` in place of the prefix by which the rule was matched; both without a slash at their end, so that
    /// `/` is empty.
    Prefix { prefix: Str, with: Str },
}

/// A path as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Written {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    replace_full_path: Option<String>,
    #[serde(default)]
    replace_prefix_match: Option<String>,
}

impl Written {
    pub(super) fn read(&self, rule: &dyn RuleContext) -> Result<PathRewrite, Fault> {
        let (field, text) = match self.kind.as_str() {
            "ReplaceFullPath" => ("replaceFullPath", &self.replace_full_path),
            "ReplacePrefixMatch" => ("replacePrefixMatch", &self.replace_prefix_match),
            kind => return Err(Fault::field("path.type", format!("{kind:?} is not supported"))),
        };
        let fault = |why: String| Fault::field(format!("path.{field}"), why);
        let Some(text) = text else {
            return Err(fault(format!("is missing; the type {} needs it", self.kind)));
        };
        let path = if text.starts_with('/') { text.clone() } else { format!("/{text}") };
        let parsed = PathAndQuery::try_from(path.as_str()).ok();
        if parsed.is_none_or(|parsed| parsed.as_str() != path || parsed.path() != path) {
            return Err(fault(format!("{path:?} is not a path that a request can have")));
        }
        if field == "replaceFullPath" {
            return Ok(PathRewrite::Full(path.into()));
        }
        let Some(prefix) = rule.prefix() else {
            let why = "ReplacePrefixMatch needs a rule with exactly one match, of type PathPrefix";
            return Err(Fault::Rule { field: "path", why: why.to_owned() });
        };
        Ok(PathRewrite::Prefix { prefix, with: path.trim_end_matches('/').into() })
    }
}

fn goes_with_type(value: &Value) -> Option<Objection> {
    let kind = text(value, "type")?;
    let has = |field: &str| value.get(field).is_some();
    [("ReplaceFullPath", "replaceFullPath"), ("ReplacePrefixMatch", "replacePrefixMatch")]
        .into_iter()
        .find(|(name, field)| (kind == *name) != has(field))
        .map(|(name, field)| (field, format!("goes with the type {name}, and with no other")))
}

/// A PreciseHostname: lower-case labels, no wildcard, no port.
pub(super) fn hostname(name: &str) -> Result<&str, Fault> {
    let label = |label: &str| {
        let inside = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(inside)
    };
    match name.len() <= 253 && name.split('.').all(label) {
        true => Ok(name),
        false => Err(Fault::field("hostname", format!("{name:?} is not a host name"))),
    }
}

/// Replaces the path of a target in origin form; the query stays.
pub(super) fn apply(rewrite: &PathRewrite, uri: &mut Uri) {
    let path = rewritten(rewrite, uri.path());
    let target = match uri.query() {
        None => PathAndQuery::try_from(path.as_ref()),
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
    };
    // The translator's replacement and the rest of a target form a valid target again, and the length of a request's
    // head is bounded well below that of a target.
    if let Ok(target) = target {
        *uri = Uri::from(target);
    }
}

/// The new path for a path that the rule has matched.
pub(super) fn rewritten<'a>(rewrite: &'a PathRewrite, path: &'a str) -> Cow<'a, str> {
    match rewrite {
        PathRewrite::Full(full) => Cow::Borrowed(full.as_str()),
        PathRewrite::Prefix { prefix, with } => {
            let rest = path.strip_prefix(prefix.as_str()).unwrap_or(path);
            match (with.is_empty(), rest.is_empty()) {
                (true, true) => Cow::Borrowed("/"),
                (true, false) => Cow::Borrowed(rest),
                (false, true) => Cow::Borrowed(with.as_str()),
                (false, false) => Cow::Owned(format!("{with}{rest}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The API's own table; the translator has taken the slashes off the ends.
    #[test]
    fn the_table_of_prefixes() {
        for (path, prefix, with, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/", "", "/xyz", "/xyz/"),
            ("/bar", "", "/xyz", "/xyz/bar"),
            ("/bar", "", "", "/bar"),
            ("/foo/foo", "/foo", "/xyz", "/xyz/foo"),
        ] {
            let rewrite = PathRewrite::Prefix { prefix: prefix.into(), with: with.into() };
            assert_eq!(rewritten(&rewrite, path), expected, "{path} {prefix} {with}");
        }
    }

    proptest! {
        /// Whatever the translator lets pass.
        #[test]
        fn a_new_path_is_always_carried_out(
            segments in proptest::collection::vec("[-A-Za-z0-9._~!$&'()*+,;=:@]{0,4}", 0..3),
            rest in "(/[-A-Za-z0-9%._~\\[\\]{}|^\"]{0,4}){0,3}",
            query in proptest::option::of("[-A-Za-z0-9%=&?/]{0,6}"),
            with in "(/[a-z]{1,3}){0,2}",
        ) {
            let prefix: String = segments.iter().map(|it| format!("/{it}")).collect();
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            let path = if prefix.is_empty() && rest.is_empty() { "/".into() } else { format!("{prefix}{rest}") };
            let Ok(target) = format!("{path}{query}").parse::<Uri>() else { return Ok(()) };
            prop_assume!(target.path() == path);
            let rewrite =
                PathRewrite::Prefix { prefix: prefix.as_str().into(), with: with.as_str().into() };
            let mut uri = target.clone();
            apply(&rewrite, &mut uri);
            let expected = rewritten(&rewrite, &path);
            prop_assert!(expected.starts_with('/'));
            prop_assert_eq!(uri.path(), &*expected);
            prop_assert_eq!(uri.query(), target.query());
        }
    }

    #[test]
    fn the_query_stays() {
        let prefix = PathRewrite::Prefix { prefix: "/foo".into(), with: "/x".into() };
        for (rewrite, uri, expected) in [
            (PathRewrite::Full("/one/two".into()), "/foo/a?b=c&d", "/one/two?b=c&d"),
            (PathRewrite::Full("/one".into()), "/foo", "/one"),
            (prefix.clone(), "/foo/a?b=/foo", "/x/a?b=/foo"),
            (prefix, "/foo?", "/x?"),
        ] {
            let mut uri: Uri = uri.parse().unwrap();
            apply(&rewrite, &mut uri);
            assert_eq!(uri, expected);
        }
    }
}
