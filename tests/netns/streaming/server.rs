//! An application that streams, in the pod of another: each path does what one kind of application does, and what becomes of its
//! requests is told to the test.

use std::convert::Infallible;
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::sync::{Notify, broadcast};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::grpc;
use crate::support::lab::netns::Namespace;

pub type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// What `/flood` sends at once.
pub const CHUNK: usize = 16 * 1024;

/// What the application does and sees, for the test.
pub struct Seen {
    /// Requests of which the application was told that nobody waits for them any more.
    pub cancelled: AtomicUsize,
    /// Bytes of `/flood` that were handed out.
    pub produced: AtomicU64,
    /// What `/events` sends.
    pub events: broadcast::Sender<Bytes>,
    /// Requests of `/hold`, `/sink` and `/events` that have come.
    pub came: AtomicUsize,
}

/// While the application works on a request.
pub struct Working(Option<Arc<Seen>>);

impl Working {
    pub fn on(seen: &Arc<Seen>) -> Self {
        seen.came.fetch_add(1, Ordering::SeqCst);
        Self(Some(seen.clone()))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if let Some(seen) = &self.0 {
            seen.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Serves HTTP/1.1 and HTTP/2 on this port of a pod until the test ends.
pub fn start(namespace: &Namespace, port: u16) -> Result<Arc<Seen>> {
    let listener = namespace.run(|| TcpListener::bind(("::", port)))??;
    listener.set_nonblocking(true)?;
    let seen = Arc::new(Seen {
        cancelled: AtomicUsize::default(),
        produced: AtomicU64::default(),
        events: broadcast::channel(16).0,
        came: AtomicUsize::default(),
    });
    let serves = seen.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || runtime.block_on(serve(listener, serves)));
    Ok(seen)
}

/// Serves HTTP/1.1 that tells hints before its response.
pub fn start_hinting(namespace: &Namespace, port: u16) -> Result<()> {
    let listener = namespace.run(|| TcpListener::bind(("::", port)))??;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let read = stream.read(&mut head)?;
                assert!(head[..read].ends_with(b"\r\n\r\n"), "a small head comes at once");
                stream.write_all(HINTS)?;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
                stream.read(&mut head)
            });
        }
    });
    Ok(())
}

/// What comes before a response.
pub const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";

async fn serve(listener: TcpListener, seen: Arc<Seen>) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(converse(stream, seen.clone()));
    }
}

async fn converse(stream: TcpStream, seen: Arc<Seen>) {
    let leaves = Arc::new(Notify::new());
    let service = service_fn(|request: Request<Incoming>| {
        if request.uri().path() == "/leave" {
            leaves.notify_one();
        }
        let seen = seen.clone();
        async move { Ok::<_, Infallible>(answer(request, seen).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = leaves.notified() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // A client that breaks off is one of those that are tried.
    drop(ended);
}

async fn answer(request: Request<Incoming>, seen: Arc<Seen>) -> Response<Body> {
    match request.uri().path() {
        "/digest" => digest(request).await,
        "/echo" => echo(request),
        // The last request of its connection: GOAWAY, or `connection: close`.
        "/leave" => text(StatusCode::OK, "bye"),
        "/early" => text(StatusCode::PAYLOAD_TOO_LARGE, "too large"),
        "/events" => events(&seen),
        "/flood" => flood(&seen),
        "/break" => breaks(),
        "/hold" => {
            let _working = Working::on(&seen);
            std::future::pending().await
        }
        "/read" => {
            let working = Working::on(&seen);
            let read = request.into_body().collect().await;
            // A body that broke off is how the application hears of it.
            drop(working);
            text(if read.is_ok() { StatusCode::OK } else { StatusCode::BAD_REQUEST }, "")
        }
        "/sink" => {
            let (_working, _unread) = (Working::on(&seen), request);
            std::future::pending().await
        }
        "/chat" => chat(request),
        path if path.starts_with(grpc::PATH) => grpc::answer(request, seen).await,
        _ => text(StatusCode::NOT_FOUND, "nothing here"),
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let body = Full::from(text).map_err(Into::into).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// How long the body was, and the trailer `x-sum`.
async fn digest(request: Request<Incoming>) -> Response<Body> {
    let mut body = request.into_body();
    let (mut length, mut sum, mut trailer) = (0u64, 0u64, String::new());
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            length += data.len() as u64;
            sum += data.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        } else if let Some(value) = frame.trailers_ref().and_then(|it| it.get("x-sum")) {
            trailer = value.to_str().unwrap_or_default().to_owned();
        }
    }
    let body = Full::from(format!("{length} {sum} {trailer}"));
    Response::new(body.map_err(Into::into).boxed_unsync())
}

/// Sends what comes while it comes, trailers too.
fn echo(request: Request<Incoming>) -> Response<Body> {
    let body = request.into_body().map_err(Into::into).boxed_unsync();
    let mut response = Response::new(body);
    response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    response
}

/// An event whenever the test wants one; the stream has no end.
fn events(seen: &Arc<Seen>) -> Response<Body> {
    let state = (seen.events.subscribe(), Working::on(seen));
    let events = stream::unfold(state, |(mut events, working)| async move {
        let event = events.recv().await.ok()?;
        Some((Ok(Frame::data(event)), (events, working)))
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

/// Sends as fast as it may, without an end.
fn flood(seen: &Arc<Seen>) -> Response<Body> {
    let (seen, working) = (seen.clone(), Working::on(seen));
    let chunk = Bytes::from(vec![b'x'; CHUNK]);
    let chunks = stream::poll_fn(move |_| {
        _ = &working;
        seen.produced.fetch_add(CHUNK as u64, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(chunk.clone()))))
    });
    Response::new(StreamBody::new(chunks).boxed_unsync())
}

/// Gives up in the middle of its response.
fn breaks() -> Response<Body> {
    let part = stream::once(async { Ok(Frame::data(Bytes::from_static(b"part"))) });
    let fails = stream::once(async {
        // Not together with the part, which hyper would throw away.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err("it broke".into())
    });
    Response::new(StreamBody::new(part.chain(fails)).boxed_unsync())
}

/// A WebSocket that echoes messages and answers a close.
fn chat(mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY).cloned() else {
        return text(StatusCode::BAD_REQUEST, "no WebSocket");
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = TokioIo::new(upgraded.await.ok()?);
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.ok()?;
            }
        }
        Some(())
    });
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.extend(accept.ok().map(|accept| (SEC_WEBSOCKET_ACCEPT, accept)));
    response
}
