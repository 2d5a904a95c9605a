//! What a proxy does to the heads of messages (RFC 9110, 7.6.1; RFC 9112, 3.2.2): one canonical form for matching and
//! policies, hop-by-hop headers removed, a request id.
//!
//! Canonical: the target in origin form, and exactly one `host` header, whatever version the request came with.

use std::net::SocketAddr;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderName,
    HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri, Version};

use super::{framing, host};
use crate::base::{self, FIELD_BYTES, Identity};

/// Istio's and Envoy's name for the id that ties the log lines of one request together.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The original values of a request that the client's half changed ([`original`](super::original)).
pub(in crate::l7) const ORIGINAL: HeaderName = HeaderName::from_static("x-isthmus-original");
/// The destination's half tells the client's that a policy refused the request, for who observes; neither lets it pass.
pub(in crate::l7) const DENIED: HeaderName = HeaderName::from_static("x-isthmus-denied");
/// How many checks of external authorization led to a request, which is itself a check then.
pub(in crate::l7) const CHECKS: HeaderName = HeaderName::from_static("x-isthmus-checks");
/// Who the client is (Envoy, "x-forwarded-client-cert").
pub(in crate::l7) const CLIENT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// What the client spoke, for applications that build links.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Which attempt a request is (Envoy, "x-envoy-attempt-count").
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// Fields that the client's half may add, for which the destination's half leaves room: the id, the protocol, the attempt, the
/// original values, the client's name, the coding of a body without a length, two of how long it may take, and three of a trace at the most.
pub(in crate::l7) const ADDED: usize = 11;

/// Fields that nearly every request has, and that count by their text only.
const FEW_FIELDS: usize = 16;

/// What one more field of a request takes beside its text, in bytes: what it takes in a map, and 104 in each of two copies and in what keeps their case.
const FIELD: usize = 2 * FIELD_BYTES;

/// Headers that mean this connection only, besides those that `connection` names.
const HOP_BY_HOP: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Brings a request into canonical form, or says what is wrong with it. `dialled`: the host of a request that need not name
/// one (HTTP/1.0).
pub(in crate::l7) fn canonical<B>(
    request: &mut Request<B>,
    dialled: Option<SocketAddr>,
) -> Result<(), &'static str> {
    let host = host::of_request(request, dialled)?;
    *request.uri_mut() = origin_form(request.uri());
    strip_hop_by_hop(request.headers_mut());
    request.headers_mut().insert(HOST, host);
    Ok(())
}

/// The target in origin form. A path that is empty is `/`, with a query too (RFC 9112, 3.2.1).
fn origin_form(uri: &Uri) -> Uri {
    let target = match uri.path_and_query() {
        Some(target) if target.as_str().starts_with('?') => {
            PathAndQuery::try_from(format!("/{target}", target = target.as_str()))
                .unwrap_or_else(|_| PathAndQuery::from_static("/"))
        }
        Some(target) => target.clone(),
        None => PathAndQuery::from_static("/"),
    };
    Uri::from(target)
}

/// The host of a request in canonical form.
pub(in crate::l7) fn host(headers: &HeaderMap) -> &str {
    headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

/// The name in a host that passed ([`canonical`]), without its port.
pub(in crate::l7) fn name_of(host: &str) -> &str {
    host.split_once(':').map_or(host, |(name, _)| name)
}

/// Puts the host back when there is not exactly one any more that a request may name.
pub(in crate::l7) fn keep_host(headers: &mut HeaderMap, before: &HeaderMap) {
    if !host::is_named(headers)
        && let Some(host) = before.get(HOST)
    {
        headers.insert(HOST, host.clone());
    }
}

/// Removes what concerns one connection only, and leaves the rest in its order. `te: trailers` stays: gRPC asks for it end
/// to end.
pub(in crate::l7) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let trailers = headers
        .get(TE)
        .map(|te| te.to_str().is_ok_and(|te| te.split(',').any(|part| part.trim() == "trailers")));
    if trailers == Some(true) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let drops_te = trailers == Some(false);
    if !drops_te && !HOP_BY_HOP.iter().any(|name| headers.contains_key(name)) {
        return;
    }
    let named = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != HOST && *name != TE);
    let mut names: Vec<HeaderName> = named.collect();
    names.extend(HOP_BY_HOP);
    names.extend(drops_te.then_some(TE));
    framing::remove(headers, &names);
}

/// What a waypoint adds when the client did not send it, before routes and policies look at the request, as
/// Envoy does.
pub(in crate::l7) fn add_missing(headers: &mut HeaderMap) {
    headers.entry(REQUEST_ID).or_insert_with(request_id);
    headers.entry(FORWARDED_PROTO).or_insert_with(|| HeaderValue::from_static("http"));
}

