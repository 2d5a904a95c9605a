//! The original destination of a redirected connection.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

/// The destination that the client dialled before the connection was redirected (SO_ORIGINAL_DST); IPv4-mapped is
/// unmapped.
///
/// The kernel answers from connection tracking. An error (`NotFound`) means that it tracks no such connection, which
/// cannot be a captured one.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    // A dual-stack listener yields IPv4 connections on IPv6 sockets: the address selects the table to query.
    let original = match unmap(stream.local_addr()?) {
        SocketAddr::V4(_) => socket.original_dst_v4()?,
        SocketAddr::V6(_) => socket.original_dst_v6()?,
    };
    original.as_socket().map(unmap).ok_or_else(|| {
        io::Error::other("the kernel returned an original destination that is not an IP address")
    })
}

/// Converts an IPv4-mapped IPv6 address to IPv4; returns any other address as it is, without a scope.
pub fn unmap(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmaps_only_mapped_addresses() {
        let unmapped = |text: &str| text.parse().map(unmap).map(|address| address.to_string());
        assert_eq!(unmapped("[::ffff:10.0.0.1]:80"), Ok("10.0.0.1:80".to_owned()));
        assert_eq!(unmapped("10.0.0.1:80"), Ok("10.0.0.1:80".to_owned()));
        assert_eq!(unmapped("[fd00::1]:80"), Ok("[fd00::1]:80".to_owned()));
        assert_eq!(unmapped("[::1]:80"), Ok("[::1]:80".to_owned()));
    }
}
