//! The listener on 15012: TLS, HTTP/2 and gRPC, with bounds on what anybody on the network can make it hold.

use std::collections::HashMap;
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
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic_prost::ProstCodec;

use super::service::{Create, Signing};
use super::serving::Serving;
use crate::base::Seldom;
use crate::controller::Context;
use crate::controller::ca::Authorities;
use crate::identity::ca_messages::{CREATE_CERTIFICATE, CertificateRequest, CertificateResponse};
use crate::identity::{negotiated_h2, serving_config};

/// Connections at a time: one for each node of a large cluster, and those of a restart.
const MAX_CONNECTIONS: usize = 10_000;
/// Connections of one address: an agent has one, and during an upgrade two.
const MAX_PER_ADDRESS: usize = 16;
/// Requests of one connection at a time: an agent has eight.
const MAX_STREAMS: u32 = 32;
/// Bytes of one message: a signing request and some names take one thousand.
const MAX_MESSAGE: usize = 64 * 1024;
/// Bytes of one request's headers; a token takes some two thousand.
const MAX_HEADERS: u32 = 32 * 1024;
/// How long the handshakes may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A peer that is gone is noticed after this, and [`KEEP_ALIVE_PATIENCE`].
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(20);
/// After this a connection is ended gently, so that agents spread over the replicas again; up to twice as long.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);
/// How long requests of a connection that ends may go on.
const DRAIN: Duration = Duration::from_secs(10);
/// When no connection can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The server, bound and not serving yet.
pub(in crate::controller) struct Server {
    listener: TcpListener,
    tls: TlsAcceptor,
    serving: Serving,
    signing: Arc<Signing>,
    context: Arc<Context>,
    authorities: Authorities,
    places: Arc<Places>,
}

type Connection<S> = http2::Connection<TokioIo<TlsStream<TcpStream>>, S, TokioExecutor>;

/// Who has how many connections.
#[derive(Default)]
struct Places(Mutex<HashMap<IpAddr, usize>>);

/// One connection's place; free again when it is dropped.
struct Place {
    places: Arc<Places>,
    address: IpAddr,
    _slot: OwnedSemaphorePermit,
}

impl Server {
    /// # Errors
    /// The port is taken, or may not be taken.
    pub(in crate::controller) async fn bind(
        context: Arc<Context>,
        authorities: Authorities,
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
            places: Arc::default(),
        })
    }

    /// Serves until cancelled, then lets requests under way end. `ready` is told whether there is a certificate to
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
        let (slots, trouble) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Seldom::new());
        while let Ok(slot) = slots.clone().acquire_owned().await {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let Some(place) = Places::take(&self.places, peer, slot) else {
                        if trouble.is_due() {
                            tracing::warn!(%peer, "too many connections of one address are refused");
                        }
                        continue;
                    };
                    let serving = serve(
                        stream,
                        self.tls.clone(),
                        self.signing.clone(),
                        place,
                        cancel.clone(),
                    );
                    connections.spawn(serving);
                }
                Err(error) => {
                    if trouble.is_due() {
                        tracing::warn!(%error, "cannot accept for now; agents wait");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// One connection from its first byte to its last.
async fn serve(
    stream: TcpStream,
    tls: TlsAcceptor,
    signing: Arc<Signing>,
    place: Place,
    cancel: CancellationToken,
) {
    let peer = place.address;
    let handshake = timeout(HANDSHAKE, tls.accept(stream));
    let stream = match cancel.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(error))) => {
            tracing::debug!(%peer, %error, "the TLS handshake failed");
            return;
        }
        Some(Err(_)) | None => return,
    };
    if !negotiated_h2(stream.get_ref().1) {
        return;
    }
    let service = service_fn(move |request| answer(signing.clone(), peer, request));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = Box::pin(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = cancel.cancelled() => drain(connection).await,
        () = sleep(MAX_AGE.mul_f64(1.0 + fastrand::f64())) => drain(connection).await,
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a connection of an agent broke");
    }
}

/// Takes no new requests, and waits for those under way.
async fn drain<S>(mut connection: Pin<Box<Connection<S>>>) -> hyper::Result<()>
where
    S: hyper::service::HttpService<Incoming, ResBody = tonic::body::Body, Error = Infallible>,
    S::Future: Send + 'static,
{
    connection.as_mut().graceful_shutdown();
    timeout(DRAIN, connection).await.unwrap_or(Ok(()))
}

async fn answer(
    signing: Arc<Signing>,
    peer: IpAddr,
    request: http::Request<Incoming>,
) -> Result<http::Response<tonic::body::Body>, Infallible> {
    if request.uri().path() != CREATE_CERTIFICATE {
        return Ok(Status::unimplemented("only certificates are served here").into_http());
    }
    let codec = ProstCodec::<CertificateResponse, CertificateRequest>::default();
    let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
    Ok(grpc.unary(Create { signing, peer }, request).await)
}

impl Places {
    fn take(places: &Arc<Self>, peer: SocketAddr, slot: OwnedSemaphorePermit) -> Option<Place> {
        let address = peer.ip().to_canonical();
        let mut held = places.0.lock();
        let count = held.entry(address).or_insert(0);
        if *count >= MAX_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Place { places: places.clone(), address, _slot: slot })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.0.lock();
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_so_many_places_and_they_come_back() {
        let (places, slots) = (Arc::new(Places::default()), Arc::new(Semaphore::new(1000)));
        let take = |peer: &str| {
            let slot = slots.clone().try_acquire_owned().unwrap();
            Places::take(&places, peer.parse().unwrap(), slot)
        };
        let mut held: Vec<Option<Place>> =
            (0..MAX_PER_ADDRESS).map(|_| take("10.0.0.1:1")).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(take("10.0.0.1:2").is_none());
        assert!(take("[::ffff:10.0.0.1]:2").is_none(), "the same address in another form");
        assert!(take("10.0.0.2:1").is_some());
        held.pop();
        assert!(take("10.0.0.1:3").is_some());
        drop(held);
        assert!(places.0.lock().is_empty(), "nobody is remembered");
        assert_eq!(slots.available_permits(), 1000);
    }
}
