//! Accepts connections, speaks HTTP/1.1 or HTTP/2 without TLS on them, and hands each request to the service
//! that this process is.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::reply::{self, Reply};
use crate::settings::{Service, Settings};
use crate::{authorize, details, echo, productpage, ratings, reviews, trouble};

/// The longest request body that is read, in bytes: Bookinfo's own are a few dozen.
const BODY_LIMIT: usize = 64 * 1024;

/// Serves until the listener fails; the connections end with this future.
pub async fn serve(listener: TcpListener, settings: Arc<Settings>) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = listener.accept().await?;
        connections.spawn(connection(stream, peer, settings.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, settings: Arc<Settings>) {
    let service = service_fn(|request| {
        let settings = settings.clone();
        async move { Ok::<_, Infallible>(answer(request, peer, &settings).await) }
    });
    // A peer that breaks off is no event for a sample application.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(request: Request<Incoming>, peer: SocketAddr, settings: &Settings) -> Reply {
    let mut line = Line(format!("{} {} from {peer}: broken off", request.method(), request.uri()));
    let (parts, body) = request.into_parts();
    // Read to the end, so that a connection can be used again after a request whose body nobody needs.
    let reply = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(_) => dispatch(&parts, peer, settings).await,
        Err(error) => reply::plain(StatusCode::BAD_REQUEST, &format!("body: {error}")),
    };
    line.ends(reply.status());
    reply
}

/// The line of the log about a request, printed when it is over, whoever ended it.
struct Line(String);

impl Line {
    fn ends(&mut self, status: StatusCode) {
        let asked = self.0.strip_suffix("broken off").unwrap_or_default();
        self.0 = format!("{asked}{}", status.as_u16());
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        println!("{}", self.0);
    }
}

async fn dispatch(parts: &http::request::Parts, peer: SocketAddr, settings: &Settings) -> Reply {
    match parts.uri.path() {
        "/health" => return reply::plain(StatusCode::OK, "healthy"),
        "/trouble" => return trouble::set(parts, peer),
        _ => {}
    }
    if let Some(reply) = trouble::strikes().await {
        return reply;
    }
    match parts.uri.path() {
        "/headers" => echo::headers(parts, peer, settings),
        path if path.starts_with("/check/") => authorize::answer(parts).await,
        _ => match settings.service {
            Service::Productpage => productpage::answer(parts, settings).await,
            Service::Details => details::answer(parts),
            Service::Reviews => reviews::answer(parts, settings).await,
            Service::Ratings => ratings::answer(parts),
        },
    }
}
