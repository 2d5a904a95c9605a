//! Calls to the other services: a connection a call, as Bookinfo's own clients do, with the headers that
//! trace a request carried along.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::settings::{CALL_TIMEOUT, Service, Settings};

/// The headers that an application passes on, so that traces and user-based routes survive a hop (Istio
/// "Distributed tracing / Trace context propagation"; `end-user` is Bookinfo's own).
const PROPAGATED: [&str; 16] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "grpc-trace-bin",
    "end-user",
    "cookie",
];

/// The longest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 256 * 1024;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("connect {0}: {1}")]
    Connect(String, std::io::Error),
    #[error("no answer from {0} within {CALL_TIMEOUT:?}")]
    Timeout(String),
    #[error("{0}: {1}")]
    Http(String, String),
    #[error("{0} answered {1}")]
    Status(String, StatusCode),
}

/// `GET path` at another service; the answer must be 200 and JSON.
pub async fn get(
    settings: &Settings,
    service: Service,
    path: &str,
    incoming: &HeaderMap,
) -> Result<Value, CallError> {
    let authority = settings.authority(service);
    match timeout(CALL_TIMEOUT, exchange(&authority, path, incoming)).await {
        Ok(answer) => answer,
        Err(_) => Err(CallError::Timeout(authority)),
    }
}

async fn exchange(authority: &str, path: &str, incoming: &HeaderMap) -> Result<Value, CallError> {
    let failed =
        |error: &dyn std::fmt::Display| CallError::Http(authority.to_owned(), error.to_string());
    let stream = TcpStream::connect(authority)
        .await
        .map_err(|error| CallError::Connect(authority.to_owned(), error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let request = request(authority, path, incoming).map_err(|error| failed(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let (parts, body) = response.into_parts();
        let body =
            Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|error| failed(&error))?;
        Ok((parts.status, body.to_bytes()))
    };
    // The connection is driven here and ends with the call.
    tokio::pin!(connection, answer);
    let mut open = true;
    let (status, body) = loop {
        tokio::select! {
            _ = &mut connection, if open => open = false,
            answer = &mut answer => break answer?,
        }
    };
    if status != StatusCode::OK {
        return Err(CallError::Status(authority.to_owned(), status));
    }
    serde_json::from_slice(&body).map_err(|error| failed(&error))
}

fn request(
    authority: &str,
    path: &str,
    incoming: &HeaderMap,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut request = Request::get(path).header(header::HOST, authority).body(Empty::new())?;
    for name in PROPAGATED {
        if let Some(value) = incoming.get(name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    Ok(request)
}
