//! The copy loop: copies both directions of a connection to their ends.
//!
//! It moves chunks instead of filling its own buffer, so that bytes from a socket go into HTTP/2 frames, and bytes from
//! frames to a socket, without another copy, and so that an idle connection holds no buffer.
//!
//! splice(2) between two plain sockets was measured and rejected: over loopback it took a quarter less CPU time of the
//! copying thread and moved no more bytes in the same time, at the price of two descriptors and a pipe per direction.
//!
//! How it ends:
//! * The end of one side's bytes is forwarded (FIN, END_STREAM) and the other direction continues: half-close.
//! * A read error fails the copy at once.
//! * A write error ends that direction only. What the peer had already sent is still forwarded, as without a proxy: a
//!   server that rejects an upload early gets its answer through.
//! * A failed copy resets what it did not finish, so that no peer takes a truncated stream for a complete one.

mod relay;
mod split;
mod tcp;

use std::future::{Future, poll_fn};
use std::io;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use self::relay::Relay;
pub use self::split::{Split, SplitRead, SplitWrite};
pub use self::tcp::{TcpRead, TcpWrite};
use crate::base::{Room, within_budget};
use crate::telemetry::ConnectionRecord;

/// The memory that an idle connection's copy may occupy, in bytes. Ten thousand connections take at most 5 MB.
const COPY_BUDGET: usize = 512;

/// The receiving half of a byte stream, chunk by chunk; the copy loop does not know what carries the bytes.
pub trait ChunkRead: Send + Unpin {
    /// Returns up to about `hint` bytes; empty at the end of the stream. Bytes that are in memory already are returned
    /// as they are, whatever the hint.
    fn poll_chunk(&mut self, cx: &mut Context<'_>, hint: usize) -> Poll<io::Result<Bytes>>;
}

/// The sending half. If it is dropped before `poll_finish` was ready, it resets the stream.
pub trait ChunkWrite: Send + Unpin {
    /// Takes bytes from the front of `chunk`; ready when it took some.
    fn poll_write_chunk(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes)
    -> Poll<io::Result<()>>;
    /// Takes bytes from the front of `first`, or of `second` when that is empty; of both where the carrier can write them at
    /// once. Ready when it took some.
    fn poll_write_both(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut BytesMut,
        second: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        if first.is_empty() {
            return self.poll_write_chunk(cx, second);
        }
        let mut chunk = std::mem::take(first).freeze();
        let written = self.poll_write_chunk(cx, &mut chunk);
        if !chunk.is_empty() {
            *first = chunk.into();
        }
        written
    }
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ends this direction (FIN, END_STREAM); the other one continues.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when the peer accepts nothing more, if the carrier reports that without a write.
    fn poll_broken(&mut self, _cx: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Pending
    }
}

impl<R: ChunkRead + ?Sized> ChunkRead for Box<R> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, hint: usize) -> Poll<io::Result<Bytes>> {
        (**self).poll_chunk(cx, hint)
    }
}

impl<W: ChunkWrite + ?Sized> ChunkWrite for Box<W> {
    fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        (**self).poll_write_chunk(cx, chunk)
    }

    fn poll_write_both(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut BytesMut,
        second: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        (**self).poll_write_both(cx, first, second)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_finish(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        (**self).poll_broken(cx)
    }
}

/// A stream that can be split for the copy loop.
pub trait Duplex: Send {
    type Read: ChunkRead;
    type Write: ChunkWrite;
    fn halves(self) -> (Self::Read, Self::Write);
}

/// Receives every chunk that passes.
pub trait Transferred: Send + Sync {
    /// From the downstream to the upstream.
    fn sent(&self, bytes: usize);
    /// From the upstream to the downstream.
    fn received(&self, bytes: usize);
    /// The memory budget of chunks in transit; `None` if it is not bounded here.
    fn room(&self) -> Option<&Room> {
        None
    }
}

