//! Sockets: listeners and connections inside a network namespace, original destinations, byte copy.
//!
//! Everything that touches a socket option, a namespace or a copy loop stands here, so that the rooms above speak
//! only of streams. It decides nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream};

/// A network namespace, held open.
#[derive(Clone, Debug)]
pub struct NetworkNamespace(Arc<std::os::fd::OwnedFd>);

impl NetworkNamespace {
    /// A name below `/run/netns`, or an absolute path.
    pub fn open(_name_or_path: &str) -> io::Result<Self> {
        todo!()
    }
    /// The inode: equal for two handles of one namespace.
    pub fn inode(&self) -> io::Result<u64> {
        todo!()
    }
    /// Runs `work` on this thread inside the namespace and comes back; `work` must not await.
    pub fn run<T>(&self, _work: impl FnOnce() -> T) -> io::Result<T> {
        todo!()
    }
}

/// Where sockets are made: the seam for tests and for network namespaces.
pub trait SocketFactory: Send + Sync + 'static {
    /// A listening socket. IPv6 `[::]` takes IPv4 too.
    fn listen(&self, address: SocketAddr) -> io::Result<TcpListener>;
    /// A socket that is not connected yet, marked as the agent's own; `from` borrows that source address (IP_TRANSPARENT).
    fn socket(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<tokio::net::TcpSocket>;
}

/// Sockets in a workload's namespace, marked as the agent's own.
pub struct NamespaceSockets;
impl NamespaceSockets {
    pub fn new(_namespace: NetworkNamespace) -> Self {
        todo!()
    }
}
impl SocketFactory for NamespaceSockets {
    fn listen(&self, _address: SocketAddr) -> io::Result<TcpListener> {
        todo!()
    }
    fn socket(&self, _to: SocketAddr, _from: Option<IpAddr>) -> io::Result<tokio::net::TcpSocket> {
        todo!()
    }
}

/// Sockets in the agent's own namespace, without a mark: for tests and for the agent's own ports.
pub struct PlainSockets;
impl SocketFactory for PlainSockets {
    fn listen(&self, _address: SocketAddr) -> io::Result<TcpListener> {
        todo!()
    }
    fn socket(&self, _to: SocketAddr, _from: Option<IpAddr>) -> io::Result<tokio::net::TcpSocket> {
        todo!()
    }
}

/// Connects with the options every connection of the agent has (no delay, keepalive).
/// A passed deadline is `ErrorKind::TimedOut`.
pub async fn connect(
    _sockets: &dyn SocketFactory,
    _to: SocketAddr,
    _from: Option<IpAddr>,
    _deadline: Duration,
) -> io::Result<TcpStream> {
    todo!()
}

/// Where the client wanted to go before the connection was redirected (SO_ORIGINAL_DST); IPv4-mapped is unmapped.
pub fn original_destination(_stream: &TcpStream) -> io::Result<SocketAddr> {
    todo!()
}

/// Options for an accepted connection (no delay, keepalive).
pub fn tune_accepted(_stream: &TcpStream) -> io::Result<()> {
    todo!()
}

/// What to do after `accept` failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptFailure {
    /// Only that connection: go on.
    ThisConnection,
    /// Out of files or memory: pause.
    BackOff,
    /// The listener is gone.
    Fatal,
}
pub fn classify_accept(_error: &io::Error) -> AcceptFailure {
    todo!()
}

/// The receiving half of a byte stream, chunk by chunk; a copy loop works on it without knowing what carries the bytes.
pub trait ChunkRead: Send + Unpin {
    /// Up to about `hint` bytes; empty at the end of the stream.
    fn poll_chunk(&mut self, cx: &mut Context<'_>, hint: usize) -> Poll<io::Result<Bytes>>;
}

/// The sending half.
pub trait ChunkWrite: Send + Unpin {
    /// Takes bytes from the front of `chunk`; ready when it took some.
    fn poll_write_chunk(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>>;
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ends this direction (FIN, END_STREAM); the other one goes on.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// A stream that can be split for the copy loop.
pub trait Duplex: Send {
    type Read: ChunkRead;
    type Write: ChunkWrite;
    fn halves(self) -> (Self::Read, Self::Write);
}

/// Told about every chunk that passes.
pub trait Transferred: Send + Sync {
    /// From the downstream to the upstream.
    fn sent(&self, bytes: usize);
    /// From the upstream to the downstream.
    fn received(&self, bytes: usize);
}

/// Copies both directions to their ends, with half-close; returns when both have ended or one failed.
pub async fn copy_bidirectional<D: Duplex, U: Duplex>(
    _downstream: D,
    _upstream: U,
    _observer: &impl Transferred,
) -> Result<(), CopyError> {
    todo!()
}

/// A stream with bytes that were read ahead put back in front.
pub struct Rewind<S> {
    pub front: Bytes,
    pub stream: S,
}

#[derive(Debug, thiserror::Error)]
#[error("copy")]
pub struct CopyError;
pub fn unmap(address: SocketAddr) -> SocketAddr {
    address
}
