//! What fuzzers try on what waypoints read: heads of requests, the first bytes of connections, and what the other half
//! says of a request that it changed; with what must hold whatever it is.

use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING};
use http::{Method, Request, Uri, Version};

use crate::l7::exchange::upgrade;
use crate::l7::message::detect::{self, Verdict};
use crate::l7::message::messages::Messages;
use crate::l7::message::original::Original;
use crate::l7::message::{framing, headers, refused};

/// Headers of one request that are looked at; as many as hyper takes.
const MAX_HEADERS: usize = 100;

/// The head of a request: the one form that routes and policies see.
pub fn head(bytes: &[u8]) {
    let (_, path) = refused::read(bytes);
    assert!(path.len() < 512, "the log shows a part");
    let Some(mut request) = request(bytes) else { return };
    let coded = request.headers().get_all(TRANSFER_ENCODING).iter();
    let coded: Vec<_> =
        coded.map(|value| value.as_bytes().trim_ascii().to_ascii_lowercase()).collect();
    if framing::check_request(request.headers(), MAX_HEADERS).is_ok() {
        assert!(coded.iter().filter(|it| *it == b"chunked").count() <= 1, "chunked once");
        assert!(!coded.iter().any(|it| it.starts_with(b"gzip")), "no other coding");
    }
    let offered = upgrade::offered(&request, &["websocket".into()]);
    assert!(offered.is_empty() || request.version() == Version::HTTP_11);
    assert!(offered.len() <= 1 && offered.iter().all(|token| token == "websocket"));
    let named = named_by_connection(request.headers());
    headers::strip_internal(request.headers_mut());
    if headers::canonical(&mut request, None).is_err() {
        return;
    }
    assert_ne!(request.method(), Method::CONNECT);
    assert!(request.uri().authority().is_none() && request.uri().scheme().is_none());
    let sent = request.headers();
    assert_eq!(sent.get_all(HOST).iter().count(), 1, "one host");
    assert!(!sent.contains_key(headers::ORIGINAL), "no client speaks for an agent");
    assert!(!sent.contains_key(CONNECTION) && !sent.contains_key(TRANSFER_ENCODING));
    assert!(named.iter().all(|name| *name == HOST || *name == TE || !sent.contains_key(name)));
    let (uri, before) = (request.uri().clone(), sent.clone());
    assert_eq!(headers::canonical(&mut request, None), Ok(()), "canonical form stays so");
    assert_eq!((request.uri(), request.headers()), (&uri, &before));
    headers::add_missing(request.headers_mut());
    headers::keep_host(request.headers_mut(), &before);
    assert_eq!(headers::host(request.headers()), headers::host(&before));
}

/// Messages of gRPC, in frames of any length: the first byte says how long.
pub fn messages(bytes: &[u8]) {
    let Some((length, bytes)) = bytes.split_first() else { return };
    let (mut whole, mut parts) = (Messages::default(), Messages::default());
    whole.pass(bytes);
    bytes.chunks(usize::from(*length).max(1)).for_each(|part| parts.pass(part));
    assert_eq!(whole.count(), parts.count(), "frames make no difference");
    assert!(whole.count() <= bytes.len() as u64, "each has a byte at least");
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

/// As hyper makes it of HTTP/1.
fn request(bytes: &[u8]) -> Option<Request<()>> {
    let mut space = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut space);
    if !parsed.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let version = if parsed.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut request = Request::builder().version(version).method(parsed.method?).uri(parsed.path?);
    for header in parsed.headers {
        request = request.header(header.name, header.value);
    }
    request.body(()).ok()
}

/// The first bytes of a connection: what was decided stays decided, and what HTTP/1 parsers read is not passed by.
pub fn detect(bytes: &[u8]) {
    let verdict = detect::classify(bytes);
    for end in 0..bytes.len().min(64) {
        let early = detect::classify(&bytes[..end]);
        assert!(early == Verdict::Undecided || early == verdict, "{end}");
    }
    let method = bytes.iter().position(|byte| *byte == b' ').unwrap_or(usize::MAX);
    let first = bytes.first().copied().unwrap_or_default();
    if request(bytes).is_some() && method <= detect::LONGEST_METHOD && first > b' ' {
        assert!(matches!(verdict, Verdict::Http(_)), "a request passes for bytes");
    }
}

/// The header of the other half: lines with the target that arrived and with what the header says.
pub fn original(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let target = lines.next().and_then(|target| Uri::try_from(target).ok());
    let said = lines.next().unwrap_or_default();
    // Half of the inputs as they are, half in the encoding, so that it is not for the fuzzer to find out.
    decoded(&Original::pack(said), target.clone());
    if let Ok(value) = HeaderValue::from_bytes(said) {
        decoded(&value, target);
    }
}

fn decoded(value: &HeaderValue, target: Option<Uri>) {
    let Some(read) = Original::decode(value) else { return };
    let written = read.encode();
    let again = written.as_ref().and_then(Original::decode).and_then(|it| it.encode());
    assert_eq!(written, again, "what was read is written and read again");
    let arrived = HeaderMap::from_iter([(HOST, HeaderValue::from_static("arrived"))]);
    let target = target.unwrap_or_default();
    let Some(restored) = read.restore(&target, &arrived) else { return };
    let twice = read.restore(&restored.uri, &restored.headers);
    assert_eq!(twice, Some(restored), "an original is what it is, whatever arrived");
}
