//! A connection's bytes over HTTP/2, watched for heads that do not come to their end, and for what heads take.
//!
//! hyper has no clock for them. Here the worker is told when a head begins: with a frame that opens one, or that is not DATA,
//! until it is complete. What is told costs an atomic value at most, and
//! the worker's rounds do the rest.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::library_answers::{Streams, Written};
use crate::l7::budget::buffers::Buffers;
use crate::l7::budget::seat::{Order, Seat};
use crate::l7::budget::turn::Turn;
use crate::l7::budget::{Full, Reserved, Share};
use crate::sock::Rewind;
use crate::tunnel::{Carrier, Counted, Exceeded, PREFACE};

/// How much of an HTTP/2 connection is read before its streams get their turn, in bytes: what they refuse is given up
/// before more comes, so this is what can be read without a reservation.
const BURST: usize = 64 * 1024;

/// A connection of HTTP/2, whose frames are counted.
pub(in crate::l7) struct Http2 {
    io: Counted<Rewind<Carrier>>,
    seat: Arc<Seat>,
    turn: Turn,
    partial: Partial,
    /// Read since the last time that others got their turn.
    burst: usize,
    /// The client takes nothing now, so hyper may leave frames where they are.
    blocked: bool,
    streams: Streams,
    written: Written,
}

/// A connection of HTTP/2 to an application, whose frames are counted.
pub(in crate::l7) struct Application {
    io: Counted<Carrier>,
    buffers: Arc<Buffers>,
    turn: Turn,
    partial: Partial,
    settings: Settings,
}

/// The first that an application sends are its SETTINGS, which h2 has taken in when it reads on.
enum Settings {
    Awaited(Arc<Notify>),
    Read(Arc<Notify>),
    Taken,
}

/// What a head takes that has come in part, which is rare: usual ones fit into a frame.
#[derive(Default)]
struct Partial(Option<Reserved>);

impl Http2 {
    pub(in crate::l7) fn new(io: Rewind<Carrier>, seat: Arc<Seat>) -> (Self, Exceeded, Streams) {
        let (io, exceeded) = Counted::new(io, PREFACE);
        seat.speaks_http2();
        let turn = Turn::new(seat.share().pool().unseen().clone());
        let streams = Streams::default();
        let (partial, written, told) = (Partial::default(), Written::default(), streams.clone());
        let (burst, blocked) = (0, false);
        let watched = Self { io, seat, turn, partial, burst, blocked, streams: told, written };
        (watched, exceeded, streams)
    }

    /// Once nothing more can be read.
    fn note_streams(&self) {
        let whole = !self.io.is_within_head();
        let seen = whole && !self.blocked;
        let last = whole.then(|| self.io.last_stream());
        self.streams.note(seen.then(|| self.io.streams()), last);
    }
}

impl Application {
    /// With what happens when it sends too much that carries nothing, and when h2 has taken in its SETTINGS.
    pub(in crate::l7) fn new(io: Carrier, buffers: Arc<Buffers>) -> (Self, Exceeded, Arc<Notify>) {
        let (io, exceeded) = Counted::new(io, 0);
        let turn = Turn::new(buffers.share().pool().unseen().clone());
        let taken = Arc::new(Notify::new());
        let (partial, settings) = (Partial::default(), Settings::Awaited(taken.clone()));
        (Self { io, buffers, turn, partial, settings }, exceeded, taken)
    }
}

impl Settings {
    fn came(&mut self) {
        if let Self::Awaited(notify) = self {
            *self = Self::Read(notify.clone());
        }
    }

    fn taken(&mut self) {
        if let Self::Read(notify) = self {
            notify.notify_one();
            *self = Self::Taken;
        }
    }
}

impl Partial {
    fn note<S>(&mut self, io: &Counted<S>, share: &Arc<Share>) -> Result<(), Full> {
        match (io.is_between_frames_of_head(), &self.0) {
            (true, None) => self.0 = Some(share.partial_head()?),
            (false, Some(_)) => self.0 = None,
            _ => {}
        }
        Ok(())
    }
}

impl AsyncRead for Http2 {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.burst >= BURST || !this.turn.may_read(this.io.fields()) {
            this.burst = 0;
            this.turn.end(this.io.fields());
            cx.waker().wake_by_ref();
            this.note_streams();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf)?;
        if read.is_pending() {
            this.burst = 0;
            this.turn.end(this.io.fields());
            this.note_streams();
            return Poll::Pending;
        }
        this.burst += buf.filled().len() - before;
        let reserved = this.partial.note(&this.io, this.seat.share());
        if reserved.and_then(|()| this.seat.trailers(this.io.last_heads())).is_err() {
            this.seat.tell(Order::End);
        }
        match this.io.is_within_head() {
            true => this.seat.head_begins(),
            false => this.seat.head_ended(),
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Application {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.settings.taken();
        if !this.turn.may_read(this.io.fields()) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if Pin::new(&mut this.io).poll_read(cx, buf)?.is_pending() {
            this.turn.end(this.io.fields());
            return Poll::Pending;
        }
        this.settings.came();
        let share = this.buffers.share();
        let reserved = this.partial.note(&this.io, share);
        let reserved = reserved.and_then(|()| this.buffers.trailers(this.io.last_heads()));
        reserved.map_err(|full| io::Error::other(share.why(full)))?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2 {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        this.blocked = written.is_pending();
        if let Poll::Ready(Ok(written)) = written {
            this.written.note(&buf[..written], &this.streams);
        }
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.blocked = written.is_pending();
        if let Poll::Ready(Ok(mut left)) = written {
            for buf in bufs {
                let part = &buf[..buf.len().min(left)];
                left -= part.len();
                this.written.note(part, &this.streams);
            }
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl AsyncWrite for Application {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
