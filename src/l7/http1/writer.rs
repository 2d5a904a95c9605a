//! The sending half of a connection of HTTP/1. What is short is put together, so that a head and a short body are one write; what
//! is long is written from where it is.

use std::io;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};

use crate::sock::ChunkWrite;
use crate::tunnel::CarrierWrite;

/// Up to this length, in bytes, data is copied behind what is written before it.
const SHORT: usize = 4 * 1024;

/// How much may wait to be written, in bytes, before more is taken.
const MOST_WAITING: usize = 16 * 1024;

/// The sending half, with what waits to be written: `front`, then `long`, then `buffer`.
pub(in crate::l7) struct Writer {
    half: CarrierWrite,
    front: BytesMut,
    long: Bytes,
    buffer: BytesMut,
    /// What was written is not flushed yet.
    is_written: bool,
    /// The peer takes nothing more, or was told that nothing more comes.
    is_over: bool,
    /// What the peer has got must not pass for a whole message.
    is_cut: bool,
}

impl Writer {
    pub(in crate::l7) fn new(half: CarrierWrite) -> Self {
        let (front, long, buffer) = (BytesMut::new(), Bytes::new(), BytesMut::new());
        Self { half, front, long, buffer, is_written: false, is_over: false, is_cut: false }
    }

    /// Where heads are written to, with room for so many bytes.
    pub(super) fn buffer(&mut self, length: usize) -> &mut BytesMut {
        self.buffer.reserve(length);
        &mut self.buffer
    }

    /// Takes data; the caller asks for room before.
    pub(super) fn data(&mut self, data: Bytes) {
        if data.len() <= SHORT || !self.front.is_empty() || !self.long.is_empty() {
            self.buffer.extend_from_slice(&data);
            return;
        }
        self.front = std::mem::take(&mut self.buffer);
        self.long = data;
    }

    pub(super) fn has_room(&self) -> bool {
        self.front.is_empty() && self.long.is_empty() && self.buffer.len() < MOST_WAITING
    }

    /// All was written.
    pub(super) fn is_flushed(&self) -> bool {
        !self.is_written && self.front.is_empty() && self.long.is_empty() && self.buffer.is_empty()
    }

    /// Nothing more can be sent.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether what was sent by now is not to pass for a whole message.
    pub(super) fn cut(&mut self, is_cut: bool) {
        self.is_cut = is_cut;
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Writes until there is room.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.has_room() && !self.is_over {
            ready!(self.poll_write(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes all of it.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !(self.front.is_empty() && self.long.is_empty() && self.buffer.is_empty()) {
            if self.is_over {
                self.give_up();
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_write(cx))?;
        }
        if self.is_written && !self.is_over {
            ready!(self.half.poll_flush(cx))?;
            self.is_written = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.front.is_empty() && self.long.is_empty() {
            self.front = std::mem::take(&mut self.buffer);
        }
        ready!(self.half.poll_write_both(cx, &mut self.front, &mut self.long))?;
        self.is_written = true;
        // An empty part of a buffer would hold all of it.
        if self.front.is_empty() {
            self.front = BytesMut::new();
        }
        if self.long.is_empty() {
            self.long = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }

    /// The peer takes nothing more: what waits is thrown away, and reading tells what has become of the connection.
    pub(super) fn give_up(&mut self) {
        self.is_over = true;
        (self.front, self.long, self.buffer) = (BytesMut::new(), Bytes::new(), BytesMut::new());
    }

    /// Ends this direction, after all that was written.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        if !self.is_over {
            ready!(self.half.poll_finish(cx))?;
            self.is_over = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// A connection that is given up is ended, and not reset, where the peer cannot take what it got for more than it was. What waits is
/// not written any more.
impl Drop for Writer {
    fn drop(&mut self) {
        let waits = !(self.front.is_empty() && self.long.is_empty() && self.buffer.is_empty());
        if !self.is_cut && !waits {
            _ = self.poll_finish(&mut Context::from_waker(Waker::noop()));
        }
    }
}

/// What goes on as bytes.
impl ChunkWrite for Writer {
    fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        self.half.poll_write_chunk(cx, chunk)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Writer::poll_flush(self, cx))?;
        self.half.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Writer::poll_finish(self, cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.half.poll_broken(cx)
    }
}
