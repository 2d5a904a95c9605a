//! Requests: ours and hyper's server read the same bytes.

use std::convert::Infallible;
use std::sync::Arc;

use ::bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::bytes::{cut, cuts, requests};
use super::sides::{self, Answer};
use crate::l7::budget::sizes::HTTP1_BUFFER;
use crate::l7::http1::server;

/// A request as a server understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

/// Reads a request to its end; `None` when its body breaks off.
async fn read<B: Body<Data = Bytes> + Unpin>(request: Request<B>) -> Option<Seen> {
    let (head, mut body) = request.into_parts();
    let (mut read, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(data) => read.extend(data),
            Err(frame) => trailers = frame.into_trailers().ok()?,
        }
    }
    let http::request::Parts { method, uri, version, headers, .. } = head;
    Some(Seen { method, uri, version, headers, body: read, trailers })
}

/// What ours makes of the bytes, and what it answers.
async fn ours(pieces: &[Vec<u8>]) -> (Vec<Seen>, Vec<u8>) {
    served(pieces, true).await
}

/// The same, where nobody `reads` the bodies.
async fn served(pieces: &[Vec<u8>], reads: bool) -> (Vec<Seen>, Vec<u8>) {
    let seen = Mutex::new(Vec::new());
    let (mut client, stream) = sides::pair();
    let seat = sides::seat();
    let service = |request: Request<server::Incoming>| async {
        let request = request.map(|incoming| sides::Stream(incoming.stream));
        if reads {
            let request = read(request).await;
            seen.lock().extend(request);
        }
        Response::new(Answer::new(""))
    };
    let drain = CancellationToken::new();
    let serving = server::serve(stream, &seat, &drain, 100, service);
    let mut answers = Vec::new();
    let asking = async {
        for piece in pieces {
            if client.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        _ = client.shutdown().await;
        _ = client.read_to_end(&mut answers).await;
    };
    _ = tokio::join!(serving, asking);
    (seen.into_inner(), answers)
}

/// What hyper makes of them.
async fn hypers(pieces: &[Vec<u8>]) -> Vec<Seen> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (mut client, stream) = tokio::io::duplex(1024 * 1024);
    let known = seen.clone();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let known = known.clone();
        async move {
            let request = read(request).await;
            known.lock().extend(request);
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    });
    let serving = async {
        hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .max_buf_size(HTTP1_BUFFER)
            .max_header_size(HTTP1_BUFFER)
            .serve_connection(TokioIo::new(stream), service)
            .await
    };
    let asking = async {
        for piece in pieces {
            if client.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        _ = client.shutdown().await;
        _ = client.read_to_end(&mut Vec::new()).await;
    };
    _ = tokio::join!(serving, asking);
    let seen = seen.lock();
    seen.clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn what_ours_takes_hyper_takes_for_the_same(bytes in requests(), at in cuts()) {
        let (ours, hypers, whole) = sides::run(async {
            let pieces = cut(&bytes, &at);
            (ours(&pieces).await.0, hypers(&pieces).await, ours(std::slice::from_ref(&bytes)).await.0)
        });
        prop_assert_eq!(&ours, &whole, "pieces make no difference");
        prop_assert!(hypers.starts_with(&ours), "ours: {:?}\nhyper: {:?}", ours, hypers);
    }
}

#[test]
fn requests_that_are_well_formed_are_all_taken() {
    let bytes = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
        PUT /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX-T: 1\r\n\r\n\
        GET /c HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n\
        GET /e HTTP/1.1\r\nHost: a\r\n\r\n";
    for size in [1, 2, 7, 50, bytes.len()] {
        let pieces: Vec<Vec<u8>> = bytes.chunks(size).map(<[u8]>::to_vec).collect();
        let ((ours, answers), hypers) =
            sides::run(async { (ours(&pieces).await, hypers(&pieces).await) });
        let paths: Vec<_> = ours.iter().map(|seen| seen.uri.path()).collect();
        assert_eq!(paths, ["/a", "/b", "/c", "/d"], "in pieces of {size}");
        assert_eq!(ours, hypers);
        assert_eq!(ours[1].trailers["x-t"], "1");
        let answers = String::from_utf8(answers).unwrap();
        let heads: Vec<_> = answers.split_terminator("\r\n\r\n").collect();
        assert_eq!(
            heads,
            [
                "HTTP/1.1 200 OK\r\ncontent-length: 0",
                "HTTP/1.1 200 OK\r\ncontent-length: 0",
                "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive",
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close",
            ]
        );
    }
}

#[test]
fn what_is_no_request_is_answered_and_ends_the_connection() {
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(HTTP1_BUFFER));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
    for (bytes, status) in [
        ("G@T / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "400 Bad Request"),
        (&long, "431 Request Header Fields Too Large"),
        (&many, "431 Request Header Fields Too Large"),
    ] {
        let (seen, answer) = sides::run(ours(&[bytes.as_bytes().to_vec()]));
        let answer = String::from_utf8(answer).unwrap();
        let expected =
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        assert_eq!((seen.len(), answer), (0, expected), "{bytes:.40}");
    }
}

#[test]
fn a_body_that_nobody_reads_costs_the_connection_only_if_it_is_long() {
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let request = |length: usize, sent: usize| {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        (head + &"x".repeat(sent) + "GET / HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
    };
    for (bytes, answers) in
        [(request(3, 3), 2), (request(100, 0), 1), (request(1_000_000, 200_000), 1)]
    {
        let (_, answer) = sides::run(served(&[bytes], false));
        assert_eq!(String::from_utf8(answer).unwrap(), OK.repeat(answers));
    }
}
