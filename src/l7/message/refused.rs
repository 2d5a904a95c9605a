//! What a parser of HTTP refuses before anybody sees a request: it leaves a line in the access log and counts, as any request
//! that was refused.

use std::error::Error;

use http::{Method, StatusCode};

use super::framing::LONGEST_HEAD;
use crate::base::{Reason, Str};
use crate::l7::http1;
use crate::telemetry::{RequestRecord, RequestStart, Telemetry};

/// How much of a head is kept to tell in the log what was refused, in bytes: a request line that is shorter is told whole.
const SHOWN: usize = 128;
/// What stands in the log for what nobody could read.
const UNKNOWN: &str = "-";

/// A request that was refused, or a connection for what was sent over it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::l7) struct Refused {
    /// What the parser has answered, if anything.
    status: Option<StatusCode>,
    why: String,
    protocol: &'static str,
    method: Method,
    path: Str,
}

/// The method and the target of a head, as far as they are there.
fn request_line(head: &[u8]) -> (Method, Str) {
    let read = &head[..head.len().min(SHOWN)];
    let line = read.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().and_then(|word| Method::from_bytes(word).ok());
    let target = words.next().map(|word| Str::from(&*String::from_utf8_lossy(word)));
    (method.unwrap_or_else(unknown_method), target.unwrap_or_else(|| UNKNOWN.into()))
}

impl Refused {
    /// A head that the server has refused over HTTP/1.
    pub(in crate::l7) fn http1(
        error: &http1::error::Error,
        most_fields: usize,
        head: &[u8],
    ) -> Self {
        let (method, path) = request_line(head);
        let why = told(error, most_fields);
        Self { status: error.status(), why, protocol: "HTTP/1.1", method, path }
    }

    /// What h2 has ended the connection for; `None` when it was the peer, or the network.
    pub(in crate::l7) fn http2(error: &hyper::Error) -> Option<Self> {
        let found = library(error)?;
        Some(Self::over_http2(format!("the connection broke the rules of HTTP/2: {found}")))
    }

    /// The head of a request that h2 has refused itself: answered with 431, or reset.
    pub(in crate::l7) fn stream(answered: bool) -> Self {
        if answered {
            let why = format!("the head of a request is longer than {LONGEST_HEAD} bytes");
            let status = Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
            return Self { status, ..Self::over_http2(why) };
        }
        Self::over_http2(
            "the head of a request was refused with a reset: it is malformed (RFC 9113, 8), or there are more streams than \
             [layer7] max_http2_streams"
                .to_owned(),
        )
    }

    pub(in crate::l7) fn over_http2(why: String) -> Self {
        let (method, path) = (unknown_method(), UNKNOWN.into());
        Self { status: None, why, protocol: "HTTP/2", method, path }
    }

    /// Begins its record, which is written down when dropped. `start`: what is known of the connection.
    pub(in crate::l7) fn record(self, telemetry: &Telemetry, start: RequestStart) -> RequestRecord {
        let Self { status, why, protocol, method, path } = self;
        let authority = UNKNOWN.into();
        let start = RequestStart { method, path, authority, protocol, ..start };
        let mut record = telemetry.request(start);
        if let Some(status) = status {
            record.response(status);
        }
        record.fail(Reason::BadRequest, why);
        record
    }
}

/// What the parser has found, with what operators can do about it.
pub(in crate::l7) fn told(error: &http1::error::Error, most_fields: usize) -> String {
    if matches!(error, http1::error::Error::TooLarge) {
        return format!(
            "the head has more than {most_fields} fields ([layer7] max_headers) or {LONGEST_HEAD} bytes"
        );
    }
    let mut text = error.to_string();
    if text.contains("URI") {
        text.push_str(
            "; a target must be percent-encoded (RFC 3986, 2): no < > ` and nothing that is no UTF-8",
        );
    }
    text
}

/// What h2 itself has found wrong.
fn library(error: &hyper::Error) -> Option<&h2::Error> {
    let found = error.source()?.downcast_ref::<h2::Error>()?;
    found.is_library().then_some(found)
}

fn unknown_method() -> Method {
    Method::from_bytes(UNKNOWN.as_bytes()).unwrap_or_default()
}

/// Fuzzers' bytes as the beginning of a head.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::l7) fn read(bytes: &[u8]) -> (Method, Str) {
    request_line(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_request_line_as_far_as_it_came() {
        for (bytes, method, path) in [
            (&b"GET /a<b HTTP/1.1\r\nhost: a"[..], "GET", "/a<b"),
            (b"GET /a", "GET", "/a"),
            (b"GET", "GET", "-"),
            (b"", "-", "-"),
            (b"\x16\x03\x01 x", "-", "x"),
            (b"GET /\xf1 HTTP/1.1", "GET", "/\u{fffd}"),
        ] {
            let (found, target) = read(bytes);
            assert_eq!((found.as_str(), &*target), (method, path), "{bytes:?}");
        }
        let long = [b"GET /".to_vec(), vec![b'a'; 300]].concat();
        assert_eq!(read(&long).1.len(), SHOWN - 4);
    }
}
