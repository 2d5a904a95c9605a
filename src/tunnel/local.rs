//! A stream between two workloads of one node, inside the process: the counterpart of a tunnel's stream between nodes.
//! It leads to a worker that authorizes each request; `joined` is for a direct connection to the application.
//!
//! Chunks are passed on as they are; nothing is copied or encrypted. It ends like a stream of a tunnel: a direction
//! that is finished ends, one that is dropped before that is reset. Each direction holds at most [`WINDOW`] bytes and
//! one chunk more, which are reserved from the client's budget ([`waiting`](super::waiting)).

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::waiting::{Part, Waiting};
use crate::base::Room;
use crate::sock::{ChunkRead, ChunkWrite, Duplex};

/// The bytes that a direction may hold before its writer waits: one large chunk of the copy loop in transit while the
/// next one is read.
const WINDOW: usize = 256 * 1024;

/// One end of a connection between two workloads of this node.
pub struct LocalStream {
    read: LocalRead,
    write: LocalWrite,
}

/// The receiving half.
pub struct LocalRead {
    pipe: Arc<Pipe>,
    /// Received, and not yet consumed by a reader that takes less than a chunk.
    buffered: Bytes,
}

/// The sending half. If it is dropped before its end was sent, it resets the direction.
pub struct LocalWrite {
    pipe: Arc<Pipe>,
    /// The other direction: whether its writer has finished tells how this one's reader ended.
    opposite: Arc<Pipe>,
}

/// One direction. The lock is held for some nanoseconds per chunk, by its two ends only.
struct Pipe {
    state: Mutex<State>,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Part>,
    bytes: usize,
    end: End,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Finished,
    Reset,
}

impl LocalStream {
    /// The two ends of a new connection. `room`: the budget for bytes that wait between them.
    pub fn pair(room: &Room) -> (Self, Self) {
        let pipe =
            || Arc::new(Pipe { state: Mutex::default(), waiting: Waiting::new(room.clone()) });
        let (there, back) = (pipe(), pipe());
        let end = |reads: &Arc<Pipe>, writes: &Arc<Pipe>| Self {
            read: LocalRead { pipe: reads.clone(), buffered: Bytes::new() },
            write: LocalWrite { pipe: writes.clone(), opposite: reads.clone() },
        };
        (end(&back, &there), end(&there, &back))
    }
}

impl Duplex for LocalStream {
    type Read = LocalRead;
    type Write = LocalWrite;

    fn halves(self) -> (LocalRead, LocalWrite) {
        (self.read, self.write)
    }
}

impl LocalRead {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut state = self.pipe.state.lock();
        if let Some(chunk) = state.chunks.pop_front() {
            state.bytes -= chunk.remaining();
            let writer = if state.bytes < WINDOW { state.writer.take() } else { None };
            drop(state);
            wake(writer);
            return Poll::Ready(Ok(chunk.into_bytes()));
        }
        match state.end {
            End::Finished => Poll::Ready(Ok(Bytes::new())),
            End::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            End::Open => {
                remember(&mut state.reader, cx);
                Poll::Pending
            }
        }
    }
}

impl ChunkRead for LocalRead {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, _hint: usize) -> Poll<io::Result<Bytes>> {
        if !self.buffered.is_empty() {
            return Poll::Ready(Ok(std::mem::take(&mut self.buffered)));
        }
        self.poll_data(cx)
    }
}

impl Drop for LocalRead {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.reader_gone = true;
        let chunks = std::mem::take(&mut state.chunks);
        let writer = state.writer.take();
        drop(state);
        drop(chunks);
        wake(writer);
    }
}

impl LocalWrite {
    /// Ready with the error once there is no reader.
    fn gone(&self) -> io::Error {
        match self.opposite.state.lock().end {
            // The peer had sent everything and reads no more: like a closed pipe.
            End::Finished => io::ErrorKind::BrokenPipe.into(),
            End::Open | End::Reset => io::ErrorKind::ConnectionReset.into(),
        }
    }

