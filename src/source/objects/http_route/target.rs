//! Filters that change where a request goes: redirects, rewrites, mirrors.

use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;

use super::{BackendObject, filter::Unsupported};
use crate::base::Str;
use crate::model::Share;

/// The codes that Gateway API has for redirects, 302 by default.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// RequestRedirect, before it is known by which prefix its rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectFilter {
    pub scheme: Option<Str>,
    pub hostname: Option<Str>,
    pub path: Option<PathModifier>,
    pub port: Option<u16>,
    pub status: StatusCode,
}

/// URLRewrite, before it is known by which prefix its rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteFilter {
    pub hostname: Option<HeaderValue>,
    pub path: Option<PathModifier>,
}

/// HTTPPathModifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    /// Begins with `/`.
    Full(Str),
    /// Without a slash at the end, so that `/` is empty.
    Prefix(Str),
}

/// RequestMirror.
#[derive(Clone, Debug)]
pub struct MirrorFilter {
    pub backend: BackendObject,
    pub share: Share,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawRedirect {
    #[serde(default)]
    scheme: Option<String>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    path: Option<RawPathModifier>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    status_code: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawRewrite {
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    path: Option<RawPathModifier>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPathModifier {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    replace_full_path: Option<String>,
    #[serde(default)]
    replace_prefix_match: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawMirror {
    backend_ref: BackendObject,
    #[serde(default)]
    percent: Option<u32>,
    #[serde(default)]
    fraction: Option<RawFraction>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFraction {
    numerator: u32,
    #[serde(default)]
    denominator: Option<u32>,
}

impl TryFrom<RawRedirect> for RedirectFilter {
    type Error = Unsupported;

    fn try_from(raw: RawRedirect) -> Result<Self, Unsupported> {
        if let Some(scheme) = raw.scheme.as_ref().filter(|it| !matches!(&***it, "http" | "https")) {
            return Err(Unsupported::new("scheme", format!("{scheme:?} is not supported")));
        }
        let code = raw.status_code.unwrap_or(302);
        let status = u16::try_from(code).ok().filter(|code| REDIRECTS.contains(code));
        let Some(status) = status.and_then(|code| StatusCode::from_u16(code).ok()) else {
            return Err(Unsupported::new("statusCode", format!("{code} is not supported")));
        };
        Ok(Self {
            scheme: raw.scheme.map(Str::from),
            hostname: raw.hostname.map(|name| hostname(&name).map(Str::from)).transpose()?,
            path: raw.path.map(PathModifier::try_from).transpose()?,
            port: raw.port,
            status,
        })
    }
}

impl TryFrom<RawRewrite> for RewriteFilter {
    type Error = Unsupported;

    fn try_from(raw: RawRewrite) -> Result<Self, Unsupported> {
        let value = |name: String| {
            let bad = |_| Unsupported::new("hostname", format!("{name:?} is not a host name"));
            HeaderValue::try_from(hostname(&name)?).map_err(bad)
        };
        Ok(Self {
            hostname: raw.hostname.map(value).transpose()?,
            path: raw.path.map(PathModifier::try_from).transpose()?,
        })
    }
}

impl TryFrom<RawPathModifier> for PathModifier {
    type Error = Unsupported;

    fn try_from(raw: RawPathModifier) -> Result<Self, Unsupported> {
        let (field, text) = match raw.kind.as_str() {
            "ReplaceFullPath" => ("replaceFullPath", raw.replace_full_path),
            "ReplacePrefixMatch" => ("replacePrefixMatch", raw.replace_prefix_match),
            kind => {
                let why = format!("{kind:?} is not supported");
                return Err(Unsupported::new("path.type", why));
            }
        };
        let field_of = || format!("path.{field}");
        let Some(text) = text else {
            let why = format!("is missing; the type {} needs it", raw.kind);
            return Err(Unsupported::new(field_of(), why));
        };
        let path = if text.starts_with('/') { text } else { format!("/{text}") };
        let parsed = PathAndQuery::try_from(path.as_str()).ok();
        if parsed.is_none_or(|parsed| parsed.as_str() != path || parsed.path() != path) {
            let why = format!("{path:?} is not a path that a request can have");
            return Err(Unsupported::new(field_of(), why));
        }
        Ok(match field {
            "replaceFullPath" => PathModifier::Full(path.into()),
            _ => PathModifier::Prefix(path.trim_end_matches('/').into()),
        })
    }
}

impl TryFrom<RawMirror> for MirrorFilter {
    type Error = Unsupported;

    fn try_from(raw: RawMirror) -> Result<Self, Unsupported> {
        let share = match (raw.percent, raw.fraction) {
            (None, None) => Share { numerator: 1, denominator: 1 },
            (Some(percent), None) => Share { numerator: percent, denominator: 100 },
            (None, Some(RawFraction { numerator, denominator })) => {
                Share { numerator, denominator: denominator.unwrap_or(100) }
            }
            (Some(_), Some(_)) => {
                let why = "stands beside percent; only one of both may be given";
                return Err(Unsupported::new("fraction", why));
            }
        };
        if share.denominator == 0 || share.numerator > share.denominator {
            let why = format!("{} of {} is not a share", share.numerator, share.denominator);
            let field = if raw.percent.is_some() { "percent" } else { "fraction" };
            return Err(Unsupported::new(field, why));
        }
        Ok(Self { backend: raw.backend_ref, share })
    }
}

/// A PreciseHostname: lower-case labels, no wildcard, no port.
fn hostname(name: &str) -> Result<&str, Unsupported> {
    let label = |label: &str| {
        let inside = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(inside)
    };
    match name.len() <= 253 && name.split('.').all(label) {
        true => Ok(name),
        false => Err(Unsupported::new("hostname", format!("{name:?} is not a host name"))),
    }
}
