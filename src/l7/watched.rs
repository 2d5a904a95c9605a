//! A connection's bytes, watched for heads that do not come to their end, and for what heads take.
//!
//! hyper has one clock for the head of an HTTP/1 request and for the time between two requests, and none for HTTP/2. Here
//! the worker is told when a head begins: over HTTP/1 with the first byte while no request is in flight, over HTTP/2
//! with a frame that opens one, or that is not DATA, until it is complete. What is told costs an atomic value at most, and
//! the worker's rounds do the rest.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::budget::{Full, Reserved, Share};
use super::seat::{Order, Seat};
use super::turn::Turn;
use super::upstream::Buffers;
use crate::sock::Rewind;
use crate::tunnel::{Carrier, Counted, Exceeded, PREFACE};

/// How much of an HTTP/2 connection is read before its streams get their turn, in bytes: what they refuse is given up
/// before more comes, so this is what can be read without a reservation.
const BURST: usize = 64 * 1024;

/// A connection of HTTP/1.
pub(super) struct Http1 {
    io: Rewind<Carrier>,
    seat: Arc<Seat>,
}

/// A connection of HTTP/2, whose frames are counted.
pub(super) struct Http2 {
    io: Counted<Rewind<Carrier>>,
    seat: Arc<Seat>,
    turn: Turn,
    partial: Partial,
    /// Read since the last time that others got their turn.
    burst: usize,
}

/// A connection of HTTP/2 to an application, whose frames are counted.
pub(super) struct Application {
    io: Counted<Carrier>,
    buffers: Arc<Buffers>,
    turn: Turn,
    partial: Partial,
}

/// What a head takes that has come in part, which is rare: usual ones fit into a frame.
#[derive(Default)]
struct Partial(Option<Reserved>);

impl Http1 {
    pub(super) fn new(io: Rewind<Carrier>, seat: Arc<Seat>) -> Self {
        Self { io, seat }
    }

    pub(super) fn into_inner(self) -> Rewind<Carrier> {
        self.io
    }
}

impl Http2 {
    pub(super) fn new(io: Rewind<Carrier>, seat: Arc<Seat>) -> (Self, Exceeded) {
        let (io, exceeded) = Counted::new(io, PREFACE);
        seat.speaks_http2();
        let turn = Turn::new(seat.share().pool().clone());
        (Self { io, seat, turn, partial: Partial::default(), burst: 0 }, exceeded)
    }
}

impl Application {
    pub(super) fn new(io: Carrier, buffers: Arc<Buffers>) -> (Self, Exceeded) {
        let (io, exceeded) = Counted::new(io, 0);
        let turn = Turn::new(buffers.share().pool().clone());
        (Self { io, buffers, turn, partial: Partial::default() }, exceeded)
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

impl AsyncRead for Http1 {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        if buf.filled().len() > before && this.seat.is_idle() {
            this.seat.head_begins();
        }
        Poll::Ready(Ok(()))
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
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf)?;
        if read.is_pending() {
            this.burst = 0;
            this.turn.end(this.io.fields());
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
        if !this.turn.may_read(this.io.fields()) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if Pin::new(&mut this.io).poll_read(cx, buf)?.is_pending() {
            this.turn.end(this.io.fields());
            return Poll::Pending;
        }
        let share = this.buffers.share();
        let reserved = this.partial.note(&this.io, share);
        let reserved = reserved.and_then(|()| this.buffers.trailers(this.io.last_heads()));
        reserved.map_err(|full| io::Error::other(share.why(full)))?;
        Poll::Ready(Ok(()))
    }
}

/// Writes as the connection inside does.
macro_rules! write_through {
    ($($kind:ty),*) => {$(
        impl AsyncWrite for $kind {
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
    )*};
}

write_through!(Http1, Http2, Application);
