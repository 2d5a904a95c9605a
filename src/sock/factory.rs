//! Creates sockets, in a workload's network namespace or in the agent's own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use super::namespace::NetworkNamespace;
use super::options;
use crate::base::ports::SOCKET_MARK;

/// The accept backlog. A burst of all clients of a workload fits; Rust's default is 128, ztunnel uses 128 or 1024, and
/// `net.core.somaxconn` (4096) caps it.
const BACKLOG: i32 = 1024;

/// Creates sockets: the seam for tests and for network namespaces.
pub trait SocketFactory: Send + Sync + 'static {
    /// A listening socket. IPv6 `[::]` accepts IPv4 too.
    fn listen(&self, address: SocketAddr) -> io::Result<TcpListener>;
    /// A listening socket whose port a successor can bind too, while this one is open.
    fn listen_shared(&self, address: SocketAddr) -> io::Result<TcpListener>;
    /// A datagram socket. Port 0 is any port; another port can be bound by a successor too.
    fn datagrams(&self, address: SocketAddr) -> io::Result<UdpSocket>;
    /// An unconnected socket with the agent's mark; `from` borrows that source address (IP_TRANSPARENT).
    fn socket(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpSocket>;
}

/// Sockets in a workload's namespace, with the agent's mark.
pub struct NamespaceSockets {
    namespace: NetworkNamespace,
}

/// Sockets in the agent's own namespace, without a mark: for tests and for the agent's own ports.
pub struct PlainSockets;

impl NamespaceSockets {
    pub fn new(namespace: NetworkNamespace) -> Self {
        Self { namespace }
    }
}

impl SocketFactory for NamespaceSockets {
    /// Accepted sockets inherit the mark, so that replies carry it like everything else that the agent sends.
    fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.namespace.run(|| listener(address, Some(SOCKET_MARK)))?
    }

    fn listen_shared(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.namespace.run(|| shared_listener(address, Some(SOCKET_MARK)))?
    }

    fn datagrams(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        self.namespace.run(|| datagrams(address, Some(SOCKET_MARK)))?
    }

    fn socket(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpSocket> {
        self.namespace.run(|| outgoing(to, from, Some(SOCKET_MARK)))?
    }
}

impl SocketFactory for PlainSockets {
    fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        listener(address, None)
    }

    fn listen_shared(&self, address: SocketAddr) -> io::Result<TcpListener> {
        shared_listener(address, None)
    }

    fn datagrams(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        datagrams(address, None)
    }

    fn socket(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpSocket> {
        outgoing(to, from, None)
    }
}

/// Of tests: [`PlainSockets`], but for those that connect.
#[cfg(test)]
pub trait Connecting: Send + Sync + 'static {
    /// As [`SocketFactory::socket`].
    fn socket(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpSocket>;
}

#[cfg(test)]
impl<T: Connecting> SocketFactory for T {
    fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        PlainSockets.listen(address)
    }

    fn listen_shared(&self, address: SocketAddr) -> io::Result<TcpListener> {
        PlainSockets.listen_shared(address)
    }

    fn datagrams(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        PlainSockets.datagrams(address)
    }

    fn socket(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpSocket> {
        Connecting::socket(self, to, from)
    }
}

/// Connects with the options of every agent connection (no delay, keepalive). A timeout is `ErrorKind::TimedOut`.
pub async fn connect(
    sockets: &dyn SocketFactory,
    to: SocketAddr,
    from: Option<IpAddr>,
    deadline: Duration,
) -> io::Result<TcpStream> {
    let to = super::unmap(to);
    let socket = sockets.socket(to, from)?;
    options::tune(&socket)?;
    tokio::time::timeout(deadline, socket.connect(to)).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("{to} did not answer within {deadline:?}"))
    })?
}

fn shared_listener(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpListener> {
    let socket = shared(address, Type::STREAM, mark)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn datagrams(address: SocketAddr, mark: Option<u32>) -> io::Result<UdpSocket> {
    UdpSocket::from_std(shared(address, Type::DGRAM, mark)?.into())
}

fn shared(address: SocketAddr, kind: Type, mark: Option<u32>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.port() != 0 {
        socket.set_reuse_port(true)?;
    }
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listener(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpListener> {
    match bind_listener(address, mark) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) => {
            let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            bind_listener(address, mark)
        }
        result => result,
    }
    .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
    .and_then(|socket| TcpListener::from_std(socket.into()))
}

/// The kernel has no IPv6, or it is disabled in this namespace.
fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn bind_listener(address: SocketAddr, mark: Option<u32>) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    // A restarted agent binds again while connections of the previous one are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn outgoing(to: SocketAddr, from: Option<IpAddr>, mark: Option<u32>) -> io::Result<TcpSocket> {
    let to = super::unmap(to);
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    if let Some(from) = from {
        borrow_address(&socket, to, from.to_canonical())?;
    }
    Ok(socket)
}

/// Binds to an address that the namespace does not own, with a port that the kernel chooses on connect.
fn borrow_address(socket: &TcpSocket, to: SocketAddr, from: IpAddr) -> io::Result<()> {
    let reference = SockRef::from(socket);
    match (from, to) {
        (IpAddr::V4(_), SocketAddr::V4(_)) => reference.set_ip_transparent_v4(true)?,
        (IpAddr::V6(_), SocketAddr::V6(_)) => reference.set_ip_transparent_v6(true)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{to} cannot be reached from {from}: one is IPv4, the other IPv6"),
            ));
        }
    }
    options::set_bind_address_no_port(socket)?;
    socket.bind(SocketAddr::new(from, 0))
}
