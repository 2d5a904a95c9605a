//! What fuzzers try on what waypoints read: heads of requests, the first bytes of connections, and what the other half
//! says of a request that it changed; with what must hold whatever it is.

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING};
use http::{Method, Request, Uri, Version};

use crate::l7::exchange::upgrade;
use crate::l7::http1::decode::{Decoder, Piece};
use crate::l7::http1::head as heads;
use crate::l7::message::detect::{self, Verdict};
use crate::l7::message::messages::Messages;
use crate::l7::message::original::Original;
use crate::l7::message::{framing, headers, refused};

/// Headers of one message that are looked at; as many as are taken by default.
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

/// As it is read over HTTP/1.
fn request(bytes: &[u8]) -> Option<Request<()>> {
    let (head, _) = heads::request(&Bytes::copy_from_slice(bytes), MAX_HEADERS).ok()??;
    Some(head.request)
}

/// Messages of HTTP/1, requests and responses by turns: what a head is does not depend on what follows it, and what a body is not on
/// the pieces that it comes in. The first byte says which, and how long the pieces are.
pub fn http1(bytes: &[u8]) {
    let Some((how, bytes)) = bytes.split_first() else { return };
    let whole = Bytes::copy_from_slice(bytes);
    let read = |bytes: &Bytes| {
        if how % 2 == 0 {
            let (head, length) = heads::request(bytes, MAX_HEADERS).ok()??;
            return Some((length, head.request.into_parts().0.headers, head.body));
        }
        let (head, length) = heads::response(bytes, MAX_HEADERS).ok()??;
        let body = heads::response_body(heads::Asks::Anything, &head.response, MAX_HEADERS).ok()?;
        Some((length, head.response.into_parts().0.headers, body))
    };
    let Some((length, headers, body)) = read(&whole) else { return };
    let alone = read(&whole.slice(..length)).map(|(length, headers, _)| (length, headers));
    assert_eq!(alone, Some((length, headers)), "what follows a head makes no difference");
    if length > 1 {
        assert!(read(&whole.slice(..length - 1)).is_none(), "a head has one end");
    }
    let Some(in_one) = body else { return };
    let in_pieces = read(&whole).and_then(|(_, _, body)| body);
    let size = usize::from(how / 2).max(1);
    let rest = whole.slice(length..);
    let pieces = rest.chunks(size).map(Bytes::copy_from_slice);
    assert_eq!(
        decoded(in_pieces, pieces),
        decoded(Some(in_one), [rest.clone()]),
        "pieces make no difference"
    );
}

/// The data, the trailers, whether it is whole, and how much was not used; `None` when it is no body.
fn decoded(
    decoder: Option<Decoder>,
    pieces: impl IntoIterator<Item = Bytes>,
) -> Option<(Vec<u8>, HeaderMap, bool, usize)> {
    let (mut decoder, mut data, mut trailers, mut unused) =
        (decoder?, Vec::new(), HeaderMap::new(), 0);
    for mut input in pieces {
        while let Some(piece) = decoder.next(&mut input).ok()? {
            match piece {
                Piece::Data(bytes) => data.extend(bytes),
                Piece::Trailers(fields) => trailers = fields,
            }
        }
        assert!(
            decoder.is_over() || input.is_empty(),
            "all of it is used before more is asked for"
        );
        unused += input.len();
    }
    let is_whole = decoder.end().is_ok();
    Some((data, trailers, is_whole, unused))
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
    restored(&Original::pack(said), target.clone());
    if let Ok(value) = HeaderValue::from_bytes(said) {
        restored(&value, target);
    }
}

fn restored(value: &HeaderValue, target: Option<Uri>) {
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
