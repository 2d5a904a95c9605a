//! `directResponse` (Istio, HTTPDirectResponse): the agent answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

use super::Operations;
use crate::base::schema::{Objection, Rule};
use crate::filter::{Answer, Cx, Fault, Filter, Flow, RequestHead, RuleContext};
use Rule::{Fields, Number, With};

/// The longest body in bytes: Istio's.
const LONGEST: usize = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DirectResponse {
    #[serde(serialize_with = "crate::filter::text")]
    pub status: StatusCode,
    #[serde(serialize_with = "length")]
    pub body: Bytes,
    /// What the rule does to responses.
    #[serde(skip_serializing_if = "Operations::is_empty")]
    pub headers: Operations,
}

/// `HTTPDirectResponse`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    status: u32,
    #[serde(default)]
    body: Option<WrittenBody>,
}

/// `HTTPBody`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenBody {
    #[serde(default)]
    string: Option<String>,
    /// In base64.
    #[serde(default)]
    bytes: Option<String>,
}

impl Filter for DirectResponse {
    type Manifest = Written;

    const SCHEMA: Rule =
        Fields(&[("status", Number(0, 4_294_967_295)), ("body", With(&Fields(&[]), &[one_body]))]);
    const ANSWERS: bool = true;

    fn read(written: &Written, _rule: &dyn RuleContext) -> Result<Self, Fault> {
        let code = u16::try_from(written.status).ok().filter(|code| (200..600).contains(code));
        let Some(status) = code.and_then(|code| StatusCode::from_u16(code).ok()) else {
            let why = format!("{} is not from 200 to 599", written.status);
            return Err(Fault::field("status", why));
        };
        let body = match &written.body {
            None => Bytes::new(),
            Some(WrittenBody { string: Some(text), bytes: None }) => text.clone().into(),
            Some(WrittenBody { string: None, bytes: Some(text) }) => {
                let why = |error| Fault::field("body.bytes", format!("is not base64: {error}"));
                BASE64.decode(text).map_err(why)?.into()
            }
            Some(_) => return Err(Fault::field("body", "needs either string or bytes")),
        };
        if body.len() > LONGEST {
            let why = format!("has {} bytes, and may have {LONGEST}", body.len());
            return Err(Fault::field("body", why));
        }
        Ok(Self { status, body, headers: Operations::default() })
    }

    fn request(&self, _head: &mut RequestHead<'_>, _cx: &Cx<'_>) -> Flow {
        let mut headers = HeaderMap::new();
        if !self.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        self.headers.respond(&mut headers);
        let body = Some(self.body.clone());
        Flow::Answer(Answer { body, ..Answer::plain(self.status, headers) })
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        vec![
            serde_json::json!({"status": 503, "body": {"string": "unknown error"}}),
            serde_json::json!({"status": 200, "body": {"bytes": "dW5rbm93biBlcnJvcg=="}}),
            serde_json::json!({"status": 204}),
        ]
    }
}

fn one_body(value: &serde_json::Value) -> Option<Objection> {
    let both = value.get("string").is_some() && value.get("bytes").is_some();
    both.then(|| ("bytes", "must not stand beside string".to_owned()))
}

fn length<S: serde::Serializer>(body: &Bytes, to: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(body) {
        Ok(text) if text.len() <= 256 => to.serialize_str(text),
        _ => to.collect_str(&format_args!("{} bytes", body.len())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct Nothing;

    impl RuleContext for Nothing {}

    fn read(written: Value) -> Result<DirectResponse, Fault> {
        DirectResponse::read(&serde_json::from_value(written).unwrap(), &Nothing)
    }

    #[test]
    fn bodies_are_texts_or_bytes() {
        let body = |written| read(written).unwrap().body;
        assert_eq!(body(json!({"status": 200})), "");
        assert_eq!(body(json!({"status": 200, "body": {"string": "a"}})), "a");
        assert_eq!(body(json!({"status": 200, "body": {"bytes": "AAE="}})), &b"\x00\x01"[..]);
    }

    #[test]
    fn what_is_no_response_is_a_fault() {
        let long = "x".repeat(LONGEST + 1);
        for (written, field) in [
            (json!({"status": 99}), "status"),
            (json!({"status": 600}), "status"),
            (json!({"status": 200, "body": {}}), "body"),
            (json!({"status": 200, "body": {"string": "a", "bytes": "AAE="}}), "body"),
            (json!({"status": 200, "body": {"bytes": "!"}}), "body.bytes"),
            (json!({"status": 200, "body": {"string": long}}), "body"),
        ] {
            match read(written) {
                Err(Fault::Field { field: found, .. }) => assert_eq!(found, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}
