//! Bytes from socket to socket without a visit to this process: splice(2) through a pipe.

use std::io::{self, PipeReader, PipeWriter};
use std::task::{Context, Poll, ready};

use nix::fcntl::{SpliceFFlags, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// How much one call moves at most: what a pipe of Linux's default size holds.
const PIPE_SIZE: usize = 64 * 1024;

/// A pipe and what is in it.
pub(super) struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
    filled: usize,
}

impl Pipe {
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader, writer, filled: 0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Fills the empty pipe; 0 at the end of the stream. The pipe must be empty: then "would block" can only mean
    /// the socket.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(from.poll_read_ready(cx))?;
            let moved = from.try_io(Interest::READABLE, || {
                let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
                Ok(splice(from, None, &self.writer, None, PIPE_SIZE, flags)?)
            });
            match moved {
                Err(error) if is_transient(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(moved) => {
                    self.filled = moved;
                    return Poll::Ready(Ok(moved));
                }
            }
        }
    }

    /// Writes some of what the pipe holds.
    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(to.poll_write_ready(cx))?;
            let moved = to.try_io(Interest::WRITABLE, || {
                let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
                Ok(splice(&self.reader, None, to, None, self.filled, flags)?)
            });
            match moved {
                Err(error) if is_transient(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(moved) => {
                    self.filled -= moved;
                    return Poll::Ready(Ok(moved));
                }
            }
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
