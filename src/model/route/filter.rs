//! What rules do to requests and responses (Gateway API, HTTPRouteFilter).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::{HeaderName, HeaderValue, StatusCode};

use super::{BackendRef, text, texts};
use crate::base::Str;

/// What a rule or a backend does to a request or a response, in the order of the route.
#[derive(Clone, Debug, serde::Serialize)]
pub enum HttpFilter {
    RequestHeaders(HeaderFilter),
    ResponseHeaders(HeaderFilter),
    /// Answers instead of forwarding.
    Redirect(Redirect),
    Rewrite(Rewrite),
    Mirror(Mirror),
    Cors(Box<Cors>),
}

/// `set`, then `add`, then `remove` (Gateway API, HTTPHeaderFilter).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct HeaderFilter {
    #[serde(serialize_with = "pairs")]
    pub set: Vec<(HeaderName, HeaderValue)>,
    #[serde(serialize_with = "pairs")]
    pub add: Vec<(HeaderName, HeaderValue)>,
    #[serde(serialize_with = "texts")]
    pub remove: Vec<HeaderName>,
}

/// Where else the client shall go (HTTPRequestRedirectFilter). What is `None` stays as in the request.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Str>,
    pub hostname: Option<Str>,
    pub path: Option<PathRewrite>,
    /// `None`: the scheme's own port where the filter names a scheme, else the one that was dialled.
    pub port: Option<u16>,
    #[serde(serialize_with = "text")]
    pub status: StatusCode,
}

/// What is forwarded instead (HTTPURLRewriteFilter).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rewrite {
    #[serde(serialize_with = "value_option")]
    pub hostname: Option<HeaderValue>,
    pub path: Option<PathRewrite>,
}

/// A new path (HTTPPathModifier). The query stays.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum PathRewrite {
    /// Begins with `/`.
    Full(Str),
    /// Puts `with` in place of the prefix by which the rule was matched; both without a slash at their end, so that
    /// `/` is empty.
    Prefix { prefix: Str, with: Str },
}

/// Sends a copy, and ignores what comes back (HTTPRequestMirrorFilter).
#[derive(Clone, Debug, serde::Serialize)]
pub struct Mirror {
    pub target: BackendRef,
    pub share: Share,
    /// How many requests were considered so far: makes the share exact over short runs.
    #[serde(skip)]
    pub turn: Arc<AtomicU64>,
}

/// `numerator` of each `denominator` requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Share {
    pub numerator: u32,
    /// Never 0.
    pub denominator: u32,
}

/// Which other sites' scripts may call (HTTPCORSFilter; Fetch standard, "CORS protocol").
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Cors {
    pub origins: Vec<OriginPattern>,
    pub credentials: bool,
    /// For `access-control-allow-methods`.
    pub methods: Permitted,
    /// For `access-control-allow-headers`.
    pub headers: Permitted,
    /// For `access-control-expose-headers`.
    pub exposed: Permitted,
    /// How long a browser may keep the answer to its question, in seconds.
    pub max_age: u32,
}

/// One entry of `allowOrigins`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum OriginPattern {
    Any,
    /// In lower case. `*` in the host stands for any characters; the port is always there.
    Like {
        scheme: Str,
        host: Str,
        port: u16,
    },
}

/// A list in an answer to a browser.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum Permitted {
    /// Nothing is named.
    #[default]
    None,
    /// `*`.
    Any,
    /// As it is sent: joined by commas.
    These(#[serde(serialize_with = "value")] HeaderValue),
}

fn pairs<S: serde::Serializer>(
    values: &[(HeaderName, HeaderValue)],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(|(name, value)| format!("{name}: {}", lossy(value))))
}

fn value_option<S: serde::Serializer>(
    value: &Option<HeaderValue>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.serialize_str(&lossy(value)),
        None => to.serialize_none(),
    }
}

fn value<S: serde::Serializer>(value: &HeaderValue, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&lossy(value))
}

fn lossy(value: &HeaderValue) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}
