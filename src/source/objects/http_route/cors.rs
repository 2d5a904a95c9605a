//! The CORS filter.

use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;

use super::filter::Unsupported;
use crate::model::{Cors, OriginPattern, Permitted};

/// How long a browser may keep an answer when the filter does not say, in seconds (HTTPCORSFilter).
const MAX_AGE: u32 = 5;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawCors {
    #[serde(default)]
    allow_origins: Vec<String>,
    #[serde(default)]
    allow_credentials: Option<bool>,
    #[serde(default)]
    allow_methods: Vec<String>,
    #[serde(default)]
    allow_headers: Vec<String>,
    #[serde(default)]
    expose_headers: Vec<String>,
    #[serde(default)]
    max_age: Option<u32>,
}

impl TryFrom<RawCors> for Cors {
    type Error = Unsupported;

    fn try_from(raw: RawCors) -> Result<Self, Unsupported> {
        let origins = raw.allow_origins.iter().map(|text| {
            origin(text).ok_or_else(|| {
                let why =
                    format!("{text:?} is neither * nor scheme://host(:port) of http or https");
                Unsupported::new("allowOrigins", why)
            })
        });
        let is_method = |text: &str| Method::from_bytes(text.as_bytes()).is_ok();
        let is_header = |text: &str| HeaderName::try_from(text).is_ok();
        Ok(Self {
            origins: origins.collect::<Result<_, _>>()?,
            credentials: raw.allow_credentials.unwrap_or_default(),
            methods: permitted("allowMethods", &raw.allow_methods, is_method)?,
            headers: permitted("allowHeaders", &raw.allow_headers, is_header)?,
            exposed: permitted("exposeHeaders", &raw.expose_headers, is_header)?,
            max_age: raw.max_age.unwrap_or(MAX_AGE),
        })
    }
}

/// A port that is not written is the scheme's own.
fn origin(text: &str) -> Option<OriginPattern> {
    if text == "*" {
        return Some(OriginPattern::Any);
    }
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, default),
    };
    let is_host = !host.is_empty() && !host.contains(['/', '?', '#', '@']);
    is_host.then(|| OriginPattern::Like { scheme: scheme.into(), host: host.into(), port })
}

fn permitted(
    field: &str,
    list: &[String],
    is_name: impl Fn(&str) -> bool,
) -> Result<Permitted, Unsupported> {
    if list.is_empty() {
        return Ok(Permitted::None);
    }
    if list.iter().any(|text| text == "*") {
        return Ok(Permitted::Any);
    }
    if let Some(bad) = list.iter().find(|text| !is_name(text)) {
        return Err(Unsupported::new(field, format!("{bad:?} is not a name that HTTP could have")));
    }
    let bad = |_| Unsupported::new(field, "is not something that a header can say");
    HeaderValue::try_from(list.join(", ")).map(Permitted::These).map_err(bad)
}
