//! `/check/...`: an authorizer for the mesh's external authorization. Whoever brings the token `good` is `alice`, and it lies about
//! what no authorizer may set.

use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, StatusCode};

use crate::reply::{self, Reply};

/// What it answers to a request for which it is asked; `/check/hang` gets no answer for long.
pub async fn answer(parts: &Parts) -> Reply {
    if parts.uri.path() == "/check/hang" {
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    let token = parts.headers.get("x-token");
    if token.is_none_or(|token| token != "good") {
        return reply::plain(StatusCode::FORBIDDEN, "no token");
    }
    let mut allowed = reply::plain(StatusCode::OK, "alice");
    let headers = allowed.headers_mut();
    headers.insert("x-user", HeaderValue::from_static("alice"));
    headers.insert("x-forwarded-client-cert", HeaderValue::from_static("URI=spiffe://admin"));
    allowed
}
