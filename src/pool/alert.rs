//! Keeps the alert with which a server closes a session: in TLS 1.3 a client finishes its handshake before the server has
//! verified the client's certificate, so a rejection arrives as an alert when the tunnel seems to be open already.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::base::Reason;
use crate::identity;

/// The alert with which the server closed the session, if it did.
pub(super) type Alert = Arc<OnceLock<(Reason, String)>>;

/// The most reads of a broken session in search of an alert; each up to 1 KiB.
const MAX_READS: usize = 64;

/// A TLS stream that keeps the first alert.
pub(super) struct Alerted<S> {
    stream: S,
    alert: Alert,
}

impl<S> Alerted<S> {
    pub(super) fn new(stream: S) -> (Self, Alert) {
        let alert = Alert::default();
        (Self { stream, alert: alert.clone() }, alert)
    }
}

impl<S: AsyncRead + Unpin> Alerted<S> {
    /// A write failed because the server has closed the connection. Its alert has often arrived, but would not be read. If it
    /// has not arrived yet, the failure waits for it; a connection that was reset becomes readable at once.
    fn heard<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let gone = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        };
        if !matches!(&written, Poll::Ready(Err(error)) if gone(error)) {
            return written;
        }
        let mut rest = [0; 1024];
        for _ in 0..MAX_READS {
            let mut rest = ReadBuf::new(&mut rest);
            match Pin::new(&mut *self).poll_read(cx, &mut rest) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !rest.filled().is_empty() => {}
                Poll::Ready(_) => break,
            }
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Alerted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read
            && identity::is_alert(error)
        {
            self.alert.get_or_init(|| (identity::reason_of(error), error.to_string()));
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Alerted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.heard(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.heard(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.heard(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
