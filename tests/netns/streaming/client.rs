//! Clients of HTTP/1.1 and HTTP/2, by hyper.

use std::error::Error;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::soon;

pub type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

/// One connection.
pub struct Client {
    sender: Sender,
    driver: JoinHandle<()>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    pub async fn connect(to: SocketAddr, version: Version) -> Result<Self> {
        let io = TokioIo::new(TcpStream::connect(to).await?);
        Ok(match version {
            Version::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                let driver = tokio::spawn(async move { drop(connection.await) });
                Self { sender: Sender::Http1(sender), driver }
            }
            Version::Http2 => {
                let executor = TokioExecutor::new();
                let (sender, connection) = http2::handshake(executor, io).await?;
                let driver = tokio::spawn(async move { drop(connection.await) });
                Self { sender: Sender::Http2(sender), driver }
            }
        })
    }

    /// Closes the connection, whatever is going on.
    pub async fn leave(self) {
        self.driver.abort();
        _ = self.driver.await;
    }

    pub async fn get(&mut self, path: &str) -> Result<Response<Incoming>> {
        self.send("GET", path, Empty::new().map_err(|never| match never {}).boxed_unsync()).await
    }

    pub async fn post(&mut self, path: &str, body: Body) -> Result<Response<Incoming>> {
        self.send("POST", path, body).await
    }

    async fn send(&mut self, method: &str, path: &str, body: Body) -> Result<Response<Incoming>> {
        let request = Request::builder().method(method);
        let sent = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                let request = request.uri(path).header("host", "streams").header("te", "trailers");
                soon(sender.send_request(request.header("trailer", "x-sum").body(body)?)).await
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                let request = request.uri(format!("http://streams{path}"));
                soon(sender.send_request(request.body(body)?)).await
            }
        };
        sent?.context("no response")
    }
}

/// A body that is known.
pub fn whole(bytes: Vec<u8>) -> Body {
    Full::from(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A body of which the test sends the parts.
pub fn parts() -> (mpsc::Sender<Frame<Bytes>>, Body) {
    let (sender, mut receiver) = mpsc::channel(1);
    let frames =
        futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx).map(|it| it.map(Ok)));
    (sender, StreamBody::new(frames).boxed_unsync())
}

/// The data of the next frame.
pub async fn data(body: &mut Incoming) -> Result<Bytes> {
    let frame = soon(body.frame()).await?.context("the body ended")??;
    frame.into_data().ok().context("trailers")
}

/// All data that comes, and the trailers.
pub async fn rest(body: Incoming) -> Result<(Bytes, Option<HeaderMap>)> {
    let collected = soon(body.collect()).await??;
    let trailers = collected.trailers().cloned();
    Ok((collected.to_bytes(), trailers))
}
