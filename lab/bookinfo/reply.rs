//! The answers that handlers give.

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;

pub type Reply = Response<Full<Bytes>>;

pub fn json(status: StatusCode, value: &Value) -> Reply {
    with_type(status, "application/json", value.to_string())
}

pub fn html(text: String) -> Reply {
    with_type(StatusCode::OK, "text/html; charset=utf-8", text)
}

pub fn plain(status: StatusCode, text: &str) -> Reply {
    with_type(status, "text/plain; charset=utf-8", text.to_owned())
}

fn with_type(status: StatusCode, kind: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    reply
}

pub fn not_found(parts: &Parts) -> Reply {
    plain(StatusCode::NOT_FOUND, &format!("there is no {}", parts.uri.path()))
}

/// The number after `prefix` in the path, when nothing follows it.
pub fn identifier(parts: &Parts, prefix: &str) -> Option<u64> {
    parts.uri.path().strip_prefix(prefix)?.parse().ok()
}
