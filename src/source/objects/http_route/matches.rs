//! The matches of an HTTPRoute rule, read straight into the model's types.

use http::Method;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::filter::{WrittenMatch, whole};
use crate::model::{HeaderMatch, HttpMatch, PathMatch, TextMatch};

/// One entry of `matches`.
#[derive(Clone, Debug)]
pub struct RouteMatch(pub HttpMatch);

/// What a path may not hold (Gateway API, HTTPPathMatch): a request never arrives so.
const NEVER_IN_PATHS: [&str; 6] = ["//", "/./", "/../", "%2f", "%2F", "#"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawMatch {
    #[serde(default, deserialize_with = "path")]
    path: PathMatch,
    #[serde(default)]
    headers: Vec<HeaderMatch>,
    #[serde(default)]
    query_params: Vec<RawQueryMatch>,
    #[serde(default, deserialize_with = "method")]
    method: Option<Method>,
}

#[derive(Clone, Copy, Default, Deserialize)]
enum PathMatchType {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPath {
    #[serde(default, rename = "type")]
    kind: PathMatchType,
    #[serde(default)]
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(try_from = "WrittenMatch")]
struct RawQueryMatch(String, TextMatch);

impl<'de> Deserialize<'de> for RouteMatch {
    /// Of several entries with one name only the first counts (Gateway API, HTTPRouteMatch).
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = RawMatch::deserialize(from)?;
        let headers = first_of_each(raw.headers);
        let mut matched =
            HttpMatch { path: raw.path, method: raw.method, headers, ..HttpMatch::default() };
        for RawQueryMatch(name, value) in raw.query_params {
            if matched.query.iter().all(|(other, _)| *other != name.as_str()) {
                matched.query.push((name.into(), value));
            }
        }
        Ok(RouteMatch(matched))
    }
}

/// Of several entries with one name only the first counts.
pub(in crate::source::objects) fn first_of_each(written: Vec<HeaderMatch>) -> Vec<HeaderMatch> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for header in written {
        if headers.iter().all(|other| other.name != header.name) {
            headers.push(header);
        }
    }
    headers
}

impl TryFrom<WrittenMatch> for RawQueryMatch {
    type Error = String;

    fn try_from(written: WrittenMatch) -> Result<Self, String> {
        if written.name.is_empty() {
            return Err("name: must not be empty".to_owned());
        }
        let value = written.text()?;
        Ok(Self(written.name, value))
    }
}

fn path<'de, D: Deserializer<'de>>(from: D) -> Result<PathMatch, D::Error> {
    let raw = Option::<RawPath>::deserialize(from)?.unwrap_or_default();
    let value = raw.value.as_deref().unwrap_or("/");
    match raw.kind {
        PathMatchType::RegularExpression => whole(value).map(PathMatch::Regex),
        PathMatchType::Exact => plain(value).map(|path| PathMatch::Exact(path.into())),
        PathMatchType::PathPrefix => plain(value).map(|path| {
            let trimmed = path.trim_end_matches('/');
            PathMatch::Prefix(if trimmed.is_empty() { "/" } else { trimmed }.into())
        }),
    }
    .map_err(D::Error::custom)
}

fn plain(path: &str) -> Result<&str, String> {
    if !path.starts_with('/') {
        return Err(format!("value: {path:?} must start with /"));
    }
    match NEVER_IN_PATHS.into_iter().find(|part| path.contains(part)) {
        Some(part) => Err(format!("value: {path:?} must not contain {part:?}")),
        None => Ok(path),
    }
}

/// The methods of Gateway API's HTTPMethod.
fn method<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Method>, D::Error> {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    let Some(name) = Option::<String>::deserialize(from)? else { return Ok(None) };
    match KNOWN.into_iter().find(|method| method.as_str() == name) {
        Some(method) => Ok(Some(method)),
        None => Err(D::Error::custom(format!("{name:?} is not a method that Gateway API knows"))),
    }
}
