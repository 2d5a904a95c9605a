//! Where a redirect leads (Gateway API, HTTPRequestRedirectFilter).

use http::header::{HOST, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::{Head, OwnAnswer, rewrite};
use crate::model::Redirect;

/// The answer that sends a client elsewhere. Only HTTP without TLS is looked into, so that is what a redirect without a
/// scheme stays at; `port` was dialled, and stands for the port of a Gateway's listener.
pub(super) fn answer(redirect: &Redirect, head: &Head<'_>, port: u16) -> OwnAnswer {
    match HeaderValue::try_from(location(redirect, head, port)) {
        Ok(location) => OwnAnswer {
            status: redirect.status,
            headers: HeaderMap::from_iter([(LOCATION, location)]),
        },
        // The request holds something that no header may hold.
        Err(_) => OwnAnswer { status: StatusCode::BAD_REQUEST, headers: HeaderMap::new() },
    }
}

fn location(redirect: &Redirect, head: &Head<'_>, port: u16) -> String {
    let own = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let hostname = redirect.hostname.as_deref().unwrap_or_else(|| without_port(own));
    let path = match &redirect.path {
        Some(path) => rewrite::rewritten(path, head.path),
        None => head.path.into(),
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
    if let Some(query) = head.query {
        location.push('?');
        location.push_str(query);
    }
    location
}

/// The host of an authority; IPv6 keeps its brackets.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|it| it.is_ascii_digit()) && !host.is_empty() => {
            host
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::model::PathRewrite;

    fn redirect() -> Redirect {
        let status = StatusCode::FOUND;
        Redirect { scheme: None, hostname: None, path: None, port: None, status }
    }

    fn to(redirect: &Redirect, host: &'static str, port: u16) -> String {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
        let head =
            Head { method: &Method::GET, path: "/foo/bar", query: Some("a=b"), headers: &headers };
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
