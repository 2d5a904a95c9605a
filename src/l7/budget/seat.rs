//! One downstream connection as the worker's budgets see it: whose it is, how many requests are in flight, since when it
//! rests or takes to send a head, and what it was told.
//!
//! Everything here is an atomic value that the connection's own tasks change and the worker's rounds read
//! ([`seats`](super::seats)): a request takes no lock. Times are in seconds of the worker's clock.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::window::Window;
use super::{Full, Kind, Reserved, Share, sizes};
use crate::l7::version::Version;

/// No head is on its way.
const NO_HEAD: u32 = u32::MAX;

/// A downstream connection.
pub(in crate::l7) struct Seat {
    share: Arc<Share>,
    /// Requests in flight, upgraded connections and bytes that are no HTTP included.
    busy: AtomicU32,
    /// When it became idle, while it is.
    idle_since: AtomicU32,
    /// When a head began that has not come to its end, or [`NO_HEAD`].
    head_since: AtomicU32,
    window: Window,
    /// It speaks HTTP/2.
    has_frames: AtomicBool,
    order: AtomicU8,
    ordered_at: AtomicU32,
    waker: Mutex<Option<Waker>>,
    /// Where it stands in the lines of [`seats`](super::seats).
    pub(in crate::l7) places: [AtomicUsize; 2],
}

/// What a connection is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(in crate::l7) enum Order {
    Stay,
    /// End after what is in flight, and take nothing more.
    Leave,
    /// End now.
    End,
}

/// The place of one request in flight.
pub(in crate::l7) struct RequestPermit {
    seat: Arc<Seat>,
    version: Version,
    units: usize,
}

/// A request's body that has not come to its end, and over HTTP/2 may be waiting in the connection's receive window.
pub(in crate::l7) struct Receiving(Arc<Seat>);

/// A connection that carries bytes, and so is never idle.
pub(in crate::l7) struct Busy(Arc<Seat>);

impl Seat {
    pub(in crate::l7) fn new(share: Arc<Share>) -> Self {
        let now = share.pool().clock();
        Self {
            share,
            busy: AtomicU32::new(0),
            idle_since: AtomicU32::new(now),
            head_since: AtomicU32::new(NO_HEAD),
            window: Window::default(),
            has_frames: AtomicBool::new(false),
            order: AtomicU8::new(Order::Stay as u8),
            ordered_at: AtomicU32::new(now),
            waker: Mutex::default(),
            places: [AtomicUsize::new(usize::MAX), AtomicUsize::new(usize::MAX)],
        }
    }

    pub(in crate::l7) fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// A place for one more request, with a head of this size, in bytes.
    pub(in crate::l7) fn request(
        self: &Arc<Self>,
        version: Version,
        head: usize,
    ) -> Result<RequestPermit, Full> {
        if version == Version::Http1 {
            // Over HTTP/2 another may have begun already; whoever reads the frames knows.
            self.head_ended();
        }
        let units = sizes::request_units(version, head);
        if units > 0 {
            self.share.take(Kind::Bytes, units)?;
        }
        if let Err(full) = self.share.take(Kind::Requests, 1) {
            self.share.give_back(Kind::Bytes, units);
            return Err(full);
        }
        self.begin();
        Ok(RequestPermit { seat: self.clone(), version, units })
    }

    /// It speaks HTTP/2 from here on.
    pub(in crate::l7) fn speaks_http2(&self) {
        self.has_frames.store(true, Ordering::Relaxed);
    }

    /// A place for the answer to a request that was refused. A client that takes none of so many answers loses its connection.
    pub(in crate::l7) fn refuse(&self) -> Option<Reserved> {
        let place = self.share.reserve(Kind::Refused, 1).ok();
        if place.is_none() {
            self.tell(Order::End);
        }
        place
    }

    /// Room for a request's body, as far as the client may send it before it is taken.
    pub(in crate::l7) fn receive(self: &Arc<Self>) -> Result<Receiving, Full> {
        // Over HTTP/1 it waits in the connection's read buffer, or in the kernel.
        if self.has_frames.load(Ordering::Relaxed) {
            self.window.enter(&self.share)?;
        }
        Ok(Receiving(self.clone()))
    }

    /// Trailers have come over HTTP/2 that take about so many bytes.
    pub(in crate::l7) fn trailers(&self, bytes: usize) -> Result<(), Full> {
        self.window.trailers(&self.share, bytes)
    }

