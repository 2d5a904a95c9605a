//! What one HTTP/2 connection may hold of what its peer sent and nobody has read: its receive window, reserved as it can be
//! filled, and trailers.
//!
//! A peer can fill a window only in streams that are open and whose body has not been taken: an idle connection buffers
//! nothing, nor does a request without a body, which is what most are. So each request with a body reserves its stream's
//! window, until all of them have reserved the connection's, which is all that they can fill together. A request that
//! finds no room is answered 503, and h2 gives its part of the window back as its body is dropped unread. A connection to an
//! application does the same for each request on it, whose response may have a body.
//!
//! No window bounds trailers, which wait decoded behind the body. What the wire tells of them is reserved when they come,
//! unless they are small ([`request_units`](super::sizes::request_units)). Nothing tells when they are read, but no stream has
//! more than one head of them: so much is kept as the open streams can have, and nothing without any.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::sizes::{
    HTTP2_CONNECTION_WINDOW, HTTP2_STREAM_WINDOW, MOST_OF_A_HEAD, head_units, units,
};
use super::{Full, Kind, Share};

/// Streams whose windows fill the connection's.
const MOST: u32 = HTTP2_CONNECTION_WINDOW / HTTP2_STREAM_WINDOW;

/// The window of one connection.
#[derive(Default)]
pub(in crate::l7) struct Window {
    /// How many streams may be sending a body (the upper half), and for how many the window is reserved (the lower half).
    /// Invariant: the latter is the former, or [`MOST`] if that is less.
    streams: AtomicU64,
    /// Units reserved for trailers.
    trailers: AtomicUsize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    open: u32,
    reserved: u32,
}

impl State {
    fn of(bits: u64) -> Self {
        Self { open: (bits >> 32) as u32, reserved: bits as u32 }
    }

    fn bits(self) -> u64 {
        u64::from(self.open) << 32 | u64::from(self.reserved)
    }
}

