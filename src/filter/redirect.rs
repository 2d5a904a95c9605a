//! RequestRedirect (Gateway API, HTTPRequestRedirectFilter): where else the client shall go.

use http::header::{HOST, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

use super::backend::PORT;
use super::{Answer, Cx, Fault, Filter, Flow, PathRewrite, RequestHead, RuleContext, path};
use crate::base::Str;
use crate::base::schema::Rule;
use crate::base::schema::forms::SUBDOMAIN;
use Rule::{Code, Fields, OneOf, Text};

/// The codes that Gateway API has for redirects, 302 by default.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// A part that is `None` stays as in the request.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Str>,
    pub hostname: Option<Str>,
    pub path: Option<PathRewrite>,
    /// `None`: the scheme's own port where the filter names a scheme, else the one that was dialled.
    pub port: Option<u16>,
    #[serde(serialize_with = "super::text")]
    pub status: StatusCode,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    #[serde(default)]
    scheme: Option<String>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    path: Option<path::Written>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    status_code: Option<i64>,
}

impl Filter for Redirect {
    type Manifest = Written;

    const SCHEMA: Rule = Fields(&[
        ("scheme", OneOf(&["http", "https"])),
        ("hostname", Text(SUBDOMAIN)),
        ("path", path::SCHEMA),
        ("port", PORT),
        ("statusCode", Code(&[301, 302, 303, 307, 308])),
    ]);
    const ANSWERS: bool = true;

    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let scheme = written.scheme.as_deref();
        if let Some(scheme) = scheme.filter(|it| !matches!(*it, "http" | "https")) {
            return Err(Fault::field("scheme", format!("{scheme:?} is not supported")));
        }
        let code = written.status_code.unwrap_or(302);
        let status = u16::try_from(code).ok().filter(|code| REDIRECTS.contains(code));
        let Some(status) = status.and_then(|code| StatusCode::from_u16(code).ok()) else {
            return Err(Fault::field("statusCode", format!("{code} is not supported")));
        };
        let hostname = written.hostname.as_deref().map(path::hostname).transpose()?;
        Ok(Self {
            scheme: scheme.map(Str::from),
            hostname: hostname.map(Str::from),
            path: written.path.as_ref().map(|path| path.read(rule)).transpose()?,
            port: written.port,
            status,
        })
    }

    fn request(&self, head: &mut RequestHead<'_>, cx: &Cx<'_>) -> Flow {
        Flow::Answer(answer(self, head, cx.port))
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        vec![serde_json::json!({"scheme": "https", "hostname": "a.example"})]
    }
}

/// The answer that sends a client elsewhere. Only HTTP without TLS is looked into, so that is what a redirect without a
/// scheme stays at; `port` was dialled, and stands for the port of a Gateway's listener.
fn answer(redirect: &Redirect, head: &RequestHead<'_>, port: u16) -> Answer {
    match HeaderValue::try_from(location(redirect, head, port)) {
        Ok(location) => {
            Answer::plain(redirect.status, HeaderMap::from_iter([(LOCATION, location)]))
        }
        // The request holds something that no header may hold.
        Err(_) => Answer::plain(StatusCode::BAD_REQUEST, HeaderMap::new()),
    }
}

fn location(redirect: &Redirect, head: &RequestHead<'_>, port: u16) -> String {
    let own = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let hostname = redirect.hostname.as_deref().unwrap_or_else(|| without_port(own));
    let path = match &redirect.path {
        Some(path) => path::rewritten(path, head.uri.path()),
        None => head.uri.path().into(),
    };
    let scheme = redirect.scheme.as_deref().unwrap_or("http");
    let well_known = if scheme == "https" { 443 } else { 80 };
    let port = match (redirect.port, &redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(_)) => well_known,
        (None, None) => port,
    };
    let mut location = format!("{scheme}://{hostname}");
    if port != well_known {
        location.push_str(&format!(":{port}"));
    }
    location.push_str(&path);
    if let Some(query) = head.uri.query() {
        location.push('?');
        location.push_str(query);
    }
    location
}

/// The host of an authority; IPv6 keeps its brackets.
pub fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|it| it.is_ascii_digit()) && !host.is_empty() => {
            host
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;

    fn redirect() -> Redirect {
        let status = StatusCode::FOUND;
        Redirect { scheme: None, hostname: None, path: None, port: None, status }
    }

    fn to(redirect: &Redirect, host: &'static str, port: u16) -> String {
        let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
        let uri = Uri::from_static("/foo/bar?a=b");
        let head = RequestHead { method: &Method::GET, uri: &uri, headers: &mut headers };
        let answer = answer(redirect, &head, port);
        assert_eq!(answer.status, redirect.status);
        answer.headers[LOCATION].to_str().unwrap().to_owned()
    }

    /// Scheme, port, dialled port, and what stands before the path.
    #[test]
    fn the_table_of_ports() {
        for (scheme, port, dialled, expected) in [
            (None, None, 80, "http://echo"),
            (None, None, 8080, "http://echo:8080"),
            (None, None, 443, "http://echo:443"),
            (None, Some(8083), 80, "http://echo:8083"),
            (None, Some(80), 8080, "http://echo"),
            (None, Some(443), 80, "http://echo:443"),
            (Some("http"), None, 8080, "http://echo"),
            (Some("https"), None, 80, "https://echo"),
            (Some("https"), None, 8080, "https://echo"),
            (Some("https"), Some(443), 80, "https://echo"),
            (Some("https"), Some(8443), 80, "https://echo:8443"),
            (Some("https"), Some(80), 80, "https://echo:80"),
            (Some("http"), Some(80), 8080, "http://echo"),
            (Some("http"), Some(8080), 80, "http://echo:8080"),
        ] {
            let redirect = Redirect { scheme: scheme.map(Into::into), port, ..redirect() };
            let expected = format!("{expected}/foo/bar?a=b");
            assert_eq!(to(&redirect, "echo:8080", dialled), expected, "{scheme:?} {port:?}");
        }
    }

    #[test]
    fn hosts_and_paths() {
        let host = Redirect { hostname: Some("example.org".into()), ..redirect() };
        assert_eq!(to(&host, "echo:1", 80), "http://example.org/foo/bar?a=b");
        let full = Redirect { path: Some(PathRewrite::Full("/x".into())), ..host };
        assert_eq!(to(&full, "echo", 80), "http://example.org/x?a=b");
        let prefix = PathRewrite::Prefix { prefix: "/foo".into(), with: "/y".into() };
        let prefix = Redirect { path: Some(prefix), ..redirect() };
        assert_eq!(to(&prefix, "echo", 80), "http://echo/y/bar?a=b");
        assert_eq!(to(&redirect(), "[fd00::1]:9080", 80), "http://[fd00::1]/foo/bar?a=b");
        assert_eq!(to(&redirect(), "[fd00::1]", 80), "http://[fd00::1]/foo/bar?a=b");
    }

    #[test]
    fn every_status() {
        for status in [301, 302, 303, 307, 308] {
            let status = StatusCode::from_u16(status).unwrap();
            to(&Redirect { status, ..redirect() }, "echo", 80);
        }
    }
}
