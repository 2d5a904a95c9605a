//! Two workloads of one node, both plain TCP: the server's side has authorized the connection, and passes the
//! application's connection itself to the client's side.
//!
//! One task then carries both directions, from socket to socket: no bytes pass from one thread to another. The server's
//! side keeps its duties: its own record, which counts every byte, and the ability to cut the connection at any time
//! ([`Joined::cut`]), after which the application sees a reset.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::base::Reason;
use crate::sock::{ChunkRead, ChunkWrite, CopyError, Duplex, Operation, Side, TcpRead, TcpWrite};
use crate::telemetry::ConnectionRecord;

/// The application's connection, owned by the client's side.
pub struct JoinedStream {
    read: JoinedRead,
    write: JoinedWrite,
}

/// The receiving half.
pub struct JoinedRead {
    half: TcpRead,
    line: Held,
}

/// The sending half. If it is dropped before its end was sent, it resets the connection.
pub struct JoinedWrite {
    half: TcpWrite,
    line: Held,
}

/// The server's side of the connection. Dropping it cuts the connection.
pub struct Joined {
    line: Option<Arc<Line>>,
    left: oneshot::Receiver<()>,
}

/// State that both sides share.
struct Line {
    /// The server's record.
    record: ConnectionRecord,
    cut: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
    /// The end was forwarded to the application.
    told_the_end: AtomicBool,
    failure: OnceLock<CopyError>,
}

/// A half's share. The fields are dropped in this order: when the last half is gone, only the server's side holds the
/// line.
struct Held {
    line: Arc<Line>,
    _leaving: Arc<Leaving>,
}

/// Tells the server's side when both halves are gone.
struct Leaving(Option<oneshot::Sender<()>>);

/// Splits the connection to the `application` into the client's side and the server's side with its `record`.
pub(super) fn join(application: TcpStream, record: ConnectionRecord) -> (JoinedStream, Joined) {
    let (read, write) = application.halves();
    let (leaving, left) = oneshot::channel();
    let line = Arc::new(Line {
        record,
        cut: AtomicBool::new(false),
        reader: AtomicWaker::new(),
        writer: AtomicWaker::new(),
        told_the_end: AtomicBool::new(false),
        failure: OnceLock::new(),
    });
    let held = Held { line: line.clone(), _leaving: Arc::new(Leaving(Some(leaving))) };
    let other = Held { line: line.clone(), _leaving: held._leaving.clone() };
    let stream = JoinedStream {
        read: JoinedRead { half: read, line: held },
        write: JoinedWrite { half: write, line: other },
    };
    (stream, Joined { line: Some(line), left })
}

impl Joined {
    /// Waits until the client's side has dropped its halves, and ends the record with the result.
    pub async fn ended(&mut self) {
        let Some(mut line) = self.alone().await else { return };
        let failure = line.failure.take().or_else(|| {
            let source = io::ErrorKind::ConnectionReset.into();
            let broken_off =
                CopyError { side: Side::Downstream, operation: Operation::Read, source };
            (!line.told_the_end.load(Ordering::Relaxed)).then_some(broken_off)
        });
        if let Some(error) = failure {
            line.record.fail(Reason::PeerReset, error.to_string());
        }
    }

    /// Cuts the connection because of `why`; both halves fail from now on.
    pub async fn cut(mut self, reason: Reason, why: String) {
        if let Some(line) = &self.line {
            line.cut();
        }
        if let Some(mut line) = self.alone().await {
            line.record.fail(reason, why);
        }
    }

    /// The shared state, once the client's side is gone.
    async fn alone(&mut self) -> Option<Line> {
        // An error would mean the same: the sender is dropped with the last half.
        _ = (&mut self.left).await;
        self.line.take().and_then(Arc::into_inner)
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.cut();
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            // The server's side may be gone already.
            _ = sender.send(());
        }
    }
}

impl Line {
    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.reader.wake();
        self.writer.wake();
    }

    /// Fails once the connection was cut; wakes `waker`'s task then.
    fn check(&self, waker: &AtomicWaker, cx: &Context<'_>) -> io::Result<()> {
        waker.register(cx.waker());
        match self.cut.load(Ordering::Acquire) {
            true => Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the destination's side cut the connection",
            )),
            false => Ok(()),
        }
    }

    /// Records the first failure, in the server's terms: the application is its upstream. A peer that got everything
    /// including the end and then reset is not a failure, as in any other copy.
    fn failed(&self, operation: Operation, error: &io::Error) {
        if operation == Operation::Read && self.told_the_end.load(Ordering::Relaxed) {
            return;
        }
        let source = io::Error::new(error.kind(), error.to_string());
        _ = self.failure.set(CopyError { side: Side::Upstream, operation, source });
    }
}

impl JoinedRead {
    fn seen<T>(
        &self,
        read: Poll<io::Result<T>>,
        bytes: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match &read {
            Poll::Ready(Ok(value)) => self.line.line.record.received(bytes(value)),
            Poll::Ready(Err(error)) => self.line.line.failed(Operation::Read, error),
            Poll::Pending => {}
        }
        read
    }

    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        self.line.line.check(&self.line.line.reader, cx)
    }
}

impl ChunkRead for JoinedRead {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, hint: usize) -> Poll<io::Result<Bytes>> {
        self.check(cx)?;
        let read = self.half.poll_chunk(cx, hint);
        self.seen(read, Bytes::len)
    }
}

impl JoinedWrite {
    fn seen<T>(
        &self,
        written: Poll<io::Result<T>>,
        bytes: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match &written {
            Poll::Ready(Ok(value)) => self.line.line.record.sent(bytes(value)),
            Poll::Ready(Err(error)) => self.line.line.failed(Operation::Write, error),
            Poll::Pending => {}
        }
        written
    }

    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        self.line.line.check(&self.line.line.writer, cx)
    }
}

impl ChunkWrite for JoinedWrite {
    fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = chunk.len();
        let written = self.half.poll_write_chunk(cx, chunk);
        let taken = before - chunk.len();
        self.seen(written, |()| taken)
    }

    fn poll_write_both(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut BytesMut,
        second: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = first.len() + second.len();
        let written = self.half.poll_write_both(cx, first, second);
        let taken = before - first.len() - second.len();
        self.seen(written, |()| taken)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.half.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let finished = self.half.poll_finish(cx);
        if finished.is_ready() {
            // A peer that has gone does not need the end: that is not a failure.
            self.line.line.told_the_end.store(true, Ordering::Relaxed);
        }
        finished
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self.check(cx) {
            Ok(()) => self.half.poll_broken(cx),
            Err(error) => Poll::Ready(error),
        }
    }
}

impl Duplex for JoinedStream {
    type Read = JoinedRead;
    type Write = JoinedWrite;

    fn halves(self) -> (JoinedRead, JoinedWrite) {
        (self.read, self.write)
    }
}

impl AsyncRead for JoinedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = &mut self.read;
        read.check(cx)?;
        let before = buf.filled().len();
        let done = Pin::new(&mut read.half).poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        read.seen(done, |()| bytes)
    }
}

impl AsyncWrite for JoinedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = &mut self.write;
        write.check(cx)?;
        let written = Pin::new(&mut write.half).poll_write(cx, buf);
        write.seen(written, |taken| *taken)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = &mut self.write;
        write.check(cx)?;
        let written = Pin::new(&mut write.half).poll_write_vectored(cx, bufs);
        write.seen(written, |taken| *taken)
    }

    fn is_write_vectored(&self) -> bool {
        self.write.half.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.poll_finish(cx)
    }
}