/// Which attempt this is, from 1, as Istio's proxies of clients tell it; what the client says of it does not count.
pub(in crate::l7) fn count_attempt(headers: &mut HeaderMap, attempt: u32) {
    let value = match attempt {
        1 => HeaderValue::from_static("1"),
        more => HeaderValue::from(more),
    };
    headers.insert(ATTEMPT_COUNT, value);
}

/// Takes out what is said of attempts: a client does not count them for others, and no filter or policy sees it.
pub(in crate::l7) fn take_attempt(headers: &mut HeaderMap) -> Option<HeaderValue> {
    headers.remove(ATTEMPT_COUNT)
}

/// Takes out how many checks led to a request. A client that makes it up can only have its own request rejected.
pub(in crate::l7) fn take_checks(headers: &mut HeaderMap) -> u8 {
    let Some(said) = headers.get(CHECKS) else { return 0 };
    let number = said.to_str().ok().and_then(|number| number.parse().ok());
    framing::remove(headers, &[CHECKS]);
    number.unwrap_or(u8::MAX)
}

/// Puts back what was taken out.
pub(in crate::l7) fn put_attempt(headers: &mut HeaderMap, attempt: HeaderValue) {
    headers.insert(ATTEMPT_COUNT, attempt);
}

/// Whether the destination's half says that a policy refused the request. No success has it, but for gRPC, where all failures are.
pub(in crate::l7) fn take_denied<B>(response: &mut Response<B>, is_grpc: bool) -> bool {
    (is_grpc || !response.status().is_success()) && response.headers_mut().remove(DENIED).is_some()
}

/// Headers that only agents may send are taken out of what clients send, trailers included.
pub(in crate::l7) fn strip_internal(headers: &mut HeaderMap) {
    framing::remove(headers, &[ORIGINAL]);
    strip_disguised(headers, &[CLIENT]);
}

/// Takes fields of these names out, and those that an application may take for them.
pub(in crate::l7) fn strip_disguised(headers: &mut HeaderMap, names: &[HeaderName]) {
    let alike = names.iter().flat_map(|name| base::alike(headers, name.as_str()));
    let disguised: Vec<HeaderName> = alike.cloned().collect();
    framing::remove(headers, &disguised);
}

/// What may not stand in trailers, because applications that join them with the headers would take it for judged
/// (RFC 9110, 6.5.1): framing, routing, and what only agents may say.
pub(in crate::l7) fn strip_trailers(trailers: &mut HeaderMap) {
    strip_internal(trailers);
    framing::remove(trailers, &HOP_BY_HOP);
    framing::remove(trailers, &[HOST, CONTENT_LENGTH, TE, AUTHORIZATION, COOKIE]);
}

/// Who the client is, proven by mutual TLS, as Envoy writes it: an element for the client, and one for the waypoint whose
/// principal counts beside the client's. `by` has verified them.
pub(in crate::l7) fn name_client(
    headers: &mut HeaderMap,
    by: &Identity,
    client: &Identity,
    waypoint: Option<&Identity>,
) {
    let mut text = format!("By={by};URI={client}");
    if let Some(waypoint) = waypoint {
        text.push_str(&format!(",By={by};URI={waypoint}"));
    }
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(CLIENT, value);
    }
}

/// About what the head of a request takes, in bytes: its text, and the places of its fields in the maps of the request, of
/// what was sent before filters and of what may be sent again. HPACK brings a field in a byte, so the text alone says little.
pub(in crate::l7) fn size<B>(request: &Request<B>) -> usize {
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    path + weight(request.headers(), FIELD)
}

/// About what the head of a response, or trailers, take, in bytes: there is one map of them.
pub(in crate::l7) fn size_of(fields: &HeaderMap) -> usize {
    weight(fields, FIELD_BYTES)
}

fn weight(fields: &HeaderMap, field: usize) -> usize {
    let text: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    text + fields.len().saturating_sub(FEW_FIELDS) * field
}

/// Whether the answer must be gRPC's.
pub(in crate::l7) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.starts_with(b"application/grpc")
            && matches!(value.get(b"application/grpc".len()), None | Some(b'+' | b';'))
    })
}

