//! CORS (Gateway API, HTTPCORSFilter; Fetch standard, "CORS protocol"): which sites' scripts may call, as browsers ask.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Answer, Cx, Fault, Filter, Flow, RequestHead, ResponseHead, RuleContext, Seen, header_modifier,
};
use crate::base::Str;
use crate::base::schema::forms::{HEADER_NAME, ORIGIN as ORIGIN_FORM};
use crate::base::schema::{INT32, Objection, Rule};
use Rule::{Fields, List, Number, OneOf, Text, With};

/// How long a browser may keep an answer when the filter does not say, in seconds (HTTPCORSFilter).
const MAX_AGE: u32 = 5;

const METHODS: Rule =
    OneOf(&["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"]);

const ANY: HeaderValue = HeaderValue::from_static("*");

/// Which other sites' scripts may call.
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
    These(#[serde(serialize_with = "header_modifier::value")] HeaderValue),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
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

impl Filter for Cors {
    type Manifest = Written;

    const SCHEMA: Rule = Fields(&[
        ("allowOrigins", With(&List(0, 64, &Text(ORIGIN_FORM)), &[all_or_some])),
        ("allowMethods", With(&List(0, 9, &METHODS), &[all_or_some])),
        ("allowHeaders", With(&List(0, 64, &Text(HEADER_NAME)), &[all_or_some])),
        ("exposeHeaders", List(0, 64, &Text(HEADER_NAME))),
        ("maxAge", Number(1, INT32)),
    ]);

    fn read(written: &Written, _rule: &dyn RuleContext) -> Result<Self, Fault> {
        let origins = written.allow_origins.iter().map(|text| {
            origin(text).ok_or_else(|| {
                let why =
                    format!("{text:?} is neither * nor scheme://host(:port) of http or https");
                Fault::field("allowOrigins", why)
            })
        });
        let is_method = |text: &str| Method::from_bytes(text.as_bytes()).is_ok();
        let is_header = |text: &str| HeaderName::try_from(text).is_ok();
        Ok(Self {
            origins: origins.collect::<Result<_, _>>()?,
            credentials: written.allow_credentials.unwrap_or_default(),
            methods: permitted("allowMethods", &written.allow_methods, is_method)?,
            headers: permitted("allowHeaders", &written.allow_headers, is_header)?,
            exposed: permitted("exposeHeaders", &written.expose_headers, is_header)?,
            max_age: written.max_age.unwrap_or(MAX_AGE),
        })
    }

    fn request(&self, head: &mut RequestHead<'_>, _cx: &Cx<'_>) -> Flow {
        preflight(self, head).map_or(Flow::Next, Flow::Answer)
    }

    fn remembers(&self) -> Option<HeaderName> {
        Some(ORIGIN)
    }

    fn response(&self, head: &mut ResponseHead<'_>, seen: &Seen) {
        if let Some(origin) = seen.get(&ORIGIN) {
            allow(self, origin, head.headers);
        }
    }

    #[cfg(test)]
    fn samples() -> Vec<Value> {
        let any = serde_json::json!({"allowOrigins": ["*"], "allowMethods": ["*"]});
        vec![any, serde_json::json!({"allowOrigins": ["https://a.example"], "maxAge": 5})]
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
) -> Result<Permitted, Fault> {
    if list.is_empty() {
        return Ok(Permitted::None);
    }
    if list.iter().any(|text| text == "*") {
        return Ok(Permitted::Any);
    }
    if let Some(bad) = list.iter().find(|text| !is_name(text)) {
        return Err(Fault::field(field, format!("{bad:?} is not a name that HTTP could have")));
    }
    let bad = |_| Fault::field(field, "is not something that a header can say");
    HeaderValue::try_from(list.join(", ")).map(Permitted::These).map_err(bad)
}

fn all_or_some(value: &Value) -> Option<Objection> {
    let list = value.as_array()?;
    let all = list.len() > 1 && list.iter().any(|it| it == "*");
    all.then(|| ("", "have * beside others".to_owned()))
}

/// The answer to a browser that asks before it sends; `None` when this is no such question. To an origin that is not
/// allowed the answer is 204 all the same, without a header that would allow anything.
fn preflight(cors: &Cors, head: &RequestHead<'_>) -> Option<Answer> {
    if *head.method != Method::OPTIONS {
        return None;
    }
    let origin = head.headers.get(ORIGIN)?;
    let method = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    let mut headers = HeaderMap::new();
    if is_allowed(cors, origin) {
        allow(cors, origin, &mut headers);
        let named = head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        let lists = [
            (ACCESS_CONTROL_ALLOW_METHODS, &cors.methods, Some(method)),
            (ACCESS_CONTROL_ALLOW_HEADERS, &cors.headers, named),
        ];
        for (name, permitted, asked) in lists {
            if let Some(value) = list(permitted, cors.credentials, asked) {
                headers.insert(name, value);
            }
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, cors.max_age.into());
    }
    Some(Answer::plain(StatusCode::NO_CONTENT, headers))
}

/// Lets the scripts of `origin` read a response, if they may.
fn allow(cors: &Cors, origin: &HeaderValue, headers: &mut HeaderMap) {
    if !is_allowed(cors, origin) {
        return;
    }
    let anybody = cors.origins.contains(&OriginPattern::Any) && !cors.credentials;
    if anybody {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    } else {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        // A cache must not give this to another site.
        headers.append(VARY, HeaderValue::from(ORIGIN));
    }
    if cors.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if let Some(value) = list(&cors.exposed, cors.credentials, None) {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, value);
    }
}

/// Browsers ignore `*` in requests with credentials, so the answer repeats the requested values.
fn list(
    permitted: &Permitted,
    credentials: bool,
    asked: Option<&HeaderValue>,
) -> Option<HeaderValue> {
    match permitted {
        Permitted::None => None,
        Permitted::These(value) => Some(value.clone()),
        Permitted::Any if credentials => asked.cloned(),
        Permitted::Any => Some(ANY),
    }
}

fn is_allowed(cors: &Cors, origin: &HeaderValue) -> bool {
    let parts = origin.to_str().ok().and_then(parts);
    cors.origins.iter().any(|pattern| match (pattern, &parts) {
        (OriginPattern::Any, _) => true,
        (OriginPattern::Like { scheme, host, port }, Some(origin)) => {
            origin.scheme.eq_ignore_ascii_case(scheme)
                && origin.port == *port
                && is_like(host.as_bytes(), origin.host.as_bytes())
        }
        (OriginPattern::Like { .. }, None) => false,
    })
}

struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: u16,
}

/// `scheme://host(:port)`; without a port the scheme's own (`null` has none of these).
fn parts(origin: &str) -> Option<Origin<'_>> {
    let (scheme, authority) = origin.split_once("://")?;
    let default = match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Some(80),
        _ if scheme.eq_ignore_ascii_case("https") => Some(443),
        _ => None,
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, default?),
    };
    Some(Origin { scheme, host, port })
}

/// Whether `*`, which stands for any characters, can be filled so that both are the same. The pattern is in lower case.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // The position of the last `*`, and the end of the text that it has matched so far.
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(wanted) if *wanted == text[read].to_ascii_lowercase() => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((place, end)) = star else { return false };
                star = Some((place, end + 1));
                (at, read) = (place + 1, end + 1);
            }
        }
    }
    pattern[at..].iter().all(|rest| *rest == b'*')
}

#[cfg(test)]
mod tests;
