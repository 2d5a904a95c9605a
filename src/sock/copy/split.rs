//! Adapts any other stream to the copy loop, such as an upgraded HTTP connection or a test's pipe.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf};

use super::{ChunkRead, ChunkWrite, Duplex};

/// Makes a [`Duplex`] of any stream. Its halves share a lock and the reader holds a buffer while it waits; therefore
/// TCP and HBONE streams have their own implementations.
pub struct Split<S>(pub S);

/// The receiving half of a [`Split`].
pub struct SplitRead<S> {
    half: ReadHalf<S>,
    /// Kept while nothing arrives.
    buffer: BytesMut,
}

/// The sending half of a [`Split`].
pub struct SplitWrite<S>(WriteHalf<S>);

impl<S: AsyncRead + AsyncWrite + Send> Duplex for Split<S> {
    type Read = SplitRead<S>;
    type Write = SplitWrite<S>;

    fn halves(self) -> (Self::Read, Self::Write) {
        let (read, write) = tokio::io::split(self.0);
        (SplitRead { half: read, buffer: BytesMut::new() }, SplitWrite(write))
    }
}

impl<S: AsyncRead + Send> ChunkRead for SplitRead<S> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, hint: usize) -> Poll<io::Result<Bytes>> {
        self.buffer.reserve(hint.max(1));
        ready!(pin!(self.half.read_buf(&mut self.buffer)).poll(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.buffer).freeze()))
    }
}

impl<S: AsyncWrite + Send> ChunkWrite for SplitWrite<S> {
    fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        let written = ready!(Pin::new(&mut self.0).poll_write(cx, chunk))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        chunk.advance(written);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
