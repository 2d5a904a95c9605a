//! The listener on 15012: TLS, HTTP/2 and gRPC, with bounds on what anybody on the network can make it hold: visitors
//! have [`MAX_VISITORS`] connections of half a megabyte each, for seconds.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic_prost::ProstCodec;

use super::service::{Create, Signing};
use super::serving::Serving;
use super::standing::{Agents, Standing};
use super::talk::Talk;
use super::throttle::{Rate, Throttle};
use crate::base::{Places, Seldom};
use crate::controller::Context;
use crate::controller::ca::Authorities;
use crate::controller::exchange::Exchange;
use crate::identity::ca_messages::{CREATE_CERTIFICATE, CertificateRequest, CertificateResponse};
use crate::identity::{count_agreed, negotiated_h2, serving_config};
use crate::quota::messages::{EXCHANGE, MAX_MESSAGE as MAX_REPORT, Orders, Report};
use crate::telemetry::Handshake;

/// Concurrent connections of visitors: agents are visitors for some milliseconds, even if all of a cluster connect at
/// once.
const MAX_VISITORS: usize = 256;
/// Connections that one address may open: a handshake costs a signature and a key exchange. An agent opens one in ten
/// minutes; addresses behind a gateway share theirs.
const BEGINNINGS: Rate = Rate { burst: 100.0, each_second: 20.0 };
/// Concurrent requests of one connection: an agent has eight.
const MAX_STREAMS: u32 = 16;
/// Bytes of one message: a signing request and some names take one thousand.
const MAX_MESSAGE: usize = 16 * 1024;
/// Bytes of one request's headers; a token takes some two thousand.
const MAX_HEADERS: u32 = 16 * 1024;
/// Bytes that a connection may send ahead (flow control window).
const WINDOW: u32 = 64 * 1024;
/// The timeout of the handshakes.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The timeout of a request, its arrival included: two answers of the API server.
const REQUEST: Duration = Duration::from_secs(20);
/// The keepalive interval; a peer that is gone is detected after this and [`KEEP_ALIVE_PATIENCE`].
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(20);
/// After this a connection is drained, so that agents spread over the replicas again; up to twice as long.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);
/// How long requests of a draining connection may continue.
const DRAIN: Duration = Duration::from_secs(10);
/// The backoff after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The server, bound and not serving yet.
pub(in crate::controller) struct Server {
    listener: TcpListener,
    tls: TlsAcceptor,
    serving: Serving,
    signing: Arc<Signing>,
    context: Arc<Context>,
    authorities: Authorities,
    visitors: Arc<Places<IpAddr>>,
    beginnings: Throttle<IpAddr>,
    agents: Arc<Agents>,
    exchange: Arc<Exchange>,
}

/// What this port serves.
#[derive(Clone)]
struct Services {
    signing: Arc<Signing>,
    exchange: Arc<Exchange>,
}

type Connection<S> = http2::Connection<TokioIo<TlsStream<TcpStream>>, S, TokioExecutor>;

