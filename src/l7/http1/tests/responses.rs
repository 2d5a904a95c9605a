//! Responses: ours and hyper's client read the same bytes.

use ::bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use proptest::sample::select;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bytes::{cut, cuts, response};
use super::sides::{self, Answer};
use crate::l7::budget::sizes::HTTP1_BUFFER;
use crate::l7::http1::client::{Answered, Connection, Failed};
use crate::sock::Rewind;

/// A response as a client understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

async fn read<B: Body<Data = Bytes> + Unpin>(
    (status, headers): (StatusCode, HeaderMap),
    mut body: B,
) -> Option<Seen> {
    let (mut read, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(data) => read.extend(data),
            Err(frame) => trailers = frame.into_trailers().ok()?,
        }
    }
    Some(Seen { status, headers, body: read, trailers })
}

/// What ours makes of the bytes, and whether it would use the connection again.
async fn ours(method: &Method, pieces: &[Vec<u8>]) -> (Option<Seen>, bool) {
    let (mut application, Rewind { stream, .. }) = sides::pair();
    let asking = async {
        let mut connection = Connection::new(stream, 100);
        let mut request = Request::new(Answer::new(""));
        *request.method_mut() = method.clone();
        let answered = connection.send(&mut request, &()).await;
        let Ok(Answered { response, body, .. }) = answered else { return (None, false) };
        let (head, ()) = response.into_parts();
        let seen = read((head.status, head.headers), sides::Stream(body)).await;
        (seen, connection.is_whole() && connection.is_quiet())
    };
    let answering = async {
        for piece in pieces {
            if application.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        _ = application.shutdown().await;
        _ = application.read_to_end(&mut Vec::new()).await;
    };
    tokio::join!(asking, answering).0
}

/// What hyper makes of them.
async fn hypers(method: &Method, pieces: &[Vec<u8>]) -> Option<Seen> {
    let (mut application, stream) = tokio::io::duplex(1024 * 1024);
    let asking = async {
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(HTTP1_BUFFER)
            .max_header_size(HTTP1_BUFFER)
            .allow_spaces_after_header_name_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .handshake(TokioIo::new(stream))
            .await
            .ok()?;
        tokio::spawn(connection);
        let mut request = Request::new(Full::<Bytes>::default());
        *request.method_mut() = method.clone();
        let (head, body) = sender.send_request(request).await.ok()?.into_parts();
        read((head.status, head.headers), body).await
    };
    let answering = async {
        // hyper takes what comes before its request for unasked.
        _ = application.read(&mut [0; 1024]).await;
        for piece in pieces {
            if application.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        _ = application.shutdown().await;
        _ = application.read_to_end(&mut Vec::new()).await;
    };
    tokio::join!(asking, answering).0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn what_ours_takes_hyper_takes_for_the_same(
        method in select(&[Method::GET, Method::HEAD, Method::POST][..]), bytes in response(), at in cuts(),
    ) {
        let (ours, hypers, whole) = sides::run(async {
            let pieces = cut(&bytes, &at);
            (ours(&method, &pieces).await.0, hypers(&method, &pieces).await, ours(&method, std::slice::from_ref(&bytes)).await.0)
        });
        prop_assert_eq!(&ours, &whole, "pieces make no difference");
        if ours.is_some() {
            prop_assert_eq!(ours, hypers);
        }
    }
}

#[test]
fn a_response_says_what_becomes_of_its_connection() {
    for (bytes, body, goes_on) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok", true),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", "ok", true),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", false),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "ok", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK", "ok", false),
        ("HTTP/1.1 200 OK\r\n\r\nok", "ok", false),
        ("HTTP/1.1 204 No Content\r\n\r\n", "", true),
    ] {
        let (seen, is_open) = sides::run(async {
            let (mut application, Rewind { stream, .. }) = sides::pair();
            let closes = !["Length", "chunked", "204"].iter().any(|it| bytes.contains(it));
            let mut connection = Connection::new(stream, 100);
            let asking = async {
                let mut request = Request::new(Answer::new(""));
                let Ok(answered) = connection.send(&mut request, &()).await else { return None };
                let (head, ()) = answered.response.into_parts();
                read((head.status, head.headers), sides::Stream(answered.body)).await
            };
            let answering = async {
                let mut request = [0; 64];
                let length = application.read(&mut request).await.unwrap();
                assert_eq!(&request[..length], b"GET / HTTP/1.1\r\n\r\n");
                application.write_all(bytes.as_bytes()).await.unwrap();
                if closes {
                    application.shutdown().await.unwrap();
                }
            };
            let (seen, ()) = tokio::join!(asking, answering);
            (seen, connection.is_whole() && connection.is_quiet())
        });
        assert_eq!((seen.unwrap().body, is_open), (body.as_bytes().to_vec(), goes_on), "{bytes}");
    }
}

#[test]
fn nothing_is_sent_on_a_connection_that_is_closed_or_has_said_something() {
    for (said, closes) in [("HTTP/1.1 408 Request Timeout\r\n\r\n", false), ("", true)] {
        sides::run(async {
            let (mut application, Rewind { stream, .. }) = sides::pair();
            application.write_all(said.as_bytes()).await.unwrap();
            if closes {
                application.shutdown().await.unwrap();
            }
            let mut connection = Connection::new(stream, 100);
            let mut request = Request::new(Answer::new("body"));
            let failed = connection.send(&mut request, &()).await;
            assert!(matches!(failed, Err(Failed::Unsent)), "{said:?}");
            assert!(!request.body().is_end_stream(), "it is where it was");
            drop(connection);
            let mut read = Vec::new();
            application.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, b"");
        });
    }
}
