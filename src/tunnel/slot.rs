//! A slot for a stream of a tunnel, and the state that all streams share.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use h2::client::SendRequest;

use super::alive::Pulse;
use super::waiting::Part;
use super::window::Consumed;
use crate::base::Room;

/// State that the clones of a tunnel and its streams share.
pub(super) struct Shared {
    /// Empty once the tunnel drains or its connection has ended. The connection closes itself when it is idle and no
    /// sender exists; draining relies on that.
    pub(super) sender: ArcSwapOption<SendRequest<Part>>,
    /// The most concurrent streams, even if the peer admits more.
    pub(super) max_streams: usize,
    pub(super) pulse: Arc<Pulse>,
    pub(super) room: Room,
    pub(super) consumed: Consumed,
    /// The server's certificate was revoked: the reason why its streams are reset.
    pub(super) revoked: AtomicBool,
}

/// Why a stream was reset: the other end's certificate was revoked.
#[derive(Debug, thiserror::Error)]
#[error("the tunnel was cut: the server's certificate is revoked")]
pub struct PeerRevoked;

/// One slot for a stream of a tunnel; released when dropped.
pub(super) struct Slot(pub(super) Arc<Shared>);

impl Slot {
    /// What an error of the connection means for a stream.
    pub(super) fn explain(&self, error: io::Error) -> io::Error {
        if self.0.revoked.load(Ordering::Acquire) {
            return io::Error::new(io::ErrorKind::ConnectionReset, PeerRevoked);
        }
        error
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.pulse.taken.fetch_sub(1, Ordering::AcqRel);
    }
}