impl Server {
    /// # Errors
    /// The port is in use, or may not be bound.
    pub(in crate::controller) async fn bind(
        context: Arc<Context>,
        authorities: Authorities,
        exchange: Arc<Exchange>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(context.settings.address).await?;
        let serving = Serving::default();
        let config = serving_config(Arc::new(serving.clone())).map_err(io::Error::other)?;
        let signing = Arc::new(Signing::new(context.clone(), authorities.clone()));
        Ok(Self {
            listener,
            tls: TlsAcceptor::from(Arc::new(config)),
            serving,
            signing,
            context,
            authorities,
            visitors: Places::new(MAX_VISITORS),
            beginnings: Throttle::new(BEGINNINGS),
            agents: Arc::default(),
            exchange,
        })
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until cancelled, then lets requests in flight finish. `ready` reports whether there is a certificate to
    /// serve with.
    pub(in crate::controller) async fn run(self, ready: impl Fn(bool), cancel: CancellationToken) {
        let keeping = self.serving.clone().keep(
            self.context.clone(),
            self.authorities.clone(),
            ready,
            cancel.clone(),
        );
        let connections = TaskTracker::new();
        let accepting = cancel.run_until_cancelled(self.accept(&connections, &cancel));
        tokio::join!(keeping, accepting);
        connections.close();
        connections.wait().await;
    }

    async fn accept(&self, connections: &TaskTracker, cancel: &CancellationToken) {
        let trouble = Seldom::new();
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => match self.admit(peer) {
                    Some(standing) => {
                        let (tls, services) = (self.tls.clone(), self.services());
                        connections.spawn(serve(stream, tls, services, standing, cancel.clone()));
                    }
                    None if trouble.is_due() => {
                        tracing::warn!(%peer, "rejecting connections: too many are being opened at once");
                    }
                    None => {}
                },
                Err(error) => {
                    if trouble.is_due() {
                        tracing::warn!(%error, "cannot accept connections; will retry, and agents wait");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Server {
    fn services(&self) -> Services {
        Services { signing: self.signing.clone(), exchange: self.exchange.clone() }
    }

    /// The class of a new connection; `None`: it is rejected.
    fn admit(&self, peer: SocketAddr) -> Option<Standing> {
        let address = peer.ip().to_canonical();
        let place = self.beginnings.admits(address).then(|| self.visitors.take(address))??;
        Some(Standing::visitor(place, address, self.agents.clone()))
    }
}

/// One connection from its first byte to its last.
async fn serve(
    stream: TcpStream,
    tls: TlsAcceptor,
    services: Services,
    standing: Standing,
    cancel: CancellationToken,
) {
    let (peer, standing) = (standing.address, Arc::new(standing));
    let handshake = timeout(HANDSHAKE, tls.accept(stream));
    let handshake = tokio::select! {
        handshake = handshake => handshake,
        () = standing.over() => return,
        () = cancel.cancelled() => return,
    };
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "the TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    if !negotiated_h2(stream.get_ref().1) {
        return;
    }
    count_agreed(Handshake::IssuerServer, stream.get_ref().1);
    let service = {
        let standing = standing.clone();
        service_fn(move |request| answer(services.clone(), standing.clone(), request))
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = Box::pin(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = standing.over() => match standing.is_proven() {
            true => drain(connection).await,
            false => return,
        },
        () = cancel.cancelled() => drain(connection).await,
        () = sleep(MAX_AGE.mul_f64(1.0 + fastrand::f64())) => drain(connection).await,
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a connection of an agent failed");
    }
}

/// Drains: accepts no new requests, and waits for those in flight.
async fn drain<S>(mut connection: Pin<Box<Connection<S>>>) -> hyper::Result<()>
where
    S: hyper::service::HttpService<Incoming, ResBody = tonic::body::Body, Error = Infallible>,
    S::Future: Send + 'static,
{
    connection.as_mut().graceful_shutdown();
    timeout(DRAIN, connection).await.unwrap_or(Ok(()))
}

async fn answer(
    services: Services,
    standing: Arc<Standing>,
    request: http::Request<Incoming>,
) -> Result<http::Response<tonic::body::Body>, Infallible> {
    let Services { signing, exchange } = services;
    let late = || Status::deadline_exceeded("the request took too long").into_http();
    let answered = match request.uri().path() {
        CREATE_CERTIFICATE => {
            let codec = ProstCodec::<CertificateResponse, CertificateRequest>::default();
            let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
            timeout(REQUEST, grpc.unary(Create { signing, standing }, request)).await
        }
        // Its head is answered within that time; what it carries goes on.
        EXCHANGE => {
            let codec = ProstCodec::<Orders, Report>::default();
            let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(MAX_REPORT);
            let talk = Talk { signing, standing, exchange };
            timeout(REQUEST, grpc.streaming(talk, request)).await
        }
        _ => return Ok(Status::unimplemented("this is not served here").into_http()),
    };
    Ok(answered.unwrap_or_else(|_| late()))
}
