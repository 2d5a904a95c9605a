//! HBONE: HTTP/2 CONNECT over mutual TLS, client and server, as ztunnel speaks it; its in-process form between
//! workloads of one node; and the handover of connections from layer 4 to the workers of layer 7.
//!
//! Invariants:
//! * A stream returns flow-control capacity only as its consumer takes bytes, and the connection's window is eight
//!   times a stream's: one stalled consumer does not hold up its siblings. Windows grow with use, and what they admit is
//!   reserved from the workload's budget in advance.
//! * A slot in a tunnel is taken before anything is sent and released exactly once, however the stream ends.
//! * Input from the peer is parsed with bounds; ambiguous values count as absent.
//!
//! Callers: `pool` (tunnels as a client), `l4` (the server) and `l7` (streams that were handed over). This room does
//! not speak TLS, authorize connections, or decide when to open another tunnel.

mod alive;
mod carrier;
mod client;
mod cut;
mod fields;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod handover;
mod headers;
mod joined;
mod local;
mod peers;
mod server;
mod slot;
mod stream;
#[cfg(test)]
mod tests;
mod waiting;
mod window;

use std::net::SocketAddr;

use http::StatusCode;

pub use carrier::{Carrier, CarrierRead, CarrierWrite};
pub use client::{Revoker, Tunnel, handshake};
pub use cut::Cut;
pub use frames::{Counted, Exceeded, PREFACE};
pub use handover::{GuardedConnection, Home, LocalServer, Place, RoutedConnection, Waypoints};
pub use headers::{Baggage, parse_authority};
pub use joined::{Joined, JoinedRead, JoinedStream, JoinedWrite};
pub use local::LocalStream;
pub use peers::{PeerPlace, PeerTable, Peers};
pub use server::{Incoming, LocalIncoming, serve};
pub use slot::PeerRevoked;
pub use stream::{HboneRead, HboneStream, HboneWrite};
pub use window::TUNNEL_BYTES;

use crate::base::{MAX_FIELDS, Str};

/// The largest frame that is taken, in bytes: fewer heads for bulk transfers than with HTTP/2's 16 KiB. A frame that has
/// come in part is held beside the windows.
const MAX_FRAME: u32 = 64 * 1024;
/// Streams that a peer may make us reset by breaking the protocol in them, in the life of a connection (h2's default).
const MAX_LOCAL_ERRORS: usize = 1024;

/// What the client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    Http2(#[source] h2::Error),
    /// The peer has not seen the request: it can be retried on another tunnel.
    #[error("the tunnel has no free stream")]
    Full,
    /// The peer has not seen the request: it can be retried on another tunnel.
    #[error("the tunnel is closing")]
    Closing,
    #[error(
        "the peer stopped answering within the tunnel: it hangs, or the network drops its packets"
    )]
    Unresponsive,
    #[error(
        "the peer sent far more frames than its streams need (PING, SETTINGS, RST_STREAM, WINDOW_UPDATE), or a head of \
         more than {MAX_FIELDS} fields"
    )]
    Flood,
    #[error("cannot write the request that opens a stream: {0}")]
    Request(#[from] http::Error),
}

impl From<h2::Error> for TunnelError {
    /// Identifies requests that the peer never processed (RFC 9113, 6.8 and 8.7), because they can be retried
    /// elsewhere.
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(h2::Reason::NO_ERROR) if error.is_go_away() => TunnelError::Closing,
            Some(h2::Reason::REFUSED_STREAM) if error.is_remote() => TunnelError::Full,
            _ => TunnelError::Http2(error),
        }
    }
}
