//! Hears why the server breaks off a session: in TLS 1.3 a client is done with its handshake before the server has judged
//! the client's certificate, so that a refusal comes as an alert when the tunnel seems to be open already.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::base::Reason;
use crate::identity;

/// What the server said, if it broke the session off.
pub(super) type Alert = Arc<OnceLock<(Reason, String)>>;

/// A TLS stream whose first alert is kept.
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

impl<S: AsyncWrite + Unpin> AsyncWrite for Alerted<S> {
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
