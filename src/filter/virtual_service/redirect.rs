//! `redirect` (Istio, HTTPRedirect): where else the client shall go.

use http::header::{HOST, LOCATION};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

use super::{Operations, path, replaced_start};
use crate::base::Str;
use crate::base::schema::{Objection, Rule};
use crate::filter::redirect::without_port;
use crate::filter::{Answer, Cx, Fault, Filter, Flow, RequestHead, RuleContext};
use Rule::{Fields, Number, OneOf, With};

/// The codes that Istio carries out; 301 by default.
const CODES: [u16; 5] = [301, 302, 303, 307, 308];

/// A part that is `None` stays as in the request.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RedirectTo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Str>,
    /// May have a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<Str>,
    pub port: Port,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<NewPath>,
    #[serde(serialize_with = "crate::filter::text")]
    pub status: StatusCode,
    /// What the rule does to responses.
    #[serde(skip_serializing_if = "Operations::is_empty")]
    pub headers: Operations,
}

/// The port of the new address. One that the scheme has anyway is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Port {
    /// As in the authority, unless the scheme becomes another and it is the old one's.
    AsSent,
    /// The scheme's.
    OfScheme,
    /// The one that the client dialled.
    Dialled,
    Fixed(u16),
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum NewPath {
    /// May have a query, which then replaces the request's.
    Whole(Str),
    /// In place of the first `length` bytes: the prefix by which the rule matches.
    Start { length: usize, with: Str },
}

/// `HTTPRedirect`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    #[serde(default)]
    uri: Option<String>,
    #[serde(default)]
    authority: Option<String>,
    #[serde(default)]
    port: Option<u32>,
    #[serde(default)]
    derive_port: Option<String>,
    #[serde(default)]
    scheme: Option<String>,
    #[serde(default)]
    redirect_code: Option<u32>,
    #[serde(default)]
    prefix_rewrite: Option<String>,
}

impl Filter for RedirectTo {
    type Manifest = Written;

    const SCHEMA: Rule = With(
        &Fields(&[
            ("port", Number(0, 4_294_967_295)),
            ("derivePort", OneOf(&["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"])),
            ("redirectCode", Number(0, 4_294_967_295)),
        ]),
        &[one_port],
    );
    const ANSWERS: bool = true;

    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let code = written.redirect_code.filter(|code| *code != 0).unwrap_or(301);
        let status = u16::try_from(code).ok().filter(|code| CODES.contains(code));
        let Some(status) = status.and_then(|code| StatusCode::from_u16(code).ok()) else {
            let why = format!("{code} is none of 301, 302, 303, 307 and 308");
            return Err(Fault::field("redirectCode", why));
        };
        let path = match (given(&written.uri), given(&written.prefix_rewrite)) {
            (None, None) => None,
            (Some(uri), None) => Some(NewPath::Whole(whole(&uri)?)),
            (None, Some(with)) => {
                let with = path("prefixRewrite", &with)?;
                let Some(prefix) = rule.prefix() else {
                    let why = "goes with a match by prefix only";
                    return Err(Fault::field("prefixRewrite", why));
                };
                Some(NewPath::Start { length: prefix.len(), with })
            }
            (Some(_), Some(_)) => {
                return Err(Fault::field("prefixRewrite", "must not stand beside uri"));
            }
        };
        Ok(Self {
            scheme: given(&written.scheme).map(|text| scheme(&text)).transpose()?,
            authority: given(&written.authority).map(|text| authority(&text)).transpose()?,
            port: written.port()?,
            path,
            status,
            headers: Operations::default(),
        })
    }

    fn request(&self, head: &mut RequestHead<'_>, cx: &Cx<'_>) -> Flow {
        Flow::Answer(match HeaderValue::try_from(self.location(head, cx.port)) {
            Ok(location) => {
                let mut headers = HeaderMap::from_iter([(LOCATION, location)]);
                self.headers.respond(&mut headers);
                Answer::plain(self.status, headers)
            }
            // The request holds something that no header may hold.
            Err(_) => Answer::plain(StatusCode::BAD_REQUEST, HeaderMap::new()),
        })
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        vec![
            serde_json::json!({"uri": "/v1/bookRatings", "authority": "newratings.default.svc.cluster.local"}),
            serde_json::json!({"scheme": "https", "derivePort": "FROM_PROTOCOL_DEFAULT", "redirectCode": 308}),
        ]
    }
}

