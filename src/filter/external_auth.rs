//! ExternalAuth (HTTPExternalAuthFilter, GEP-1494): an authorizer must permit each request. The workers ask it.
//!
//! The destination asks, so that no other way to the pod leads past it. An authorizer that is missing permits nothing: the
//! filter is kept without a target, and rejects all requests.

use serde::Deserialize;
use serde_json::Value;

use super::{BackendObject, BackendRef, Fault, Filter, Half, RuleContext, backend};
use crate::base::Str;
use crate::base::schema::{INT32, Objection, Rule, text};
use Rule::{Fields, List, Number, OneOf, Text, With};

/// What becomes of a rule whose authorizer is missing.
const OUTCOME: &str = "requests that the rule takes are rejected";

/// Gateway API's, of names of headers in a list.
const MOST_NAMES: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ExternalAuth {
    /// `None`: nobody can be asked.
    pub target: Option<BackendRef>,
    pub protocol: AuthProtocol,
    /// How much of a body the authorizer gets to see, in bytes; a longer one is rejected.
    pub body: u32,
}

/// How the authorizer is asked. Names of headers are in lower case.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum AuthProtocol {
    Http {
        /// Stands before the path of the request.
        path: Str,
        /// Headers of the request that the authorizer gets to see, besides those that it always sees.
        allowed: Vec<Str>,
        /// Headers of the answer that the application gets; none listed: all.
        copied: Vec<Str>,
    },
    Grpc {
        /// Headers of the request that the authorizer gets to see; none listed: all.
        allowed: Vec<Str>,
    },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    backend_ref: BackendObject,
    protocol: Protocol,
    #[serde(default)]
    http: Http,
    #[serde(default)]
    grpc: Grpc,
    #[serde(default)]
    forward_body: ForwardBody,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Protocol {
    #[serde(rename = "HTTP")]
    Http,
    #[serde(rename = "GRPC")]
    Grpc,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Http {
    path: String,
    allowed_headers: Vec<String>,
    allowed_response_headers: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Grpc {
    allowed_headers: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct ForwardBody {
    max_size: u32,
}

const NAMES: Rule = List(0, MOST_NAMES, &Text(crate::base::schema::forms::any(1024)));

impl ExternalAuth {
    /// For a rule that cannot be carried out: nobody can be asked.
    pub fn of_nobody() -> Self {
        let (allowed, copied) = (Vec::new(), Vec::new());
        let protocol = AuthProtocol::Http { path: Str::default(), allowed, copied };
        Self { target: None, protocol, body: 0 }
    }
}

impl Filter for ExternalAuth {
    type Manifest = Written;

    const SCHEMA: Rule = With(
        &Fields(&[
            ("backendRef", backend::SCHEMA),
            ("protocol", OneOf(&["HTTP", "GRPC"])),
            ("http", Fields(&[("allowedHeaders", NAMES), ("allowedResponseHeaders", NAMES)])),
            ("grpc", Fields(&[("allowedHeaders", NAMES)])),
            ("forwardBody", Fields(&[("maxSize", Number(0, INT32))])),
        ]),
        &[one_protocol],
    );
    const HALF: Half = Half::Destination;

    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let protocol = match written.protocol {
            Protocol::Http => AuthProtocol::Http {
                path: path(&written.http.path)?,
                allowed: lower(&written.http.allowed_headers),
                copied: lower(&written.http.allowed_response_headers),
            },
            Protocol::Grpc => AuthProtocol::Grpc { allowed: lower(&written.grpc.allowed_headers) },
        };
        let target = rule.backend("backendRef", &written.backend_ref, OUTCOME);
        Ok(Self { target, protocol, body: written.forward_body.max_size })
    }

    #[cfg(test)]
    fn samples() -> Vec<Value> {
        let backend = serde_json::json!({"name": "auth", "port": 80});
        let http = serde_json::json!({"path": "/check", "allowedHeaders": ["x-token"]});
        vec![
            serde_json::json!({"backendRef": backend, "protocol": "HTTP", "http": http}),
            serde_json::json!({"backendRef": backend, "protocol": "GRPC", "grpc": {},
                "forwardBody": {"maxSize": 1024}}),
        ]
    }
}

/// It stands before another path, which begins with a slash.
fn path(text: &str) -> Result<Str, Fault> {
    let path = text.trim_end_matches('/');
    if path.is_empty() {
        return Ok(Str::default());
    }
    let is_plain = path.starts_with('/')
        && !path.contains(['?', '#'])
        && format!("{path}/").parse::<http::Uri>().is_ok();
    if is_plain {
        Ok(path.into())
    } else {
        let why = format!("{text:?} is no path that begins with /");
        Err(Fault::field("http.path", why))
    }
}

/// Names of headers are equal in any case.
fn lower(names: &[String]) -> Vec<Str> {
    names.iter().map(|name| name.to_ascii_lowercase().into()).collect()
}

/// What goes with a protocol stands beside no other.
fn one_protocol(value: &Value) -> Option<Objection> {
    let protocol = text(value, "protocol")?;
    if protocol == "GRPC" && value.get("grpc").is_none() {
        return Some(("grpc", "is missing: it goes with the protocol GRPC".to_owned()));
    }
    let others = [("http", "HTTP"), ("grpc", "GRPC")];
    let other =
        others.into_iter().find(|(field, of)| value.get(field).is_some() && *of != protocol);
    other.map(|(field, of)| (field, format!("goes with the protocol {of}, not with {protocol}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Nowhere;

    impl RuleContext for Nowhere {}

    fn read(value: Value) -> Result<ExternalAuth, Fault> {
        ExternalAuth::read(&serde_json::from_value(value).unwrap(), &Nowhere)
    }

    #[test]
    fn every_field_counts() {
        let backend = json!({"name": "auth", "port": 80});
        let http = json!({"path": "/check/", "allowedHeaders": ["X-Token"],
            "allowedResponseHeaders": ["X-User"]});
        let written = json!({"backendRef": backend, "protocol": "HTTP", "http": http,
            "forwardBody": {"maxSize": 8}});
        let (allowed, copied) = (vec!["x-token".into()], vec!["x-user".into()]);
        let protocol = AuthProtocol::Http { path: "/check".into(), allowed, copied };
        assert_eq!(read(written).unwrap(), ExternalAuth { target: None, protocol, body: 8 });
        let written = json!({"backendRef": backend, "protocol": "GRPC", "grpc":
            {"allowedHeaders": ["X-Token"]}});
        let protocol = AuthProtocol::Grpc { allowed: vec!["x-token".into()] };
        assert_eq!(read(written).unwrap(), ExternalAuth { target: None, protocol, body: 0 });
        for path in ["check", "/a b", "/a?b", "/a#b"] {
            let written =
                json!({"backendRef": backend, "protocol": "HTTP", "http": {"path": path}});
            assert!(read(written).is_err(), "{path}");
        }
    }

    #[test]
    fn the_api_server_has_one_protocol() {
        let backend = json!({"name": "auth", "port": 80});
        for (value, is_good) in [
            (json!({"backendRef": backend, "protocol": "HTTP"}), true),
            (json!({"backendRef": backend, "protocol": "HTTP", "grpc": {}}), false),
            (json!({"backendRef": backend, "protocol": "GRPC"}), false),
            (json!({"backendRef": backend, "protocol": "GRPC", "grpc": {}, "http": {}}), false),
        ] {
            let judged = crate::base::schema::judge(&ExternalAuth::SCHEMA, Some(&value), "");
            assert_eq!(judged.is_ok(), is_good, "{value}");
        }
    }
}
