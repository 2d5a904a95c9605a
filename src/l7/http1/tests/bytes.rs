//! Bytes that are nearly messages: of lines that are and lines that are not, changed here and there, and cut at any place.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const STARTS: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /a?b=c HTTP/1.1\r\n",
    "HEAD /x HTTP/1.1\r\n",
    "PUT / HTTP/1.0\r\n",
    "CONNECT a:80 HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "GET http://a/b HTTP/1.1\r\n",
    "GET  / HTTP/1.1\r\n",
    "GET / HTTP/1.1\n",
    "\r\nGET / HTTP/1.1\r\n",
    "GET / HTTP/2.0\r\n",
    "G@T / HTTP/1.1\r\n",
    "GET /\x01 HTTP/1.1\r\n",
    " GET / HTTP/1.1\r\n",
    "GET / HTTP/1.1 \r\n",
    "get /\u{e9} HTTP/1.1\r\n",
];

const STATUSES: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 304 Not Modified\r\n",
    "HTTP/1.0 200 Fine\r\n",
    "HTTP/1.1 404 \r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
    "HTTP/1.1 103 Early\r\nlink: a\r\n\r\nHTTP/1.1 201 Made\r\n",
    "HTTP/1.1 099 Odd\r\n",
    "HTTP/1.1 999 Odd\r\n",
    "HTTP/1.2 200 OK\r\n",
    "HTTP/1.1 200 OK\n",
    "HTTP/1.1 20 OK\r\n",
    "220 ready\r\n",
    "HTTP/1.1  200 OK\r\n",
    "HTTP/1.1 200 \u{e9}\r\n",
];

const FIELDS: &[&str] = &[
    "Host: a\r\n",
    "X-One: 1\r\n",
    "x-two:2  \r\n",
    "X-Empty:\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 3\r\n",
    "content-length: 0\r\n",
    "Content-Length: 03\r\n",
    "Content-Length: +3\r\n",
    "Content-Length: 3, 3\r\n",
    "Content-Length: 3,4\r\n",
    "Content-Length: 4\r\n",
    "Content-Length: \r\n",
    "Content-Length: 18446744073709551615\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Content-Length: 3 \r\n",
    "Content-Length: 0x3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: Chunked, \r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked, gzip\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding:\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding\r\n",
    "Transfer_Encoding: chunked\r\n",
    " folded: 1\r\n",
    "X: a\r\n\tb\r\n",
    "X : a\r\n",
    ": nameless\r\n",
    "X: a\0b\r\n",
    "X: a\rb\r\n",
    "X: a\nY: b\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Connection: keep-alive, Close\r\n",
    "Expect: 100-continue\r\n",
    "Upgrade: websocket\r\n",
    "TE: trailers\r\n",
    "X: caf\u{e9}\r\n",
    "X@: 1\r\n",
];

const BODIES: &[&str] = &[
    "",
    "",
    "abc",
    "3\r\nabc\r\n0\r\n\r\n",
    "3\r\nabc\r\n0\r\n\r\n",
    "1\r\na\r\n2\r\nbc\r\n0\r\nX-T: 1\r\n\r\n",
    "03\r\nabc\r\n00\r\n\r\n",
    "3;a=\"b\"\r\nabc\r\n0;c\r\n\r\n",
    "3 \r\nabc\r\n0\r\n\r\n",
    "3\nabc\n0\n\n",
    "+3\r\nabc\r\n0\r\n\r\n",
    "3\r\nabcd\r\n0\r\n\r\n",
    "3\r\nab\r\n0\r\n\r\n",
    "10000000000000003\r\nabc\r\n0\r\n\r\n",
    "0\r\nX-T: 1\r\nbad\r\n\r\n",
    "0\r\nX-T : 1\r\n\r\n",
    "0\r\nX: a\nb\r\n\r\n",
    "0\r\n\r\nabc",
    "abcGET /smuggled HTTP/1.1\r\nHost: b\r\n\r\n",
    "ffffffffffffffff\r\nabc",
];

/// One change of a byte, so far into the bytes.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let byte = || prop_oneof![select(&b"\r\n \t:;,0\0aA\x7f\xff"[..]), any::<u8>()];
    prop_oneof![
        (any::<Index>(), byte()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), byte()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        any::<Index>().prop_map(Change::Remove),
    ]
}

fn message(starts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    // Half of them begin well, or hardly any would.
    let start = prop_oneof![select(&starts[..4]), select(starts)];
    let parts = (start, vec(select(FIELDS), 0..5), select(BODIES), any::<bool>());
    let text = parts.prop_map(|(start, fields, body, well)| {
        let host = if well { "Host: a\r\n" } else { "" };
        format!("{start}{host}{fields}\r\n{body}", fields = fields.concat()).into_bytes()
    });
    let changes = prop_oneof![3 => Just(Vec::new()), 1 => vec(change(), 1..3)];
    (text, changes).prop_map(|(mut bytes, changes)| {
        for change in changes {
            match change {
                Change::Set(at, byte) => {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                Change::Insert(at, byte) => bytes.insert(at.index(bytes.len()), byte),
                Change::Remove(at) => _ = bytes.remove(at.index(bytes.len())),
            }
        }
        bytes
    })
}

/// Some requests, one after the other.
pub(super) fn requests() -> impl Strategy<Value = Vec<u8>> {
    vec(message(STARTS), 1..4).prop_map(|all| all.concat())
}

/// A response, and perhaps something after it.
pub(super) fn response() -> impl Strategy<Value = Vec<u8>> {
    message(STATUSES)
}

/// The same bytes in pieces.
pub(super) fn cut(bytes: &[u8], at: &[Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = at.iter().map(|at| at.index(bytes.len())).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.dedup();
    at.windows(2).map(|ends| bytes[ends[0]..ends[1]].to_vec()).collect()
}

/// Where to cut.
pub(super) fn cuts() -> impl Strategy<Value = Vec<Index>> {
    vec(any::<Index>(), 0..6)
}