    fn end(&self, end: End) {
        let mut state = self.pipe.state.lock();
        if state.end == End::Open {
            state.end = end;
        }
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }
}

impl ChunkWrite for LocalWrite {
    fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        if chunk.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.pipe.state.lock();
        if state.reader_gone {
            drop(state);
            return Poll::Ready(Err(self.gone()));
        }
        if state.end != End::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.bytes >= WINDOW {
            remember(&mut state.writer, cx);
            return Poll::Pending;
        }
        let waiting = &self.pipe.waiting;
        let leave = ready!(waiting.poll_leave(cx, chunk.len()));
        let part = chunk.split_to(leave.bytes);
        if chunk.is_empty() {
            // An empty part of a chunk would hold all of it.
            *chunk = Bytes::new();
        }
        state.bytes += part.len();
        state.chunks.push_back(waiting.part(part, leave));
        let reader = state.reader.take();
        drop(state);
        wake(reader);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end(End::Finished);
        Poll::Ready(Ok(()))
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut state = self.pipe.state.lock();
        if state.reader_gone {
            drop(state);
            return Poll::Ready(self.gone());
        }
        remember(&mut state.writer, cx);
        Poll::Pending
    }
}

impl Drop for LocalWrite {
    fn drop(&mut self) {
        self.end(End::Reset);
    }
}

impl AsyncRead for LocalStream {
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
            // An empty part of a chunk would hold all of it.
            read.buffered = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let length = buf.len().min(WINDOW);
        let mut chunk = Bytes::copy_from_slice(&buf[..length]);
        ready!(self.write.poll_write_chunk(cx, &mut chunk))?;
        Poll::Ready(Ok(length - chunk.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.poll_finish(cx)
    }
}

fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_and_ends_arrive_in_both_directions() {
        let (mut client, mut server) = LocalStream::pair(&Room::boundless());
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        server.write_all(b"answer after the question's end").await.unwrap();
        server.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer after the question's end");
    }

    #[tokio::test]
    async fn a_writer_waits_for_its_reader() {
        let (mut client, mut server) = LocalStream::pair(&Room::boundless());
        let sent = vec![7; 5 * WINDOW + 3];
        let writing = tokio::spawn({
            let sent = sent.clone();
            async move {
                client.write_all(&sent).await.unwrap();
                client.shutdown().await.unwrap();
                client
            }
        });
        tokio::task::yield_now().await;
        assert!(!writing.is_finished());
        assert!(server.read.pipe.state.lock().bytes <= 2 * WINDOW);
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, sent);
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn an_end_that_is_dropped_is_a_reset() {
        let (mut client, server) = LocalStream::pair(&Room::boundless());
        drop(server);
        let read = client.read_u8().await.unwrap_err();
        assert_eq!(read.kind(), io::ErrorKind::ConnectionReset);
        let write = client.write_all(b"x").await.unwrap_err();
        assert_eq!(write.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn who_answered_early_and_left_closed_a_pipe() {
        let (mut client, mut server) = LocalStream::pair(&Room::boundless());
        client.write_all(b"a long upload").await.unwrap();
        server.write_all(b"no").await.unwrap();
        server.shutdown().await.unwrap();
        drop(server);
        let write = client.write_all(b"more").await.unwrap_err();
        assert_eq!(write.kind(), io::ErrorKind::BrokenPipe);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "no");
    }

    #[tokio::test]
    async fn a_reader_that_leaves_wakes_who_waits_to_write() {
        let (client, server) = LocalStream::pair(&Room::boundless());
        let (_read, mut write) = client.halves();
        let broken =
            tokio::spawn(
                async move { std::future::poll_fn(|cx| write.poll_broken(cx)).await.kind() },
            );
        tokio::task::yield_now().await;
        drop(server);
        assert_eq!(broken.await.unwrap(), io::ErrorKind::ConnectionReset);
    }
}
