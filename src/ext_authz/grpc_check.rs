//! Checks over gRPC (`envoy.service.auth.v3.Authorization/Check`; Istio, `envoyExtAuthzGrpc`): the provider gets to see the whole
//! head of the request, who sends it and whom it is for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};

use super::messages::{
    Address, AttributeContext, CheckRequest, CheckResponse, HeaderValueOption, HttpRequest,
    HttpResponse, OkResponse, Peer, RequestAttributes, SocketAddressMessage, Timestamp,
};
use super::{About, Changes, Refusal, Verdict, grpc, is_listed, may_set};
use crate::base::Identity;
use crate::model::StringMatch;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Envoy's: replaces a header; 0 adds to it.
const ADD_IF_ABSENT: i32 = 1;

/// The ends of the connection that a request came by.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    pub client: Option<&'a Identity>,
    pub client_address: SocketAddr,
    pub server: Option<&'a Identity>,
    pub server_address: SocketAddr,
}

/// What a provider gets to see.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// Names of headers; none listed: all.
    pub headers: &'a [StringMatch],
    /// The body is given as bytes rather than as text.
    pub as_bytes: bool,
}

/// The request to the provider.
pub fn check(about: &About<'_>, ends: Ends<'_>, host: &str, shown: Shown<'_>) -> Request<Bytes> {
    let message = CheckRequest { attributes: Some(attributes(about, ends, shown)) };
    grpc::request(CHECK, host, &message)
}

fn attributes(about: &About<'_>, ends: Ends<'_>, shown: Shown<'_>) -> AttributeContext {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut headers: HashMap<String, String> = HashMap::new();
    let is_shown = |name: &HeaderName| shown.headers.is_empty() || is_listed(shown.headers, name);
    for (name, value) in about.headers.iter().filter(|(name, _)| is_shown(name)) {
        // As Envoy joins what was sent in several fields.
        let joined = headers.entry(name.as_str().to_owned()).or_default();
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(&text(value));
    }
    let host = about.headers.get(HOST).map(text).unwrap_or_default();
    let pseudo = [
        (":method", about.method.as_str()),
        (":path", about.target),
        (":authority", &host),
        (":scheme", "http"),
    ];
    headers.extend(pseudo.map(|(name, value)| (name.to_owned(), value.to_owned())));
    if let Some(body) = about.body {
        headers.insert("x-envoy-auth-partial-body".to_owned(), body.partial.to_string());
    }
    let body = about.body.map(|body| body.bytes.clone()).unwrap_or_default();
    let id = about.headers.get("x-request-id").map(text).unwrap_or_default();
    let http = HttpRequest {
        id,
        method: about.method.to_string(),
        headers,
        path: about.target.to_owned(),
        host,
        scheme: "http".to_owned(),
        size: about.body.map_or(-1, |body| i64::try_from(body.bytes.len()).unwrap_or(-1)),
        protocol: "HTTP/1.1".to_owned(),
        body: if shown.as_bytes {
            String::new()
        } else {
            String::from_utf8_lossy(&body).into_owned()
        },
        raw_body: if shown.as_bytes { body.to_vec() } else { Vec::new() },
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp {
        seconds: i64::try_from(now.as_secs()).unwrap_or_default(),
        nanos: i32::try_from(now.subsec_nanos()).unwrap_or_default(),
    };
    AttributeContext {
        source: Some(peer(ends.client_address, ends.client)),
        destination: Some(peer(ends.server_address, ends.server)),
        request: Some(RequestAttributes { time: Some(time), http: Some(http) }),
    }
}

fn peer(address: SocketAddr, identity: Option<&Identity>) -> Peer {
    let socket = SocketAddressMessage {
        address: address.ip().to_canonical().to_string(),
        port_value: u32::from(address.port()),
    };
    Peer {
        address: Some(Address { socket_address: Some(socket) }),
        principal: identity.map(ToString::to_string).unwrap_or_default(),
    }
}

/// What the provider's response means for a request with these headers. `status`: of gRPC.
pub fn verdict(asked: &HeaderMap, status: Option<u32>, body: &[u8]) -> Result<Verdict, String> {
    let answer: CheckResponse = grpc::answer(status, body)?;
    let code = answer.status.map(|status| status.code).unwrap_or_default();
    match (code, answer.response) {
        (0, None) => Ok(Verdict::Allow(Changes::default())),
        (0, Some(HttpResponse::Ok(ok))) => changes(asked, &ok).map(Verdict::Allow),
        // Both yes and no is no.
        (_, Some(HttpResponse::Denied(denied))) => {
            let status = denied.status.map(|status| status.code).unwrap_or_default();
            let status = u16::try_from(status).ok().filter(|status| (200..=599).contains(status));
            let status = status.and_then(|status| StatusCode::from_u16(status).ok());
            let mut headers = HeaderMap::new();
            for option in &denied.headers {
                if let Some((name, value)) = settable(option) {
                    headers.append(name, value);
                }
            }
            let (status, body) = (status.unwrap_or(StatusCode::FORBIDDEN), denied.body.into());
            Ok(Verdict::Deny(Refusal { status, headers, body }))
        }
        _ => {
            let (status, headers) = (StatusCode::FORBIDDEN, HeaderMap::new());
            Ok(Verdict::Deny(Refusal { status, headers, body: Bytes::new() }))
        }
    }
}

fn changes(asked: &HeaderMap, ok: &OkResponse) -> Result<Changes, String> {
    if !ok.query_parameters_to_set.is_empty() || !ok.query_parameters_to_remove.is_empty() {
        return Err("it wants to change the query, which is not supported".to_owned());
    }
    let removed = ok.headers_to_remove.iter();
    let removed = removed.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
    let mut changes = Changes { removed: removed.filter(may_set).collect(), ..Changes::default() };
    for option in &ok.headers {
        let Some((name, value)) = settable(option) else { continue };
        let appends = option.append.as_ref().is_some_and(|append| append.value);
        if option.append_action == ADD_IF_ABSENT && !appends && asked.contains_key(&name) {
            continue;
        }
        if appends && !changes.set.contains_key(&name) {
            for before in asked.get_all(&name) {
                changes.set.append(name.clone(), before.clone());
            }
        }
        match appends {
            true => _ = changes.set.append(name, value),
            false => _ = changes.set.insert(name, value),
        }
    }
    for option in &ok.response_headers_to_add {
        if let Some((name, value)) = settable(option) {
            changes.response.append(name, value);
        }
    }
    Ok(changes)
}

/// A header that the provider may set.
fn settable(option: &HeaderValueOption) -> Option<(HeaderName, HeaderValue)> {
    let header = option.header.as_ref()?;
    let name = HeaderName::from_bytes(header.key.as_bytes()).ok().filter(may_set)?;
    let value =
        if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
    Some((name, HeaderValue::from_bytes(value).ok()?))
}