/// How the access log names the version.
pub(in crate::l7) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// A random UUID, version 4 (RFC 9562, 5.4).
fn request_id() -> HeaderValue {
    let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
    let mut text = uuid::Uuid::encode_buffer();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text))
        .unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::builder().uri(uri).body(()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn only_what_is_no_success_can_tell_of_a_denial_and_nothing_passes_it_on() {
        for (status, is_grpc, expected) in
            [(403, false, true), (503, false, true), (200, false, false), (200, true, true)]
        {
            let response = Response::builder().status(status).header(DENIED, "true");
            let mut response = response.body(()).unwrap();
            assert_eq!(take_denied(&mut response, is_grpc), expected, "{status}");
            assert_ne!(response.headers().contains_key(DENIED), expected, "{status}");
            assert!(!take_denied(&mut response, is_grpc), "{status}: it is gone, or not looked at");
        }
    }

    #[test]
    fn one_form_for_all_versions() {
        let mut absolute = request("http://reviews:9080/a?b", &[("host", "reviews:9080")]);
        assert_eq!(canonical(&mut absolute, None), Ok(()));
        assert_eq!(absolute.uri(), "/a?b");
        assert_eq!(host(absolute.headers()), "reviews:9080");
        let mut origin = request("/a", &[("host", "reviews")]);
        assert_eq!(canonical(&mut origin, None), Ok(()));
        assert_eq!(host(origin.headers()), "reviews");
        for (target, path) in [("http://a?b", "/?b"), ("http://a", "/"), ("http://a//b/", "//b/")] {
            let mut empty = request(target, &[("host", "a")]);
            assert_eq!(canonical(&mut empty, None), Ok(()));
            assert_eq!(crate::l7::message::sent::target(empty.uri()), path, "{target}");
        }
    }

    #[test]
    fn removes_what_is_the_connections() {
        let mut sent = request(
            "/",
            &[
                ("host", "a"),
                ("connection", "close, X-Private, host"),
                ("x-private", "1"),
                ("keep-alive", "5"),
                ("transfer-encoding", "chunked"),
                ("te", "gzip, trailers"),
                ("x-kept", "1"),
            ],
        );
        assert_eq!(canonical(&mut sent, None), Ok(()));
        let names: Vec<_> = sent.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["host", "te", "x-kept"], "in their order");
        assert_eq!(sent.headers()["te"], "trailers");
    }

    #[test]
    fn nobody_but_the_agent_names_the_client() {
        let mut headers = HeaderMap::new();
        for name in [
            "X-Forwarded-Client-Cert",
            "x_forwarded_client_cert",
            "x-forwarded_client.cert",
            "x-isthmus-original",
        ] {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_static("x"),
            );
        }
        headers.append("x-forwarded-client-certs", HeaderValue::from_static("kept"));
        strip_internal(&mut headers);
        assert_eq!(headers.len(), 1, "{headers:?}");
        let identity = |name: &str| Identity::new("td", "ns", name);
        let (by, client, waypoint) = (identity("app"), identity("curl"), identity("wp"));
        name_client(&mut headers, &by, &client, None);
        assert_eq!(headers[CLIENT], "By=spiffe://td/ns/ns/sa/app;URI=spiffe://td/ns/ns/sa/curl");
        name_client(&mut headers, &by, &client, Some(&waypoint));
        assert_eq!(
            headers[CLIENT],
            "By=spiffe://td/ns/ns/sa/app;URI=spiffe://td/ns/ns/sa/curl,By=spiffe://td/ns/ns/sa/app;URI=spiffe://td/ns/ns/sa/wp"
        );
    }

    #[test]
    fn what_only_agents_may_say_goes_and_leaves_the_rest_in_its_order() {
        let mut sent =
            request("/", &[("a", "1"), ("x-isthmus-original", "x"), ("b", "1"), ("c", "1")]);
        strip_internal(sent.headers_mut());
        let names: Vec<_> = sent.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn fields_have_their_size_however_short_they_are() {
        let with = |count: usize| {
            let mut request = Request::new(());
            for number in 0..count {
                let name = HeaderName::try_from(format!("k{number}")).unwrap();
                request.headers_mut().append(name, HeaderValue::from_static(""));
            }
            size(&request)
        };
        assert!(with(FEW_FIELDS) < 100, "as much as their text");
        assert!(with(1_000) > 500_000, "{}", with(1_000));
        let fields = HeaderMap::from_iter((0..1_000).map(|number| {
            (HeaderName::try_from(format!("k{number}")).unwrap(), HeaderValue::from_static(""))
        }));
        assert!(size_of(&fields) > 250_000, "{}", size_of(&fields));
    }

    #[test]
    fn adds_an_id_once() {
        let mut headers = HeaderMap::new();
        add_missing(&mut headers);
        let id = headers["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
        add_missing(&mut headers);
        assert_eq!(headers["x-request-id"], id.as_str());
    }

    #[test]
    fn knows_grpc_by_its_content_type() {
        for (value, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            assert_eq!(is_grpc(&headers), grpc, "{value}");
        }
    }
}