    /// From here on it carries bytes.
    pub(in crate::l7) fn carries_bytes(self: &Arc<Self>) -> Busy {
        self.head_ended();
        self.begin();
        Busy(self.clone())
    }

    /// A head must come now.
    pub(in crate::l7) fn head_begins(&self) {
        let now = self.share.pool().clock();
        _ = self.head_since.compare_exchange(NO_HEAD, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// No head is on its way.
    pub(in crate::l7) fn head_ended(&self) {
        if self.head_since.load(Ordering::Relaxed) != NO_HEAD {
            self.head_since.store(NO_HEAD, Ordering::Relaxed);
        }
    }

    pub(in crate::l7) fn is_idle(&self) -> bool {
        self.busy.load(Ordering::Acquire) == 0
    }

    /// For how long it has been without a request, when it is.
    pub(in crate::l7) fn idle_for(&self, now: u32) -> Option<u32> {
        self.is_idle().then(|| now.saturating_sub(self.idle_since.load(Ordering::Relaxed)))
    }

    /// For how long a head has been on its way, when one is.
    pub(in crate::l7) fn head_for(&self, now: u32) -> Option<u32> {
        let since = self.head_since.load(Ordering::Relaxed);
        (since != NO_HEAD).then(|| now.saturating_sub(since))
    }

    /// What it was told last, and for how long it has known.
    pub(in crate::l7) fn order(&self, now: u32) -> (Order, u32) {
        let order = match self.order.load(Ordering::Acquire) {
            0 => Order::Stay,
            1 => Order::Leave,
            _ => Order::End,
        };
        (order, now.saturating_sub(self.ordered_at.load(Ordering::Relaxed)))
    }

    /// Tells it what to do; an order is never taken back.
    pub(in crate::l7) fn tell(&self, order: Order) {
        if self.order.fetch_max(order as u8, Ordering::AcqRel) < order as u8 {
            self.ordered_at.store(self.share.pool().clock(), Ordering::Relaxed);
            if let Some(waker) = &*self.waker.lock() {
                waker.wake_by_ref();
            }
        }
    }

    /// Waits until it is told this, or more. One task at a time waits.
    pub(in crate::l7) async fn told(&self, order: Order) {
        let mut known: Option<Waker> = None;
        poll_fn(|cx| self.poll_told(order, &mut known, cx)).await;
    }

    /// `known`: who is woken already, so that a lock is taken for the first poll only.
    fn poll_told(&self, order: Order, known: &mut Option<Waker>, cx: &mut Context<'_>) -> Poll<()> {
        let is_told = || self.order.load(Ordering::Acquire) >= order as u8;
        if !is_told() && !known.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *known = Some(cx.waker().clone());
            *self.waker.lock() = known.clone();
        }
        // It may have been told meanwhile.
        if is_told() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn begin(&self) {
        self.busy.fetch_add(1, Ordering::AcqRel);
    }

    fn end(&self) {
        self.idle_since.store(self.share.pool().clock(), Ordering::Relaxed);
        self.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        let share = &self.seat.share;
        share.give_back(Kind::Requests, 1);
        if self.units > 0 {
            share.give_back(Kind::Bytes, self.units);
        }
        self.seat.end();
    }
}

impl RequestPermit {
    /// Reserves what a head of the response, or its trailers, take besides, in bytes.
    pub(in crate::l7) fn grow(&mut self, head: usize) -> Result<(), Full> {
        let units = sizes::head_units(head);
        if units > 0 {
            self.seat.share.take(Kind::Bytes, units)?;
            self.units += units;
        }
        Ok(())
    }

    /// Over HTTP/2 what was answered waits frame by frame; over HTTP/1 in the connection's own buffer.
    pub(in crate::l7) fn waits_in_frames(&self) -> bool {
        self.version == Version::Http2
    }

    pub(in crate::l7) fn share(&self) -> &Share {
        &self.seat.share
    }
}

impl Receiving {
    /// What trailers of this size take on their way up, in bytes; `None` where that is reserved already.
    pub(in crate::l7) fn trailers(&self, bytes: usize) -> Result<Option<Reserved>, Full> {
        let units = sizes::head_units(bytes);
        let reserve = || self.0.share.reserve(Kind::Bytes, units);
        (units > 0).then(reserve).transpose()
    }

    pub(in crate::l7) fn why(&self, full: Full) -> String {
        self.0.share.why(full)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if self.0.has_frames.load(Ordering::Relaxed) {
            self.0.window.leave(&self.0.share);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.window.close(&self.share);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end();
    }
}
