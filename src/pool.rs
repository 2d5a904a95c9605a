//! The one pool of upstream connections: tunnels, and HTTP connections inside of them.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::{Identity, Reason};
use crate::sock::SocketFactory;
use crate::tunnel::{ConnectRequest, HboneStream};

/// Which tunnel: two clients never share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelKey {
    /// The client's own identity.
    pub client: Identity,
    /// The client workload, whose network namespace the tunnel is dialled from.
    pub client_uid: crate::base::Str,
    /// The identity that the other end must prove.
    pub server: Identity,
    /// `pod address:15008`.
    pub address: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct PoolError {
    pub reason: Reason,
    pub why: String,
}

/// The pool; shared by layer 4 and all workers.
#[derive(Clone)]
pub struct Pool;
impl Pool {
    /// A stream in a tunnel of this key: an existing one with a free slot, or a new one (one dial at a time per key).
    pub async fn open(
        &self,
        _key: &TunnelKey,
        _sockets: &Arc<dyn SocketFactory>,
        _request: &ConnectRequest,
    ) -> Result<HboneStream, PoolError> {
        todo!()
    }
}
