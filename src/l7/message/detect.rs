//! What a connection speaks, by its first bytes: HTTP/2 (its preface), HTTP/1 (a request line), or neither.
//!
//! Nothing is lost: what was read is put back in front of the stream. A client that stays silent past the deadline may
//! be waiting for the server to speak first, so its connection counts as opaque: availability is preferred, and
//! policies lose nothing by it, because an opaque connection cannot match an HTTP rule that allows.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use crate::l7::version::Version;
use crate::model::AppProtocol;
use crate::sock::Rewind;

/// What the first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::l7) enum Verdict {
    Http(Version),
    Opaque,
    /// Too few bytes to tell.
    Undecided,
}

/// What every HTTP/2 connection with prior knowledge starts with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much is read for the decision, in bytes: a request line that is longer is no HTTP that servers accept
/// (nginx and Apache stop at 8 KiB), and it bounds what a silent peer may hold.
const LIMIT: usize = 8 * 1024;

/// The longest method that counts, in bytes: the registered ones have at most 17 (`UPDATEREDIRECTREF`).
pub(in crate::l7) const LONGEST_METHOD: usize = 24;

/// Reads until the protocol is known; `None` stands for opaque bytes. Waits `wait` for all of it.
///
/// On a port whose protocol is said to be HTTP, bytes that are not HTTP/2 are left to the HTTP/1 parser, which
/// answers 400.
pub(in crate::l7) async fn detect<S: AsyncRead + Unpin>(
    mut stream: S,
    said: AppProtocol,
    wait: Duration,
) -> io::Result<(Option<Version>, Rewind<S>)> {
    let deadline = Instant::now() + wait;
    let mut read = BytesMut::new();
    let mut verdict = Verdict::Undecided;
    while verdict == Verdict::Undecided && read.len() < LIMIT {
        read.reserve(LIMIT - read.len());
        match tokio::time::timeout_at(deadline, stream.read_buf(&mut read)).await {
            Ok(Ok(0)) | Err(_) => break,
            Ok(Ok(_)) => verdict = classify(&read),
            Ok(Err(error)) => return Err(error),
        }
    }
    let version = match (verdict, said) {
        (Verdict::Http(version), _) => Some(version),
        (_, AppProtocol::Http | AppProtocol::Http2) => Some(Version::Http1),
        _ => None,
    };
    Ok((version, rewind(read.freeze(), stream)))
}

fn rewind<S>(front: Bytes, stream: S) -> Rewind<S> {
    Rewind { front, stream }
}

/// Looks at the bytes so far.
pub(in crate::l7) fn classify(bytes: &[u8]) -> Verdict {
    if bytes.starts_with(PREFACE) {
        return Verdict::Http(Version::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return Verdict::Undecided;
    }
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => complete_line(&bytes[..end]),
        None => partial_line(bytes),
    }
}

/// A whole first line: `method SP target SP HTTP/1.x CR`.
fn complete_line(line: &[u8]) -> Verdict {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let is_request = line
        .strip_suffix(b" HTTP/1.1")
        .or_else(|| line.strip_suffix(b" HTTP/1.0"))
        .is_some_and(|start| matches!(split_method(start), Some((_, target)) if is_target(target)));
    if is_request { Verdict::Http(Version::Http1) } else { Verdict::Opaque }
}

/// The start of a first line: undecided as long as it can become a request line.
fn partial_line(bytes: &[u8]) -> Verdict {
    match split_method(bytes) {
        Some((_, rest)) => match bytes.len() {
            LIMIT.. => Verdict::Http(Version::Http1),
            _ if rest.iter().all(|byte| is_line(*byte)) => Verdict::Undecided,
            _ => Verdict::Opaque,
        },
        None if bytes.len() <= LONGEST_METHOD && bytes.iter().all(|byte| is_token(*byte)) => {
            Verdict::Undecided
        }
        None => Verdict::Opaque,
    }
}

fn split_method(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = line.iter().take(LONGEST_METHOD + 1).position(|byte| *byte == b' ')?;
    let (method, rest) = (&line[..space], &line[space + 1..]);
    (!method.is_empty() && method.iter().all(|byte| is_token(*byte))).then_some((method, rest))
}

fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
}

/// What may stand in a request line that has not ended yet; a CR is its end.
fn is_line(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\r'
}

/// The characters of a method (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    const HTTP1: Verdict = Verdict::Http(Version::Http1);

    #[test]
    fn tells_requests_from_other_protocols() {
        for (bytes, verdict) in [
            (&b"GET / HTTP/1.1\r\n"[..], HTTP1),
            (b"DELETE /a?b=c HTTP/1.0\r\nHost: x\r\n\r\n", HTTP1),
            (b"PROPFIND http://a/b HTTP/1.1\n", HTTP1),
            (b"OPTIONS * HTTP/1.1\r\n", HTTP1),
            (b"GET / HTTP/1.1\r", Verdict::Undecided),
            (b"GE", Verdict::Undecided),
            (b"GET ", Verdict::Undecided),
            (b"", Verdict::Undecided),
            (PREFACE, Verdict::Http(Version::Http2)),
            (&PREFACE[..10], Verdict::Undecided),
            (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Verdict::Opaque),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Verdict::Opaque),
            (b"EHLO mail.example.org\r\n", Verdict::Opaque),
            (b"get key\r\n", Verdict::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Verdict::Opaque),
            (b"\x16\x03\x01\x02\x00", Verdict::Opaque),
            (b"\r\nGET / HTTP/1.1\r\n", Verdict::Opaque),
            (b"GET /a b HTTP/1.1\r\n", Verdict::Opaque),
            (b"GET / HTTP/2.0\r\n", Verdict::Opaque),
        ] {
            assert_eq!(classify(bytes), verdict, "{:?}", String::from_utf8_lossy(bytes));
        }
        let long = [b"GET /".to_vec(), vec![b'a'; LIMIT]].concat();
        assert_eq!(classify(&long), HTTP1);
    }

    #[tokio::test(start_paused = true)]
    async fn puts_back_what_it_read() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"GET / HT").await.unwrap();
        let task = tokio::spawn(detect(server, AppProtocol::Detect, Duration::from_secs(5)));
        tokio::task::yield_now().await;
        client.write_all(b"TP/1.1\r\nHost").await.unwrap();
        let (version, stream) = task.await.unwrap().unwrap();
        assert_eq!(version, Some(Version::Http1));
        assert_eq!(&stream.front[..], b"GET / HTTP/1.1\r\nHost");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_opaque_after_the_deadline() {
        let (_client, server) = tokio::io::duplex(64);
        let start = Instant::now();
        let (version, _) =
            detect(server, AppProtocol::Detect, Duration::from_secs(5)).await.unwrap();
        assert_eq!(version, None);
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    proptest! {
        #[test]
        fn never_changes_its_mind(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..200) {
            let early = classify(&bytes[..at.min(bytes.len())]);
            if early != Verdict::Undecided {
                prop_assert_eq!(classify(&bytes), early);
            }
        }

        #[test]
        fn finds_every_request_line(
            method in "[A-Z]{1,17}", path in "/[!-~]{0,80}", cut in 0usize..120,
        ) {
            let line = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
            prop_assert_eq!(classify(&line), HTTP1);
            if cut < line.len() {
                prop_assert_eq!(classify(&line[..cut]), Verdict::Undecided);
            }
        }
    }
}
