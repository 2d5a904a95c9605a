//! Plain TCP for the copy loop.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{ChunkRead, ChunkWrite, Duplex};

/// A chunk that fills less than half of a buffer above this size is copied to its own memory, so that a small message
/// that waits in a queue does not hold a large buffer.
const SHRINK_ABOVE: usize = 1024;

/// The receiving half of a TCP connection.
pub struct TcpRead(OwnedReadHalf);

/// The sending half of a TCP connection; `None` once the end was sent. If it is dropped before that, the connection is
/// reset.
pub struct TcpWrite(Option<OwnedWriteHalf>);

impl Duplex for TcpStream {
    type Read = TcpRead;
    type Write = TcpWrite;

    fn halves(self) -> (TcpRead, TcpWrite) {
        let (read, write) = self.into_split();
        (TcpRead(read), TcpWrite(Some(write)))
    }
}

impl AsyncRead for TcpRead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TcpWrite {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(half) => Pin::new(half).poll_write(cx, buf),
            None => Poll::Ready(Err(ended())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(half) => Pin::new(half).poll_write_vectored(cx, bufs),
            None => Poll::Ready(Err(ended())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_finish(cx)
    }
}

impl ChunkRead for TcpRead {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, hint: usize) -> Poll<io::Result<Bytes>> {
        loop {
            // Checked before a buffer is allocated: an idle connection holds none.
            ready!(self.0.as_ref().poll_read_ready(cx))?;
            let mut buffer = BytesMut::with_capacity(hint.max(1));
            match pin!(self.0.read_buf(&mut buffer)).poll(cx)? {
                Poll::Ready(_) => return Poll::Ready(Ok(right_sized(buffer))),
                // The kernel had nothing after all; reading again registers the waker.
                Poll::Pending => {}
            }
        }
    }
}

impl ChunkWrite for TcpWrite {
    fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        let Some(half) = &mut self.0 else { return Poll::Ready(Err(ended())) };
        let written = ready!(Pin::new(half).poll_write(cx, chunk))?;
        chunk.advance(written);
        Poll::Ready(Ok(()))
    }

    fn poll_write_both(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut BytesMut,
        second: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        let Some(half) = &mut self.0 else { return Poll::Ready(Err(ended())) };
        let both = [IoSlice::new(first), IoSlice::new(second)];
        let written = ready!(Pin::new(half).poll_write_vectored(cx, &both))?;
        let of_first = written.min(first.len());
        first.advance(of_first);
        second.advance(written - of_first);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(half) = &mut self.0 else { return Poll::Ready(Ok(())) };
        let result = ready!(Pin::new(&mut *half).poll_shutdown(cx));
        if let Some(half) = self.0.take() {
            half.forget();
        }
        Poll::Ready(result)
    }
}

impl Drop for TcpWrite {
    fn drop(&mut self) {
        if let Some(half) = self.0.take() {
            // With a linger time of zero, the following close sends RST instead of FIN. If the option fails, the socket
            // is closed all the same.
            let _ = SockRef::from(half.as_ref()).set_linger(Some(std::time::Duration::ZERO));
            half.forget();
        }
    }
}

fn right_sized(buffer: BytesMut) -> Bytes {
    if buffer.capacity() > SHRINK_ABOVE && buffer.len() < buffer.capacity() / 2 {
        Bytes::copy_from_slice(&buffer)
    } else {
        buffer.freeze()
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the end of this direction was already sent")
}
