//! One CONNECT stream of either side as a byte stream.
//!
//! END_STREAM is the end of a direction, RST_STREAM a reset connection. The capacity of a chunk is returned when its
//! consumer asks for the next one, so at most one chunk per stream is not accounted to the window.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::slot::Slot;
use super::waiting::{Leave, Part, Waiting};
use super::window::Consumed;
use crate::base::Room;
use crate::sock::{ChunkRead, ChunkWrite, Duplex};

/// One CONNECT stream, of either side: bytes in both directions, half-close included.
pub struct HboneStream {
    read: HboneRead,
    write: HboneWrite,
}

/// The receiving half.
pub struct HboneRead {
    stream: RecvStream,
    /// Received, and not yet consumed by a reader that takes less than a chunk.
    buffered: Bytes,
    /// Bytes received whose capacity was not returned yet; those in `buffered` are among them.
    held: usize,
    consumed: Consumed,
    /// The slot in a client's tunnel, until this direction has ended.
    slot: Option<Arc<Slot>>,
}

/// The sending half. If it is dropped before its end was sent, it cancels the stream.
pub struct HboneWrite {
    stream: SendStream<Part>,
    waiting: Arc<Waiting>,
    finished: bool,
    slot: Option<Arc<Slot>>,
}

impl HboneStream {
    /// `room`: the budget for bytes that wait to be sent. `slot` is released when both directions have ended or were
    /// dropped.
    pub(super) fn new(
        receive: RecvStream,
        send: SendStream<Part>,
        room: Room,
        consumed: Consumed,
        slot: Option<Arc<Slot>>,
    ) -> Self {
        Self {
            read: HboneRead {
                stream: receive,
                buffered: Bytes::new(),
                held: 0,
                consumed,
                slot: slot.clone(),
            },
            write: HboneWrite { stream: send, waiting: Waiting::new(room), finished: false, slot },
        }
    }
}

impl Duplex for HboneStream {
    type Read = HboneRead;
    type Write = HboneWrite;

    fn halves(self) -> (HboneRead, HboneWrite) {
        (self.read, self.write)
    }
}

impl AsyncRead for HboneStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = &mut self.read;
        if read.buffered.is_empty() {
            read.buffered = ready!(read.poll_data(cx))?;
        }
        let taken = read.buffered.len().min(buf.remaining());
        buf.put_slice(&read.buffered[..taken]);
        read.buffered.advance(taken);
        if read.buffered.is_empty() {
            // An empty part of a frame would hold all of it.
            read.buffered = Bytes::new();
        }
        read.give_back();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HboneStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let write = &mut self.write;
        let leave = ready!(write.poll_leave(cx, buf.len()))?;
        let taken = leave.bytes;
        let part = write.waiting.part(Bytes::copy_from_slice(&buf[..taken]), leave);
        write.send(cx, part, false)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.poll_finish(cx)
    }
}

impl HboneRead {
    /// The next bytes; empty at the end of the stream.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    self.held += data.len();
                    return Poll::Ready(Ok(data));
                }
                Some(Err(error)) => return Poll::Ready(Err(explain(&self.slot, reset(error)))),
                None => {
                    self.slot = None;
                    return Poll::Ready(Ok(Bytes::new()));
                }
            }
        }
    }

    /// Allows the peer to send as much as was consumed.
    fn give_back(&mut self) {
        let consumed = self.held - self.buffered.len();
        if consumed > 0 {
            self.held -= consumed;
            self.consumed.add(consumed);
            // Fails only for a stream that is gone, whose capacity was returned already.
            let _ = self.stream.flow_control().release_capacity(consumed);
        }
    }
}

impl ChunkRead for HboneRead {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, _hint: usize) -> Poll<io::Result<Bytes>> {
        // A consumer that asks for more has taken the previous chunk.
        self.give_back();
        if !self.buffered.is_empty() {
            return Poll::Ready(Ok(std::mem::take(&mut self.buffered)));
        }
        self.poll_data(cx)
    }
}

impl Drop for HboneRead {
    /// The other half may continue, and siblings need the connection's window.
    fn drop(&mut self) {
        self.buffered = Bytes::new();
        self.give_back();
    }
}

impl HboneWrite {
    /// How much of `wanted` may be sent now; never 0.
    fn poll_capacity(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.stream.reserve_capacity(wanted);
        let mut capacity = self.stream.capacity();
        while capacity == 0 {
            capacity = match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(capacity)) => capacity,
                Some(Err(error)) => {
                    return Poll::Ready(Err(explain(&self.slot, reset(error))));
                }
                None => return Poll::Ready(Err(self.cause(cx))),
            };
        }
        Poll::Ready(Ok(capacity.min(wanted)))
    }

    /// How much of `wanted` may be handed over now: limited by window and budget.
    fn poll_leave(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<Leave>> {
        let capacity = ready!(self.poll_capacity(cx, wanted))?;
        self.waiting.poll_leave(cx, capacity).map(Ok)
    }

    fn send(&mut self, cx: &mut Context<'_>, data: Part, end: bool) -> io::Result<()> {
        self.stream.send_data(data, end).map_err(|_| self.cause(cx))
    }

    /// Why the stream accepts nothing more.
    fn cause(&mut self, cx: &mut Context<'_>) -> io::Error {
        let cause = match self.stream.poll_reset(cx) {
            // The peer had sent everything and reads no more (RFC 9113, 8.1): like a closed pipe.
            Poll::Ready(Ok(Reason::NO_ERROR)) | Poll::Pending => io::ErrorKind::BrokenPipe.into(),
            Poll::Ready(Ok(reason)) => {
                io::Error::new(io::ErrorKind::ConnectionReset, reason.to_string())
            }
            Poll::Ready(Err(error)) => reset(error),
        };
        explain(&self.slot, cause)
    }
}

impl ChunkWrite for HboneWrite {
    fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        if chunk.is_empty() {
            // An empty frame carries nothing, and peers count them as abuse.
            return Poll::Ready(Ok(()));
        }
        let leave = ready!(self.poll_leave(cx, chunk.len()))?;
        let part = self.waiting.part(chunk.split_to(leave.bytes), leave);
        Poll::Ready(self.send(cx, part, false))
    }

    /// The connection's own task sends, without a flush.
    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            self.send(cx, self.waiting.end(), true)?;
            self.finished = true;
            self.slot = None;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self.stream.poll_reset(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(self.cause(cx)),
        }
    }
}

impl Drop for HboneWrite {
    fn drop(&mut self) {
        if !self.finished {
            self.stream.send_reset(Reason::CANCEL);
        }
    }
}

/// The tunnel may know better why it was cut.
fn explain(slot: &Option<Arc<Slot>>, error: io::Error) -> io::Error {
    match slot {
        Some(slot) => slot.explain(error),
        None => error,
    }
}

/// Whatever reset the stream, the missing bytes will not arrive.
fn reset(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
