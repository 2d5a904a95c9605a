//! Sockets: listeners and connections inside a network namespace, original destinations, byte copy.
//!
//! This room owns every socket option, namespace and copy loop, so that the rooms above handle only streams. It decides
//! nothing: addresses, timeouts and marks come from its callers and from [`crate::base::ports`].
//!
//! Invariants:
//! * A thread that entered a namespace leaves it again, or the process ends ([`NetworkNamespace::run`]).
//! * A copy holds memory for bytes only while there are bytes; an idle connection holds none.
//! * A stream that is dropped before its end was sent is reset (RST, RST_STREAM): a peer never takes a truncated stream
//!   for a complete one.
//!
//! Callers: `node` and `dns` (listeners), `pool` and `reach` (connections), `l4` and `l7` (copies, original destinations),
//! and `tunnel`, which implements the stream traits for HBONE. This room does not resolve names, retry or speak TLS.

mod accept;
mod copy;
mod factory;
pub mod hello;
mod namespace;
mod options;
mod original;
mod paced;
mod passing;
mod rewind;
#[cfg(test)]
mod tests;

pub use accept::{AcceptFailure, classify_accept};
pub use copy::{
    ChunkRead, ChunkWrite, CopyError, Duplex, Operation, Side, Split, SplitRead, SplitWrite,
    TcpRead, TcpWrite, Transferred, copy_bidirectional,
};
#[cfg(test)]
pub use factory::Connecting;
pub use factory::{NamespaceSockets, PlainSockets, SocketFactory, connect};
pub use namespace::{NamespaceId, NetworkNamespace, Place};
pub use options::{raise_file_limit, set_keepalive, tune_accepted};
pub use original::{original_destination, unmap};
pub use paced::{Paced, PacedRead, PacedWrite};
pub use passing::{Channel, ChannelListener, adopt_listener, duplicate};
pub use rewind::{Rewind, RewindRead};