/// The handles were resolved when the record began, so a chunk costs two additions.
impl Transferred for ConnectionRecord {
    fn sent(&self, bytes: usize) {
        ConnectionRecord::sent(self, bytes);
    }

    fn received(&self, bytes: usize) {
        ConnectionRecord::received(self, bytes);
    }

    fn room(&self) -> Option<&Room> {
        ConnectionRecord::room(self)
    }
}

/// A copy that did not reach the end of both directions.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {side}: {source}")]
pub struct CopyError {
    /// The side whose connection failed.
    pub side: Side,
    pub operation: Operation,
    pub source: io::Error,
}

/// The two connections of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The accepted connection.
    Downstream,
    /// The connection that was opened for it.
    Upstream,
}

/// The operation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
}

/// Both directions of one copy.
struct Both<D: Duplex, U: Duplex> {
    sending: Relay<D::Read, U::Write>,
    receiving: Relay<U::Read, D::Write>,
    /// The first direction that could no longer be written.
    failure: Option<CopyError>,
}

impl CopyError {
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

impl From<CopyError> for io::Error {
    fn from(error: CopyError) -> Self {
        io::Error::new(error.kind(), error)
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Side::Downstream => "the client's connection",
            Side::Upstream => "the connection to the destination",
        })
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Operation::Read => "reading from",
            Operation::Write => "writing to",
        })
    }
}

/// Copies both directions to their ends, with half-close; returns when both have ended or one failed. The error names
/// the failed side. Dropping the future resets both sides.
pub fn copy_bidirectional<D: Duplex, U: Duplex, T: Transferred>(
    downstream: D,
    upstream: U,
    observer: &T,
) -> impl Future<Output = Result<(), CopyError>> + Send + use<'_, D, U, T> {
    let (from_downstream, to_downstream) = downstream.halves();
    let (from_upstream, to_upstream) = upstream.halves();
    let mut both = Both::<D, U> {
        sending: Relay::new(from_downstream, to_upstream),
        receiving: Relay::new(from_upstream, to_downstream),
        failure: None,
    };
    within_budget::<COPY_BUDGET, _>(poll_fn(move |cx| both.poll(cx, observer)))
}

impl<D: Duplex, U: Duplex> Both<D, U> {
    fn poll<T: Transferred>(
        &mut self,
        cx: &mut Context<'_>,
        observer: &T,
    ) -> Poll<Result<(), CopyError>> {
        let seen = self.receiving.outlook();
        let sent = self.sending.poll(cx, seen, observer.room(), |bytes| observer.sent(bytes));
        if let Poll::Ready(Err((operation, source))) = sent {
            let side = match operation {
                Operation::Read => Side::Downstream,
                Operation::Write => Side::Upstream,
            };
            self.fail(CopyError { side, operation, source })?;
        }
        let received = self.receiving.poll(cx, self.sending.outlook(), observer.room(), |bytes| {
            observer.received(bytes);
        });
        if let Poll::Ready(Err((operation, source))) = received {
            let side = match operation {
                Operation::Read => Side::Upstream,
                Operation::Write => Side::Downstream,
            };
            self.fail(CopyError { side, operation, source })?;
        }
        if !(self.sending.is_over() && self.receiving.is_over()) {
            if self.receiving.outlook() != seen {
                // What the sending direction waits for depends on it.
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        Poll::Ready(self.failure.take().map_or(Ok(()), Err))
    }

    /// Decides whether a failure of one direction ends the copy now, later or not at all.
    fn fail(&mut self, error: CopyError) -> Result<(), CopyError> {
        match error.operation {
            // The peer got everything including the end, and then reset: many clients close that way.
            Operation::Read if self.told_the_end(error.side) => Ok(()),
            Operation::Read => Err(self.failure.take().unwrap_or(error)),
            Operation::Write => {
                self.failure.get_or_insert(error);
                Ok(())
            }
        }
    }

    fn told_the_end(&self, side: Side) -> bool {
        match side {
            Side::Downstream => self.receiving.has_finished(),
            Side::Upstream => self.sending.has_finished(),
        }
    }
}
