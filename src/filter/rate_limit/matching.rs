//! Which requests a limit is for (`matches`).
//!
//! A limit protects, so a request that may be read as one of these is one: the path counts in each of its readings.

use http::Method;
use serde::Deserialize;

use super::super::{HeaderMatch, RequestHead};
use crate::base::path::PathReadings;
use crate::base::schema::Rule;
use crate::base::schema::forms::{HEADER_NAME, HEADER_VALUE, any};
use crate::base::{Regex, RegexError, Str};
use Rule::{Fields, List, OneOf, Text};

/// The matches that the API server accepts.
pub(super) const SCHEMA: Rule = List(
    0,
    16,
    &Fields(&[
        (
            "path",
            Fields(&[
                ("type", OneOf(&["Exact", "PathPrefix", "RegularExpression"])),
                ("value", Text(any(1024))),
            ]),
        ),
        ("methods", List(0, 9, &Text(any(64)))),
        (
            "headers",
            List(
                0,
                16,
                &Fields(&[
                    ("type", OneOf(&["Exact", "Prefix", "RegularExpression"])),
                    ("name", Text(HEADER_NAME)),
                    ("value", Text(HEADER_VALUE)),
                ]),
            ),
        ),
    ]),
);

/// What requests have in common: all of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RequestMatch {
    pub path: Option<PathPattern>,
    /// One of these; none listed: any.
    #[serde(serialize_with = "methods")]
    pub methods: Vec<Method>,
    pub headers: Vec<HeaderMatch>,
}

/// As in an HTTPRoute.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum PathPattern {
    Exact(Str),
    /// By whole segments; without a slash at its end.
    Prefix(Str),
    Regex(#[serde(serialize_with = "super::super::text")] Regex),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Written {
    #[serde(default)]
    path: Option<WrittenPath>,
    #[serde(default)]
    methods: Vec<String>,
    #[serde(default)]
    headers: Vec<HeaderMatch>,
}

/// A path, compiled once for all that is made of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawPath")]
struct WrittenPath(Result<PathPattern, String>);

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPath {
    #[serde(default, rename = "type")]
    kind: PathType,
    value: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum PathType {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
}

impl Written {
    /// The field at fault, and why.
    pub(super) fn read(&self) -> Result<RequestMatch, (String, String)> {
        let path = self.path.as_ref().map(|path| path.0.clone()).transpose();
        let methods = self.methods.iter().enumerate().map(|(at, method)| {
            let is_known = Method::from_bytes(method.as_bytes()).ok();
            is_known.ok_or_else(|| (format!("methods[{at}]"), format!("{method:?} is no method")))
        });
        Ok(RequestMatch {
            path: path.map_err(|why| ("path.value".to_owned(), why))?,
            methods: methods.collect::<Result<_, _>>()?,
            headers: self.headers.clone(),
        })
    }
}

impl TryFrom<RawPath> for WrittenPath {
    /// The object has more expressions than it may.
    type Error = RegexError;

    fn try_from(RawPath { kind, value }: RawPath) -> Result<Self, RegexError> {
        let is_absolute = value.starts_with('/');
        Ok(Self(match kind {
            PathType::RegularExpression => match Regex::whole(&value) {
                Ok(regex) => Ok(PathPattern::Regex(regex)),
                Err(error @ RegexError::Budget(_)) => return Err(error),
                Err(error) => Err(error.to_string()),
            },
            _ if !is_absolute => Err(format!("{value:?} does not begin with /")),
            PathType::Exact => Ok(PathPattern::Exact(value.into())),
            PathType::PathPrefix => Ok(PathPattern::Prefix(value.trim_end_matches('/').into())),
        }))
    }
}

impl RequestMatch {
    pub(super) fn takes(&self, head: &RequestHead<'_>) -> bool {
        (self.methods.is_empty() || self.methods.contains(head.method))
            && self.headers.iter().all(|header| header.matches(head.headers))
            && self.path.as_ref().is_none_or(|path| path.may_take(head.uri.path()))
    }
}

impl PathPattern {
    fn may_take(&self, path: &str) -> bool {
        let readings = PathReadings::of(path);
        readings.unclear.is_some()
            || self.takes(&readings.sent)
            || readings.others.iter().any(|reading| self.takes(reading))
    }

    fn takes(&self, path: &str) -> bool {
        match self {
            PathPattern::Exact(exact) => path == exact.as_str(),
            PathPattern::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            PathPattern::Regex(regex) => regex.is_whole(path),
        }
    }
}

fn methods<S: serde::Serializer>(methods: &[Method], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(methods.iter().map(Method::as_str))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Uri};
    use serde_json::{Value, json};

    use super::*;

    fn read(written: Value) -> Result<RequestMatch, (String, String)> {
        serde_json::from_value::<Written>(written).unwrap().read()
    }

    fn takes(written: &Value, method: &Method, target: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("x-plan", HeaderValue::from_static("free"));
        let uri: Uri = target.parse().unwrap();
        read(written.clone()).unwrap().takes(&RequestHead {
            method,
            uri: &uri,
            headers: &mut headers,
        })
    }

    #[test]
    fn all_that_a_match_names_must_fit() {
        let path = |kind: &str, value: &str| json!({"path": {"type": kind, "value": value}});
        for (written, method, target, expected) in [
            (json!({}), Method::GET, "/", true),
            (path("Exact", "/a"), Method::GET, "/a?b", true),
            (path("Exact", "/a"), Method::GET, "/a/", false),
            (path("PathPrefix", "/a/"), Method::GET, "/a", true),
            (path("PathPrefix", "/a"), Method::GET, "/ab", false),
            (path("PathPrefix", "/"), Method::GET, "/ab", true),
            (path("RegularExpression", "/a[0-9]+"), Method::GET, "/a12", true),
            (path("RegularExpression", "/a[0-9]+"), Method::GET, "/a12/b", false),
            (json!({"methods": ["GET", "PUT"]}), Method::PUT, "/", true),
            (json!({"methods": ["GET", "PUT"]}), Method::POST, "/", false),
            (json!({"headers": [{"name": "x-plan", "value": "free"}]}), Method::GET, "/", true),
            (json!({"headers": [{"name": "x-plan", "value": "paid"}]}), Method::GET, "/", false),
            (json!({"methods": ["GET"], "path": {"value": "/a"}}), Method::GET, "/b", false),
        ] {
            assert_eq!(takes(&written, &method, target), expected, "{written} {method} {target}");
        }
    }

    #[test]
    fn no_spelling_of_a_path_leads_past_a_limit() {
        let written = json!({"path": {"value": "/admin"}});
        for target in
            ["/admin", "/%61dmin", "//admin", "/x/../admin", "/admin;v=1/x", "/.//admin", "/%ff"]
        {
            assert!(takes(&written, &Method::GET, target), "{target}");
        }
        assert!(!takes(&written, &Method::GET, "/other"));
    }

    #[test]
    fn what_matches_nothing_is_a_fault() {
        for (written, field) in [
            (json!({"path": {"value": "a"}}), "path.value"),
            (json!({"path": {"type": "RegularExpression", "value": "("}}), "path.value"),
            (json!({"methods": ["GET", "A B"]}), "methods[1]"),
        ] {
            assert_eq!(read(written.clone()).unwrap_err().0, field, "{written}");
        }
    }
}