impl Written {
    fn port(&self) -> Result<Port, Fault> {
        let number = self.port.filter(|port| *port != 0);
        match (number, self.derive_port.as_deref()) {
            (None, None) => Ok(Port::AsSent),
            (None, Some("FROM_PROTOCOL_DEFAULT")) => Ok(Port::OfScheme),
            (None, Some("FROM_REQUEST_PORT")) => Ok(Port::Dialled),
            (None, Some(other)) => {
                let why =
                    format!("{other:?} is neither FROM_PROTOCOL_DEFAULT nor FROM_REQUEST_PORT");
                Err(Fault::field("derivePort", why))
            }
            (Some(port), None) => match u16::try_from(port) {
                Ok(port) => Ok(Port::Fixed(port)),
                Err(_) => Err(Fault::field("port", format!("{port} is not a port"))),
            },
            (Some(_), Some(_)) => Err(Fault::field("derivePort", "must not stand beside port")),
        }
    }
}

impl RedirectTo {
    /// Only HTTP without TLS is looked into, so that is what a redirect without a scheme stays at.
    fn location(&self, head: &RequestHead<'_>, dialled: u16) -> String {
        let sent = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let scheme = self.scheme.as_deref().unwrap_or("http");
        let well_known = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let authority = self.authority.as_deref().unwrap_or(sent);
        let bare = without_port(authority);
        let port = match self.port {
            Port::Fixed(port) => Some(port),
            Port::Dialled => Some(dialled),
            Port::OfScheme => None,
            Port::AsSent => {
                let port = authority.get(bare.len()..).and_then(|rest| rest.strip_prefix(':'));
                let port = port.and_then(|port| port.parse().ok());
                port.filter(|port| scheme == "http" || *port != 80)
            }
        };
        let mut location = format!("{scheme}://{bare}");
        if let Some(port) =
            port.filter(|port| Some(*port) != well_known || self.port == Port::AsSent)
        {
            location.push_str(&format!(":{port}"));
        }
        let path = head.uri.path();
        match &self.path {
            None => location.push_str(path),
            Some(NewPath::Whole(whole)) => location.push_str(whole),
            Some(NewPath::Start { length, with }) => {
                location.push_str(&replaced_start(path, *length, with));
            }
        }
        let has_query = matches!(&self.path, Some(NewPath::Whole(whole)) if whole.contains('?'));
        if let Some(query) = head.uri.query().filter(|_| !has_query) {
            location.push('?');
            location.push_str(query);
        }
        location
    }
}

/// A path, perhaps with a query.
fn whole(text: &str) -> Result<Str, Fault> {
    let (of_path, _) = text.split_once('?').unwrap_or((text, ""));
    path("uri", of_path)?;
    let is_value = HeaderValue::try_from(text).is_ok() && !text.contains(char::is_whitespace);
    match is_value {
        true => Ok(text.into()),
        false => Err(Fault::field("uri", format!("{text:?} is not a path with a query"))),
    }
}

fn scheme(text: &str) -> Result<Str, Fault> {
    let is_scheme = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|it| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'));
    match is_scheme {
        true => Ok(text.into()),
        false => Err(Fault::field("scheme", format!("{text:?} is not a scheme"))),
    }
}

fn authority(text: &str) -> Result<Str, Fault> {
    let parsed = text.parse::<Authority>().ok().filter(|it| !it.as_str().contains('@'));
    match parsed {
        Some(_) => Ok(text.into()),
        None => Err(Fault::field("authority", format!("{text:?} is not a host"))),
    }
}

