//! Requests at once on connections of HTTP/2, and what h2 refuses of them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::Barrier;

use super::raw::*;
use super::support::{Client, Lab, application};
use crate::l7::WorkerSettings;

/// An application that lets so many streams be open on a connection, which it says after so long, and answers when `meet`
/// requests are there.
async fn meeting(streams: u32, says: Duration, meet: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let barrier = Arc::new(Barrier::new(meet));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let barrier = barrier.clone();
            let service = service_fn(move |_: Request<hyper::body::Incoming>| {
                let barrier = barrier.clone();
                async move {
                    barrier.wait().await;
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                }
            });
            tokio::spawn(async move {
                tokio::time::sleep(says).await;
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .max_concurrent_streams(streams)
                    .serve_connection(TokioIo::new(stream), service)
                    .await
            });
        }
    });
    address
}

fn roomy() -> WorkerSettings {
    WorkerSettings { max_requests: 1_000, ..WorkerSettings::for_tests() }
}

/// So many requests at once on one connection; whether all were answered.
async fn at_once(client: &Client, count: usize) -> bool {
    let Client::Http2(sender) = client else { return false };
    let asked = (0..count).map(|_| {
        let request = Request::builder().uri("http://echo/").body(Full::default()).unwrap();
        sender.clone().send_request(request)
    });
    let all =
        async { join_all(asked).await.into_iter().all(|it| it.is_ok_and(|it| it.status() == 200)) };
    tokio::time::timeout(Duration::from_secs(10), all).await.unwrap_or(false)
}

#[tokio::test]
async fn a_client_has_as_many_streams_as_it_wants() {
    // Requests that come before the application has said what it takes wait for that, and share a connection.
    let at = meeting(1_000, Duration::from_millis(100), 150).await;
    for half in HALVES {
        let lab = Lab::new(half.mesh(at), roomy());
        let client = Client::http2(half.connect(&lab, at).await).await;
        assert!(at_once(&client, 150).await, "{half:?}");
    }
}

#[tokio::test]
async fn the_setting_bounds_them() {
    let at = application("app").await;
    let lab = Lab::new(Half::Client.mesh(at), WorkerSettings { max_http2_streams: 7, ..roomy() });
    let io = TokioIo::new(Half::Client.connect(&lab, at).await);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = Arc::new(tokio::sync::Mutex::new(connection));
    let driven = connection.clone();
    tokio::spawn(async move {
        std::future::poll_fn(|cx| {
            let Ok(mut connection) = driven.try_lock() else {
                cx.waker().wake_by_ref();
                return std::task::Poll::Pending;
            };
            std::pin::Pin::new(&mut *connection).poll(cx)
        })
        .await
    });
    let client = Client::Http2(sender);
    // The first hears the limit.
    assert!(at_once(&client, 1).await && at_once(&client, 20).await);
    assert_eq!(connection.lock().await.current_max_send_streams(), 7);
}

/// What the application takes on one connection is respected: the others get connections besides.
#[tokio::test]
async fn the_application_s_limit_is_kept_by_further_connections() {
    let at = meeting(10, Duration::ZERO, 45).await;
    for half in HALVES {
        let lab = Lab::new(half.mesh(at), roomy());
        let client = Client::http2(half.connect(&lab, at).await).await;
        let Client::Http2(sender) = &client else { unreachable!() };
        let ask = || {
            let request = Request::builder().uri("http://echo/").body(Full::default()).unwrap();
            tokio::spawn(sender.clone().send_request(request))
        };
        // The first tells the limit.
        let mut all = vec![ask()];
        tokio::time::sleep(Duration::from_millis(100)).await;
        all.extend((1..45).map(|_| ask()));
        for asked in all {
            let answer = tokio::time::timeout(Duration::from_secs(10), asked).await;
            assert_eq!(answer.expect("an answer").unwrap().unwrap().status(), 200, "{half:?}");
        }
    }
}

#[tokio::test]
async fn too_many_fields_are_told_over_http2_too() {
    let at = application("app").await;
    let lab = Lab::new(Half::Client.mesh(at), WorkerSettings::for_tests());
    let mut client = Client::http2(Half::Client.connect(&lab, at).await).await;
    let names: Vec<String> = (0..101).map(|number| format!("x-{number}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
    let answer = client.send(Method::GET, "/", &headers).await.unwrap();
    assert_eq!(answer.status, 431);
    assert_eq!(lab.requests(&["response_code=\"431\"", "response_flags=\"DPE\""]), 1);
    assert_eq!(client.get("/").await.status, 200, "the connection goes on");
}

/// What h2 answers by itself, which nobody else sees: heads that are malformed, or too long.
#[tokio::test]
async fn what_h2_refuses_leaves_a_trace() {
    use tokio::io::AsyncWriteExt;
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let [.., a, b, c] = payload.len().to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let at = application("app").await;
    let lab = Lab::new(Half::Client.mesh(at), WorkerSettings::for_tests());
    let mut client = Half::Client.connect(&lab, at).await;
    client.write_all(&[PREFACE, &frame(4, 0, 0, b"")].concat()).await.unwrap();
    // `:method: GET` alone; then one that is whole (`:scheme: http`, `:path: /`, `:authority: a`).
    client.write_all(&frame(1, 5, 1, &[0x82])).await.unwrap();
    let whole = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
    client.write_all(&frame(1, 5, 3, &whole)).await.unwrap();
    client.write_all(&frame(1, 5, 5, &[0x82])).await.unwrap();
    // A path that no URI has, as h2 has it.
    let path = [&[0x82, 0x86, 0x41, 1, b'a', 0x44, 3][..], b"/<>"].concat();
    client.write_all(&frame(1, 5, 7, &path)).await.unwrap();
    lab.counted(&["response_code=\"200\""], 1).await;
    lab.counted(&["response_flags=\"DPE\"", "response_code=\"0\""], 3).await;
    // A head that is too long is answered: 63 KiB in fields of 15,000 bytes, in one frame each.
    let field = [&[0, 1, b'x', 0x7f, 0x99, 0x74][..], &[b'y'; 15_000]].concat();
    client.write_all(&frame(1, 1, 9, &whole)).await.unwrap();
    for number in 0..5 {
        let last = if number == 4 { 4 } else { 0 };
        client.write_all(&frame(9, last, 9, &field)).await.unwrap();
    }
    lab.counted(&["response_flags=\"DPE\"", "response_code=\"431\""], 1).await;
    // What breaks the connection is told, too.
    client.write_all(&frame(0, 0, 0, b"data without a stream")).await.unwrap();
    rest(&mut client).await;
    lab.counted(&["response_flags=\"DPE\""], 5).await;
}
