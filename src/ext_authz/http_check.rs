//! Checks over HTTP (Istio, `envoyExtAuthzHttp`; Envoy, ext_authz `http_service`): the request's own method and path, 200 for yes,
//! a failure of the provider from 500 on, and anything else for no.

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
    CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, HOST, LAST_MODIFIED, LOCATION,
    SERVER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};

use super::{About, Changes, Refusal, Verdict, is_listed, listed, may_be_listed, may_set};
use crate::model::HttpCheck;

/// Envoy's: whether the provider gets to see a part of the body only.
const PARTIAL: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");
/// Envoy's: what a provider takes off a request that may pass.
const REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// What says how an answer is to be read, and nothing of the request that it is about.
const ANSWERS_OWN: [HeaderName; 11] = [
    CONTENT_TYPE,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_LOCATION,
    CONTENT_RANGE,
    CACHE_CONTROL,
    DATE,
    ETAG,
    LAST_MODIFIED,
    SERVER,
    REMOVE,
];

/// The request to the provider, or why there can be none.
pub fn check(check: &HttpCheck, about: &About<'_>) -> Result<Request<Bytes>, String> {
    let target = format!("{}{}", check.path_prefix, about.target);
    // Without the path, which may have secrets and is logged elsewhere.
    let uri =
        Uri::try_from(&target).map_err(|error| format!("the path cannot be asked: {error}"))?;
    let body = about.body.map(|body| body.bytes.clone()).unwrap_or_default();
    let mut request = Request::new(body);
    *request.method_mut() = about.method.clone();
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    *headers = listed(about.headers, |name| is_seen(check, name));
    if let Some(host) = about.headers.get(HOST) {
        headers.insert(HOST, host.clone());
    }
    if let Some(body) = about.body {
        let partial = if body.partial { "true" } else { "false" };
        headers.insert(PARTIAL, HeaderValue::from_static(partial));
    }
    for (name, value) in &check.additional_headers {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.insert(name, value);
        }
    }
    let length = request.body().len();
    request.headers_mut().insert(CONTENT_LENGTH, length.into());
    Ok(request)
}

/// What the provider's response means for a request with these headers; a failure is none of its verdicts.
pub fn verdict(
    check: &HttpCheck,
    asked: &HeaderMap,
    status: StatusCode,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Verdict, String> {
    if status.is_server_error() {
        return Err(format!("it answers {status}"));
    }
    if status == StatusCode::OK {
        return Ok(Verdict::Allow(changes(check, asked, headers)));
    }
    // Nothing else may end an exchange.
    let status = if status.is_informational() { StatusCode::FORBIDDEN } else { status };
    let always = [CONTENT_TYPE, CONTENT_ENCODING, LOCATION, WWW_AUTHENTICATE];
    let list = &check.downstream_on_deny;
    let headers =
        listed(headers, |name| list.is_empty() || always.contains(name) || is_listed(list, name));
    Ok(Verdict::Deny(Refusal { status, headers, body }))
}

/// What an answer that permits makes of a request.
pub(super) fn changes(check: &HttpCheck, asked: &HeaderMap, headers: &HeaderMap) -> Changes {
    let list = &check.upstream_on_allow;
    // Where all headers are copied, nobody knows which of the client's are meant to be the provider's.
    let unseen = |name: &&HeaderName| may_be_listed(list, name) && !is_seen(check, name);
    let mut removed: Vec<HeaderName> =
        asked.keys().filter(unseen).filter(|name| may_set(name)).cloned().collect();
    let named = headers.get_all(REMOVE).iter().filter_map(|value| value.to_str().ok());
    let named = named.flat_map(|value| value.split(','));
    removed.extend(
        named
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .filter(may_set),
    );
    Changes {
        removed,
        set: listed(headers, |name| match check.all_upstream {
            true => !ANSWERS_OWN.contains(name),
            false => is_listed(list, name),
        }),
        response: listed(headers, |name| is_listed(&check.downstream_on_allow, name)),
        own: list.clone(),
    }
}

/// The provider gets to see the request's header.
fn is_seen(check: &HttpCheck, name: &HeaderName) -> bool {
    *name == AUTHORIZATION || is_listed(&check.include_headers, name)
}
