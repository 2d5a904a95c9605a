//! A connection of HTTP/1 to an application that answers before it has read the request, and then closes (413, 401): the rest of
//! the request cannot be written any more, and the answer waits to be read.
//!
//! hyper gives up a connection with the first write that fails, and the answer with it. So what cannot be written is thrown
//! away here, and reading decides: it gives the answer that came before, and otherwise the end or the failure of a connection
//! that is broken anyway.
//!
//! When the client has ended its direction ([`leaving`](crate::l7::message::leaving)), so is this one ended.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tunnel::Carrier;

/// The connection.
pub(in crate::l7) struct Hearing {
    io: Carrier,
    /// It takes nothing more.
    is_broken: bool,
    end: Arc<End>,
}

/// Whether the sending direction is to end with what has been sent so far.
#[derive(Default)]
pub(super) struct End {
    is_wanted: AtomicBool,
    waker: AtomicWaker,
}

impl End {
    pub(super) fn want(&self) {
        if !self.is_wanted.swap(true, Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::SeqCst)
    }
}

impl Hearing {
    pub(super) fn new(io: Carrier, end: Arc<End>) -> Self {
        Self { io, is_broken: false, end }
    }

    pub(in crate::l7) fn into_inner(self) -> Carrier {
        self.io
    }

    /// What became of a write of so many bytes.
    fn written(
        &mut self,
        bytes: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error)) if is_closed(&error) => {
                self.is_broken = true;
                Poll::Ready(Ok(bytes))
            }
            other => other,
        }
    }
}

/// The other end takes nothing more.
fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
    )
}

impl AsyncRead for Hearing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.end.waker.register(cx.waker());
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Hearing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_broken {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(buf.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = bufs.iter().map(|buf| buf.len()).sum();
        if self.is_broken {
            return Poll::Ready(Ok(bytes));
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(bytes, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_broken {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx).map_ok(|()| 0);
        ready!(self.written(0, flushed))?;
        if !self.is_broken && self.end.is_wanted() {
            let ended = Pin::new(&mut self.io).poll_shutdown(cx).map_ok(|()| 0);
            ready!(self.written(0, ended))?;
            // Nothing more can be sent.
            self.is_broken = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
