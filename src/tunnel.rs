//! HBONE: HTTP/2 CONNECT over mutual TLS, client and server, as ztunnel speaks it (reference 1.8), and the
//! connections that layer 4 hands over to the workers of layer 7.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::base::Str;
use crate::sock::{ChunkRead, ChunkWrite, Duplex};

/// What the client asks for.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// `ip:port` (or `hostname:port` from gateways).
    pub authority: String,
    /// The client, from `forwarded: for=`.
    pub forwarded_for: Option<SocketAddr>,
    /// The service that was addressed, from `forwarded: host=`.
    pub forwarded_host: Option<Str>,
    /// W3C baggage with Istio's keys, verbatim.
    pub baggage: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    #[error("the peer answered {0} to CONNECT")]
    Status(StatusCode),
    #[error("HTTP/2 failed in the tunnel: {0}")]
    Http2(#[from] h2::Error),
    #[error("the tunnel has no free stream")]
    Full,
    #[error("the tunnel is closing")]
    Closing,
}

/// One tunnel as a client; cheap to clone, streams share it.
#[derive(Clone)]
pub struct Tunnel;
impl Tunnel {
    /// Streams that may still be opened right now.
    pub fn free_streams(&self) -> usize {
        todo!()
    }
    /// Streams that are open now.
    pub fn active_streams(&self) -> usize {
        todo!()
    }
    pub fn is_usable(&self) -> bool {
        todo!()
    }
    /// Opens one stream; returns when the peer answered 200.
    pub async fn open(&self, _request: &ConnectRequest) -> Result<HboneStream, TunnelError> {
        todo!()
    }
    /// No new streams; ends when the last one does.
    pub fn drain(&self) {
        todo!()
    }
}

/// HTTP/2 on an established TLS session; the second part drives the connection and must be spawned.
pub async fn handshake<S>(
    _io: S,
    _max_streams: usize,
) -> Result<(Tunnel, impl Future<Output = ()> + Send + use<S>), TunnelError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    Ok((Tunnel, async {}))
}

/// One CONNECT stream, of either side: bytes in both directions, half-close included.
pub struct HboneStream;
pub struct HboneRead;
pub struct HboneWrite;
impl ChunkRead for HboneRead {
    fn poll_chunk(
        &mut self,
        _cx: &mut std::task::Context<'_>,
        _hint: usize,
    ) -> std::task::Poll<std::io::Result<Bytes>> {
        todo!()
    }
}
impl ChunkWrite for HboneWrite {
    fn poll_write_chunk(
        &mut self,
        _cx: &mut std::task::Context<'_>,
        _chunk: &mut Bytes,
    ) -> std::task::Poll<std::io::Result<()>> {
        todo!()
    }
    fn poll_flush(&mut self, _cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        todo!()
    }
    fn poll_finish(&mut self, _cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        todo!()
    }
}
impl Duplex for HboneStream {
    type Read = HboneRead;
    type Write = HboneWrite;
    fn halves(self) -> (HboneRead, HboneWrite) {
        todo!()
    }
}
impl AsyncRead for HboneStream {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
        _buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        todo!()
    }
}
impl AsyncWrite for HboneStream {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
        _buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        todo!()
    }
    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        todo!()
    }
    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        todo!()
    }
}

/// The server's side of one CONNECT that was understood and not yet answered.
pub struct Incoming {
    pub request: ConnectRequest,
}
impl Incoming {
    /// 200; `baggage` describes the destination.
    pub fn accept(self, _baggage: Option<&str>) -> Result<HboneStream, TunnelError> {
        todo!()
    }
    /// Any other status, and the end of this stream.
    pub fn refuse(self, _status: StatusCode) {
        todo!()
    }
}

/// Serves HTTP/2 on an accepted TLS session: `handler` is called once per understood CONNECT and must not block (it
/// spawns). Anything else is answered 400. When `drain` fires: GOAWAY, then ends with the last stream.
pub async fn serve<S>(
    _io: S,
    _drain: tokio_util::sync::CancellationToken,
    _handler: impl FnMut(Incoming) + Send,
) -> Result<(), TunnelError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    todo!()
}

/// Parses `ip:port` of an authority.
pub fn parse_authority(_authority: &str) -> Option<(IpAddr, u16)> {
    todo!()
}

// ---- handing connections over to the workers of layer 7 (file tunnel/handover.rs) ----

/// What carries the bytes of a connection.
pub enum Carrier {
    Tcp(tokio::net::TcpStream),
    Hbone(HboneStream),
}

/// A connection of a local client to a service with a waypoint: the worker routes its requests.
pub struct RoutedConnection {
    pub stream: tokio::net::TcpStream,
    pub client: std::sync::Arc<crate::model::Workload>,
    pub client_address: SocketAddr,
    /// The virtual address and port that the client dialled.
    pub dialled: SocketAddr,
    pub service: std::sync::Arc<crate::model::Service>,
    pub waypoint: std::sync::Arc<crate::model::Waypoint>,
    /// Sockets in the client's network namespace.
    pub sockets: std::sync::Arc<dyn crate::sock::SocketFactory>,
    /// The place among the workload's connections; given back when dropped.
    pub slot: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// A connection to a local workload whose requests must be authorized one by one.
pub struct GuardedConnection {
    pub stream: Carrier,
    pub workload: std::sync::Arc<crate::model::Workload>,
    /// Proven by mutual TLS; `None` for plaintext.
    pub client: Option<crate::base::Identity>,
    pub client_address: SocketAddr,
    /// The workload's own address and port.
    pub destination: SocketAddr,
    /// The service that the tunnel's request named; only selects policies.
    pub forwarded_host: Option<Str>,
    /// The source address to borrow towards the application, where the kernel allows.
    pub borrow: Option<IpAddr>,
    /// Sockets in the workload's network namespace.
    pub sockets: std::sync::Arc<dyn crate::sock::SocketFactory>,
    pub slot: Option<tokio::sync::OwnedSemaphorePermit>,
    /// Cancelled when the workload leaves or the agent has drained long enough.
    pub cancel: tokio_util::sync::CancellationToken,
}

/// The workers of layer 7, as layer 4 sees them. Neither call blocks; a worker that has no room refuses the
/// connection, records why, and closes it.
pub trait Waypoints: Send + Sync + 'static {
    fn route(&self, connection: RoutedConnection);
    /// `namespace`: whose worker.
    fn guard(&self, namespace: &Str, connection: GuardedConnection);
}
