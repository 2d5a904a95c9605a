//! The server of HTTP/1.1 and HTTP/2, on one port and one thread.

use std::convert::Infallible;
use std::net::Ipv6Addr;

use anyhow::Result;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::runtime::Builder;

use super::record::case::LARGE;

/// Answers every request; also the port of the Services.
pub const HTTP: u16 = 9003;
/// Whom requests name.
pub const HOST: &str = "server.bench";

/// What a POST carries, and its answer.
pub const MESSAGE: &[u8] = &[0x2a; 100];
const SMALL_BODY: &[u8] = &[0x2a; 128];
static LARGE_BODY: [u8; 64 * 1024] = [0x2a; 64 * 1024];

/// How long the answer to a GET is.
pub fn size_of(path: &str) -> usize {
    body_of(path).len()
}

fn body_of(path: &str) -> &'static [u8] {
    if path == LARGE { &LARGE_BODY } else { SMALL_BODY }
}

/// Serves for ever.
pub fn serve() -> Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, HTTP)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // A client that breaks off is the client's business.
                let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>> {
    if request.method() != Method::POST {
        let body = Full::new(Bytes::from_static(body_of(request.uri().path())));
        return Ok(Response::new(body.boxed()));
    }
    let body = request.into_body().collect().await?.to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(body).with_trailers(std::future::ready(Some(Ok(trailers))));
    Ok(Response::builder().header("content-type", "application/grpc").body(body.boxed())?)
}
