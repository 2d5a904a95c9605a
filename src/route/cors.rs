//! Which sites' scripts may call, as browsers ask (Gateway API, HTTPCORSFilter; Fetch standard, "CORS protocol").

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::{Head, OwnAnswer};
use crate::model::{Cors, OriginPattern, Permitted};

const ANY: HeaderValue = HeaderValue::from_static("*");

/// The answer to a browser that asks before it sends; `None` when this is no such question. To an origin that is not
/// allowed the answer is 204 all the same, without a header that would allow anything.
pub(super) fn preflight(cors: &Cors, head: &Head<'_>) -> Option<OwnAnswer> {
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
    Some(OwnAnswer { status: StatusCode::NO_CONTENT, headers })
}

/// Lets the scripts of `origin` read a response, if they may.
pub(super) fn allow(cors: &Cors, origin: &HeaderValue, headers: &mut HeaderMap) {
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

/// With credentials `*` means nothing to browsers: what was asked for is named instead.
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
    // Where the last `*` stands, and where what it stands for ends so far.
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
