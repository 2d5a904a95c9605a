//! The last part of the path: from the agent to the application of its workload.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::sock::{self, SocketFactory};

/// Connects to the application with the client's address where the kernel lets us, with our own elsewhere. `borrow`: the
/// client's address, when it is of the application's family.
pub async fn connect_application(
    sockets: &dyn SocketFactory,
    to: SocketAddr,
    borrow: Option<IpAddr>,
    timeout: Duration,
) -> io::Result<TcpStream> {
    match sock::connect(sockets, to, borrow, timeout).await {
        Err(error) if borrow.is_some() && may_not_borrow(&error) => {
            sock::connect(sockets, to, None, timeout).await
        }
        connected => connected,
    }
}

/// The kernel does not let us use the client's address: no capability, or no such family.
fn may_not_borrow(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::AddrNotAvailable)
}
