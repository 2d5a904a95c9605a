//! How much connections and messages may take, and the units in which the byte budget counts that.

use crate::base::{FIELD_BYTES, MAX_FIELDS};
use crate::l7::version::Version;

/// The read buffer of an HTTP/1 connection, and so the longest head of a message, in bytes: Istio's and Envoy's
/// limit on request headers.
pub(in crate::l7) const HTTP1_BUFFER: usize = 60 * 1024;

/// The receive window of one HTTP/2 stream, in bytes: at the 0.5 ms between two nodes it carries 2 Gbit/s.
pub(in crate::l7) const HTTP2_STREAM_WINDOW: u32 = 128 * 1024;

/// The receive window of one HTTP/2 connection, in bytes: several streams', so that one slow reader does not stop
/// the others (RFC 9113, 5.2).
pub(in crate::l7) const HTTP2_CONNECTION_WINDOW: u32 = 4 * HTTP2_STREAM_WINDOW;

/// What is buffered for sending on one HTTP/2 stream, in bytes: one frame of the default size.
pub(in crate::l7) const HTTP2_SEND_BUFFER: usize = 16 * 1024;

/// Streams at once on one HTTP/2 connection: Go's and ztunnel's pool's 100 (hyper 200).
pub(in crate::l7) const HTTP2_STREAMS: u32 = 100;

/// How far a copy of a request's body may be behind, in bytes: two windows of a stream, so that an endpoint as fast as
/// the original's keeps up.
pub(in crate::l7) const COPY_BUFFER: usize = 2 * HTTP2_STREAM_WINDOW as usize;

/// How much of a request's body is kept to be sent again, in bytes: a request that was longer is sent once.
pub(in crate::l7) const REPLAY_BUFFER: usize = 64 * 1024;

/// A head up to this size, in bytes, is within what its connection and its streams have reserved; nearly all are.
pub(in crate::l7) const SMALL_HEAD: usize = 4 * 1024;

/// Heads of a request over HTTP/2 that may be small and wait at the same time: its own, the response's, and trailers.
const SMALL_HEADS: usize = 3;

/// The most that one head takes, in bytes: its text, and its fields.
pub(in crate::l7) const MOST_OF_A_HEAD: usize = HTTP1_BUFFER + MAX_FIELDS as usize * FIELD_BYTES;

/// The tables of HPACK of an HTTP/2 connection, in bytes: 4 KiB each by the protocol's count, in which a field takes 32 at
/// least, and some 160 in memory.
pub(in crate::l7) const HPACK_TABLES: usize = 2 * (4096 / 32) * 160;

/// The byte budget is counted in units of this many bytes.
pub(in crate::l7) const UNIT: usize = 1024;

/// The units for so many bytes.
pub(in crate::l7) fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT)
}

/// The units that a request needs besides its connection's: its streams' send buffers, and a head that is not small.
pub(in crate::l7) fn request_units(version: Version, head: usize) -> usize {
    let streams = match version {
        Version::Http1 => 0,
        Version::Http2 => 2 * HTTP2_SEND_BUFFER + SMALL_HEADS * SMALL_HEAD,
    };
    units(streams) + head_units(head)
}

/// The units for a head of this size besides what is reserved for small ones.
pub(in crate::l7) fn head_units(head: usize) -> usize {
    if head > SMALL_HEAD { units(head) } else { 0 }
}