fn one_port(value: &serde_json::Value) -> Option<Objection> {
    let both = value.get("port").is_some() && value.get("derivePort").is_some();
    both.then(|| ("derivePort", "must not stand beside port".to_owned()))
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};
    use serde_json::{Value, json};

    use super::*;

    struct ByPrefix;

    impl RuleContext for ByPrefix {
        fn prefix(&self) -> Option<Str> {
            Some("/foo/".into())
        }
    }

    fn read(written: Value) -> Result<RedirectTo, Fault> {
        RedirectTo::read(&serde_json::from_value(written).unwrap(), &ByPrefix)
    }

    fn to(written: &Value, host: &'static str, dialled: u16) -> String {
        let redirect = read(written.clone()).unwrap();
        let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
        let uri = Uri::from_static("/foo/bar?a=b");
        let head = RequestHead { method: &Method::GET, uri: &uri, headers: &mut headers };
        redirect.location(&head, dialled)
    }

    /// As Envoy builds addresses from a RedirectAction.
    #[test]
    fn each_part_is_replaced_or_stays() {
        for (written, host, expected) in [
            (json!({}), "echo", "http://echo/foo/bar?a=b"),
            (json!({"uri": "/x"}), "echo:8080", "http://echo:8080/x?a=b"),
            (json!({"uri": "/x?c=d"}), "echo", "http://echo/x?c=d"),
            (json!({"prefixRewrite": "/y/"}), "echo", "http://echo/y/bar?a=b"),
            (json!({"authority": "other:81"}), "echo:8080", "http://other:81/foo/bar?a=b"),
            (json!({"authority": "other"}), "echo:8080", "http://other/foo/bar?a=b"),
            (json!({"scheme": "https"}), "echo:80", "https://echo/foo/bar?a=b"),
            (json!({"scheme": "https"}), "echo:8080", "https://echo:8080/foo/bar?a=b"),
            (json!({"port": 81}), "echo:8080", "http://echo:81/foo/bar?a=b"),
            (json!({"port": 80}), "echo:8080", "http://echo/foo/bar?a=b"),
            (json!({"port": 443, "scheme": "https"}), "echo", "https://echo/foo/bar?a=b"),
            (json!({"derivePort": "FROM_REQUEST_PORT"}), "echo", "http://echo:9080/foo/bar?a=b"),
            (json!({"derivePort": "FROM_PROTOCOL_DEFAULT"}), "echo:1", "http://echo/foo/bar?a=b"),
            (json!({}), "[fd00::1]:81", "http://[fd00::1]:81/foo/bar?a=b"),
        ] {
            assert_eq!(to(&written, host, 9080), expected, "{written} {host}");
        }
    }

    #[test]
    fn codes_are_301_unless_given() {
        for (written, status) in [
            (json!({}), 301),
            (json!({"redirectCode": 0}), 301),
            (json!({"redirectCode": 302}), 302),
            (json!({"redirectCode": 303}), 303),
            (json!({"redirectCode": 307}), 307),
            (json!({"redirectCode": 308}), 308),
        ] {
            assert_eq!(read(written).unwrap().status.as_u16(), status);
        }
    }

    #[test]
    fn what_leads_nowhere_is_a_fault() {
        for (written, field) in [
            (json!({"redirectCode": 304}), "redirectCode"),
            (json!({"uri": "x"}), "uri"),
            (json!({"uri": "/x y"}), "uri"),
            (json!({"uri": "/x", "prefixRewrite": "/y"}), "prefixRewrite"),
            (json!({"authority": "a b"}), "authority"),
            (json!({"authority": "a@b"}), "authority"),
            (json!({"scheme": "1"}), "scheme"),
            (json!({"port": 70000}), "port"),
            (json!({"port": 80, "derivePort": "FROM_REQUEST_PORT"}), "derivePort"),
            (json!({"derivePort": "MINE"}), "derivePort"),
        ] {
            match read(written.clone()) {
                Err(Fault::Field { field: found, .. }) => assert_eq!(found, field, "{written}"),
                other => panic!("{written}: {other:?}"),
            }
        }
    }
}