impl Window {
    /// One more stream whose peer may send a body.
    pub(in crate::l7) fn enter(&self, share: &Share) -> Result<(), Full> {
        let mut spare = false;
        loop {
            let bits = self.streams.load(Ordering::Relaxed);
            let State { open, reserved } = State::of(bits);
            let lacks = reserved < MOST;
            if lacks && !spare {
                share.take(Kind::Bytes, stream())?;
                spare = true;
            }
            let next = State { open: open + 1, reserved: reserved + u32::from(lacks) }.bits();
            let swapped = self.streams.compare_exchange_weak(
                bits,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if swapped.is_ok() {
                if spare && !lacks {
                    share.give_back(Kind::Bytes, stream());
                }
                return Ok(());
            }
        }
    }

    /// A stream whose body has been taken, or given up.
    pub(in crate::l7) fn leave(&self, share: &Share) {
        let left = |bits| {
            let State { open, reserved } = State::of(bits);
            let open = open.saturating_sub(1);
            Some(State { open, reserved: reserved.min(open) }.bits())
        };
        let before = self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        let State { open, reserved } = State::of(before.unwrap_or_default());
        if reserved >= open && open > 0 {
            share.give_back(Kind::Bytes, stream());
        }
        self.trim(share, open.saturating_sub(1));
    }

    /// Streams whose peer may send a body.
    pub(in crate::l7) fn open(&self) -> usize {
        State::of(self.streams.load(Ordering::Relaxed)).open as usize
    }

    /// Trailers have come that take about so many bytes.
    pub(in crate::l7) fn trailers(&self, share: &Share, bytes: usize) -> Result<(), Full> {
        let units = head_units(bytes);
        if units > 0 {
            share.take(Kind::Bytes, units)?;
            self.trailers.fetch_add(units, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The connection has ended.
    pub(in crate::l7) fn close(&self, share: &Share) {
        self.trim(share, 0);
    }

    /// Gives back what is reserved for more trailers than so many streams can have.
    fn trim(&self, share: &Share, streams: u32) {
        if self.trailers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let most = streams as usize * units(MOST_OF_A_HEAD);
        let less = |held: usize| (held > most).then_some(most);
        let before = self.trailers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if let Ok(before) = before {
            share.give_back(Kind::Bytes, before - most);
        }
    }
}

/// What is reserved for one stream.
fn stream() -> usize {
    units(HTTP2_STREAM_WINDOW as usize)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::l7::WorkerSettings;
    use crate::l7::budget::client::Client;
    use crate::l7::budget::{Pool, Tenancy};
    use crate::telemetry::Telemetry;

    fn share(bytes: usize) -> Arc<Share> {
        let settings = WorkerSettings {
            max_buffered_bytes: bytes,
            tenant_share: 100,
            client_share: 100,
            ..WorkerSettings::for_tests()
        };
        let pool = Pool::new(&settings, Telemetry::without_log());
        let client = Client::new(None, [10, 0, 0, 1].into());
        Share::new(client, pool, Arc::<Tenancy>::default())
    }

    fn reserved(share: &Share) -> usize {
        share.pool().health().buffered_bytes
    }

    #[test]
    fn is_reserved_for_as_many_streams_as_can_fill_it() {
        let (share, window) = (share(1 << 30), Window::default());
        let stream = HTTP2_STREAM_WINDOW as usize;
        for (open, streams) in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (6, 4)] {
            window.enter(&share).unwrap();
            assert_eq!(reserved(&share), streams * stream, "{open} are open");
        }
        for (open, streams) in [(5, 4), (4, 4), (3, 3), (2, 2), (1, 1), (0, 0)] {
            window.leave(&share);
            assert_eq!(reserved(&share), streams * stream, "{open} are open");
        }
    }

    #[test]
    fn a_stream_without_room_is_not_let_in() {
        let stream = HTTP2_STREAM_WINDOW as usize;
        let (share, window) = (share(2 * stream), Window::default());
        assert!((0..2).all(|_| window.enter(&share).is_ok()));
        assert!(window.enter(&share).is_err());
        window.leave(&share);
        assert!(window.enter(&share).is_ok());
        (0..2).for_each(|_| window.leave(&share));
        assert_eq!(reserved(&share), 0);
    }

    #[test]
    fn is_exact_when_streams_come_and_go_at_once() {
        let (share, window) = (share(3 * HTTP2_STREAM_WINDOW as usize), Window::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if window.enter(&share).is_ok() {
                            window.leave(&share);
                        }
                    }
                });
            }
        });
        assert_eq!(reserved(&share), 0);
        assert_eq!(State::of(window.streams.into_inner()), State { open: 0, reserved: 0 });
    }

    #[test]
    fn trailers_are_reserved_as_far_as_the_open_streams_can_have_them() {
        let (share, window) = (share(1 << 30), Window::default());
        let most = units(MOST_OF_A_HEAD) << 10;
        let windows = |streams: usize| streams * HTTP2_STREAM_WINDOW as usize;
        for _ in 0..3 {
            window.enter(&share).unwrap();
            window.trailers(&share, MOST_OF_A_HEAD).unwrap();
        }
        window.trailers(&share, 100).unwrap();
        assert_eq!(reserved(&share), windows(3) + 3 * most, "small ones are reserved already");
        window.leave(&share);
        assert_eq!(reserved(&share), windows(2) + 2 * most);
        window.leave(&share);
        window.leave(&share);
        assert_eq!(reserved(&share), 0);
        window.trailers(&share, MOST_OF_A_HEAD).unwrap();
        window.close(&share);
        assert_eq!(reserved(&share), 0, "of a stream that was refused");
    }

    #[test]
    fn trailers_that_find_no_room_are_refused() {
        let (share, window) = (share(3 * MOST_OF_A_HEAD), Window::default());
        let taken = (0..10).take_while(|_| window.trailers(&share, MOST_OF_A_HEAD).is_ok()).count();
        assert!((2..4).contains(&taken), "{taken}");
    }
}
