//! A stream with bytes that were read ahead put back in front: detection reads them, and the next room reads them
//! again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::copy::{ChunkRead, Duplex};

/// A stream with bytes that were read ahead put back in front.
pub struct Rewind<S> {
    pub front: Bytes,
    pub stream: S,
}

impl<S> Rewind<S> {
    /// Puts what was just read back in front.
    pub fn put_back(&mut self, read: Bytes) {
        self.front = match self.front.is_empty() {
            true => read,
            false => [&read[..], &self.front].concat().into(),
        };
    }
}

/// The receiving half of a [`Rewind`].
pub struct RewindRead<R> {
    front: Bytes,
    inner: R,
}

impl<S: Duplex> Duplex for Rewind<S> {
    type Read = RewindRead<S::Read>;
    type Write = S::Write;

    fn halves(self) -> (Self::Read, Self::Write) {
        let (inner, write) = self.stream.halves();
        (RewindRead { front: self.front, inner }, write)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.front.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let taken = self.front.len().min(buf.remaining());
        buf.put_slice(&self.front[..taken]);
        self.front.advance(taken);
        if self.front.is_empty() {
            // Frees the memory; an empty part of a buffer would hold all of it.
            self.front = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<R: ChunkRead> ChunkRead for RewindRead<R> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, hint: usize) -> Poll<io::Result<Bytes>> {
        if self.front.is_empty() {
            return self.inner.poll_chunk(cx, hint);
        }
        Poll::Ready(Ok(std::mem::take(&mut self.front)))
    }
}
