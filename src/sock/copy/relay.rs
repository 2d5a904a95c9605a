//! One direction of a copy.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::coop;

use super::{ChunkRead, ChunkWrite, Operation};
use crate::base::{Held, Need, Room};

/// The buffer of a connection that has carried little: most requests fit, and most connections stay small.
const SMALL_BUFFER: usize = 1024;
/// After [`MEDIUM_AFTER`] bytes, and the maximum if memory is not bounded. 64 less than a round size, so that the head
/// of a frame and the allocator's own bytes still fit the size class (ztunnel).
const MEDIUM_BUFFER: usize = 16 * 1024 - 64;
const MEDIUM_AFTER: u64 = 128 * 1024;
/// After [`LARGE_AFTER`] bytes: a bulk transfer, where each system call should carry much.
const LARGE_BUFFER: usize = 256 * 1024 - 64;
const LARGE_AFTER: u64 = 10 * 1024 * 1024;

/// From one reader to one writer.
pub(super) struct Relay<R, W> {
    reader: R,
    writer: W,
    /// Read and not yet written.
    pending: Bytes,
    /// Bytes written so far.
    moved: u64,
    state: State,
    /// Written since the last flush.
    unflushed: bool,
    /// The budget that a chunk larger than [`SMALL_BUFFER`] reserves while there is something to copy.
    held: Option<Held>,
}

/// What one direction knows about the peer of the other one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Outlook {
    /// The side that this direction writes to will send nothing more: only a write, or [`ChunkWrite::poll_broken`], can
    /// detect that it has gone.
    peer_ended: bool,
    /// The side that this direction reads from failed a write: its end of bytes is not a regular end.
    peer_lost: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Copying,
    /// The end was read and is being forwarded.
    Finishing,
    /// The end was read and forwarded.
    Finished,
    /// Reset; `lost` if the writer's peer reset the connection.
    Broken {
        lost: bool,
    },
}

type Failure = (Operation, io::Error);

impl<R: ChunkRead, W: ChunkWrite> Relay<R, W> {
    pub(super) fn new(reader: R, writer: W) -> Self {
        Self {
            reader,
            writer,
            pending: Bytes::new(),
            moved: 0,
            state: State::Copying,
            unflushed: false,
            held: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Finished | State::Broken { .. })
    }

    pub(super) fn has_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// What this direction tells the other one.
    pub(super) fn outlook(&self) -> Outlook {
        Outlook {
            peer_ended: matches!(self.state, State::Finishing | State::Finished),
            peer_lost: self.state == State::Broken { lost: true },
        }
    }

    /// Moves what can be moved; ready once, when the end was forwarded or with the failure.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        other: Outlook,
        room: Option<&Room>,
        observe: impl Fn(usize),
    ) -> Poll<Result<(), Failure>> {
        if self.is_over() {
            return Poll::Ready(Ok(()));
        }
        let result = self.poll_copy(cx, other, room, observe);
        if self.pending.is_empty() {
            // If the writer is blocked, the chunk stays here.
            self.held = None;
        }
        let result = ready!(result);
        if let Err((operation, error)) = &result {
            // After an orderly end of the peer Linux returns EPIPE, after a reset ECONNRESET.
            let lost = *operation == Operation::Write && error.kind() != io::ErrorKind::BrokenPipe;
            self.state = State::Broken { lost };
            self.pending = Bytes::new();
        }
        Poll::Ready(result)
    }

    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        other: Outlook,
        room: Option<&Room>,
        observe: impl Fn(usize),
    ) -> Poll<Result<(), Failure>> {
        while self.state == State::Copying {
            if self.pending.is_empty() {
                let size = self.chunk_size(room);
                match self.reader.poll_chunk(cx, size).map_err(reading)? {
                    Poll::Ready(chunk) if chunk.is_empty() => self.state = State::Finishing,
                    Poll::Ready(chunk) => self.pending = chunk,
                    Poll::Pending => return self.poll_idle(cx, other),
                }
            } else {
                ready!(self.poll_write(cx, &observe))?;
                // A reader with much in memory must not keep the thread from other connections.
                ready!(coop::poll_proceed(cx)).made_progress();
            }
        }
        if other.peer_lost {
            self.state = State::Broken { lost: false };
            return Poll::Ready(Ok(()));
        }
        match ready!(self.writer.poll_finish(cx)) {
            Err(error) if !is_gone(&error) => return Poll::Ready(Err(writing(error))),
            // A peer that has gone does not need the end.
            _ => self.state = State::Finished,
        }
        Poll::Ready(Ok(()))
    }

    /// How much to read next: what fits the transfer, or a little if there is no room for that.
    fn chunk_size(&mut self, room: Option<&Room>) -> usize {
        let size = buffer_size(self.moved);
        // In a waypoint's worker, where the number of connections is the bound.
        let Some(room) = room else { return size.min(MEDIUM_BUFFER) };
        if size <= SMALL_BUFFER {
            return size;
        }
        if self.held.as_ref().is_none_or(|held| held.bytes() < size) {
            // Release the reservation for smaller chunks first.
            self.held = None;
            self.held = room.take(size, Need::Growth);
        }
        if self.held.is_some() { size } else { SMALL_BUFFER }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        observe: impl Fn(usize),
    ) -> Poll<Result<(), Failure>> {
        let before = self.pending.len();
        ready!(self.writer.poll_write_chunk(cx, &mut self.pending)).map_err(writing)?;
        let written = before - self.pending.len();
        if self.pending.is_empty() {
            // An empty part of a buffer would hold all of it.
            self.pending = Bytes::new();
        }
        self.moved += written as u64;
        self.unflushed = true;
        observe(written);
        Poll::Ready(Ok(()))
    }

    /// Nothing to read: flushes, and checks whether the peer can still be written to.
    fn poll_idle(&mut self, cx: &mut Context<'_>, other: Outlook) -> Poll<Result<(), Failure>> {
        if self.unflushed && self.writer.poll_flush(cx).map_err(writing)?.is_ready() {
            self.unflushed = false;
        }
        if other.peer_ended
            && let Poll::Ready(error) = self.writer.poll_broken(cx)
        {
            return Poll::Ready(Err(writing(error)));
        }
        Poll::Pending
    }
}

fn buffer_size(moved: u64) -> usize {
    match moved {
        LARGE_AFTER.. => LARGE_BUFFER,
        MEDIUM_AFTER.. => MEDIUM_BUFFER,
        _ => SMALL_BUFFER,
    }
}

fn reading(error: io::Error) -> Failure {
    (Operation::Read, error)
}

fn writing(error: io::Error) -> Failure {
    (Operation::Write, error)
}

/// The peer closed before it got the end.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotConnected | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_grow_with_the_transfer() {
        assert_eq!(buffer_size(0), 1024);
        assert_eq!(buffer_size(MEDIUM_AFTER - 1), 1024);
        assert_eq!(buffer_size(MEDIUM_AFTER), 16_320);
        assert_eq!(buffer_size(LARGE_AFTER), 262_080);
        assert_eq!(buffer_size(u64::MAX), 262_080);
    }
}
