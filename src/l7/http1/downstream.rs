//! What is said between a client's connection of HTTP/1 and the request that is in flight on it, besides the request and its response:
//!
//! - An application's informational responses (RFC 9110, 15.2), and that a client is asked for its body (`100 Continue`).
//! - The end of the client's direction. The client may have gone, or only has nothing more to say (`printf ... | nc`). TCP does not
//!   tell them apart, so the end is passed on, and the application decides as it would without a mesh: most take it for a client
//!   that left, and cancel what they do for it. A connection that is reset is an error of reading.
//! - The receiving half, which a request with a body has taken along.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{BufMut, BytesMut};
use futures_util::task::AtomicWaker;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use super::names;
use super::reader::Reader;

/// What may wait to be written, in bytes: room for some sets of links. An application that sends more at once than its
/// client takes is heard in part.
const MOST: usize = 16 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// One downstream connection of HTTP/1, as its requests know it. A request that is told nothing takes no lock.
#[derive(Clone, Default)]
pub(in crate::l7) struct Downstream(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// The client may be told something before the response: not over HTTP/1.0.
    is_informed: AtomicBool,
    /// Something waits to be written.
    waits: AtomicBool,
    told: Mutex<BytesMut>,
    /// The attempt whose application may tell something.
    attempt: AtomicU64,
    /// The client sends nothing more, and has sent a whole request.
    has_left: AtomicBool,
    /// There is nobody to answer.
    is_given_up: AtomicBool,
    /// The connection has ended, and with it the request, wherever its body is read.
    has_ended: AtomicBool,
    returned: Mutex<Option<Returned>>,
    /// The task that serves the connection.
    server: AtomicWaker,
    /// Whoever passes the end on.
    waiter: AtomicWaker,
    /// Whoever reads the body.
    reader: AtomicWaker,
}

/// The receiving half after a body.
pub(super) struct Returned {
    /// `None`: it is of no use any more.
    pub(super) reader: Option<Box<Reader>>,
    /// The body's rest, where it was not read to its end.
    pub(super) rest: Option<super::decode::Decoder>,
}

/// One attempt of a request, whose application may have something to say before its response.
#[derive(Clone, Copy)]
pub(in crate::l7) struct Attempt(NonZeroU64);

impl Downstream {
    /// Another request has come.
    pub(super) fn begin(&self, is_informed: bool) {
        self.0.is_informed.store(is_informed, Ordering::Release);
    }

    /// Its response begins, before which nothing more is told.
    pub(super) fn answered(&self) {
        self.0.is_informed.store(false, Ordering::Release);
    }

    /// Listens for one more attempt of the request; who listened before is heard no more. `None`: the client may not be told.
    pub(in crate::l7) fn listen(&self) -> Option<Attempt> {
        let is_informed = self.0.is_informed.load(Ordering::Relaxed);
        let next = || self.0.attempt.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        NonZeroU64::new(if is_informed { next() } else { 0 }).map(Attempt)
    }

    /// Passes on an informational response, whose fields are the client's to see. A 101 is none of them.
    pub(in crate::l7) fn inform(&self, attempt: Attempt, status: StatusCode, headers: &HeaderMap) {
        if self.0.attempt.load(Ordering::Relaxed) != attempt.0.get() {
            return;
        }
        self.tell(|told| {
            told.put_slice(b"HTTP/1.1 ");
            told.put_slice(status.as_str().as_bytes());
            told.put_slice(b" ");
            told.put_slice(status.canonical_reason().unwrap_or("Informational").as_bytes());
            told.put_slice(b"\r\n");
            names::put(told, headers, None, &[], None);
            told.put_slice(b"\r\n");
        });
    }

    fn tell(&self, write: impl FnOnce(&mut BytesMut)) {
        if !self.0.is_informed.load(Ordering::Acquire) {
            return;
        }
        let mut told = self.0.told.lock();
        let before = told.len();
        write(&mut told);
        if told.len() > MOST {
            told.truncate(before);
        }
        self.0.waits.store(!told.is_empty(), Ordering::Release);
        drop(told);
        self.0.server.wake();
    }

    /// The client is asked for the body.
    pub(super) fn ask_for_body(&self) {
        self.tell(|told| told.put_slice(CONTINUE));
    }

    /// What waits to be written.
    pub(super) fn take_told(&self) -> Option<BytesMut> {
        if !self.0.waits.load(Ordering::Acquire) {
            return None;
        }
        self.0.waits.store(false, Ordering::Release);
        Some(std::mem::take(&mut *self.0.told.lock()))
    }

    /// The client's direction has ended after a whole request.
    pub(super) fn leaves(&self) {
        self.0.has_left.store(true, Ordering::Release);
        self.0.waiter.wake();
    }

    /// Whether the client has sent a whole request, and sends nothing more. Who asks is woken when it does.
    pub(in crate::l7) fn has_left(&self, cx: &Context<'_>) -> bool {
        self.0.waiter.register(cx.waker());
        self.0.has_left.load(Ordering::Acquire)
    }

    /// Nobody has anything to say to a client that left: its connection ends.
    pub(in crate::l7) fn give_up(&self) {
        self.0.is_given_up.store(true, Ordering::Release);
        self.0.server.wake();
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.0.is_given_up.load(Ordering::Acquire)
    }

    /// The connection has ended: no more of a body is read from it.
    pub(super) fn end(&self) {
        self.0.has_ended.store(true, Ordering::SeqCst);
        self.0.reader.wake();
    }

    /// Whether it has. Who asks is woken when it does.
    pub(super) fn has_ended(&self, cx: &Context<'_>) -> bool {
        self.0.reader.register(cx.waker());
        self.0.has_ended.load(Ordering::SeqCst)
    }

    pub(super) fn give_back(&self, returned: Returned) {
        *self.0.returned.lock() = Some(returned);
        self.0.server.wake();
    }

    /// The receiving half, once it is back.
    pub(super) fn poll_returned(&self, cx: &Context<'_>) -> Poll<Returned> {
        self.0.server.register(cx.waker());
        self.0.returned.lock().take().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::LINK;

    use super::*;

    fn link() -> HeaderMap {
        HeaderMap::from_iter([(LINK, HeaderValue::from_static("</a>"))])
    }

    #[test]
    fn only_the_attempt_that_runs_is_heard() {
        let downstream = Downstream::default();
        assert!(downstream.listen().is_none(), "over HTTP/1.0");
        downstream.begin(true);
        let (first, second) = (downstream.listen().unwrap(), downstream.listen().unwrap());
        downstream.inform(first, StatusCode::PROCESSING, &HeaderMap::new());
        assert!(downstream.take_told().is_none());
        downstream.inform(second, StatusCode::EARLY_HINTS, &link());
        let told = downstream.take_told().unwrap();
        assert_eq!(told, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        assert!(downstream.take_told().is_none());
    }

    #[test]
    fn what_waits_is_bounded() {
        let downstream = Downstream::default();
        downstream.begin(true);
        let attempt = downstream.listen().unwrap();
        (0..10_000).for_each(|_| downstream.inform(attempt, StatusCode::EARLY_HINTS, &link()));
        assert!(downstream.take_told().unwrap().len() <= MOST);
    }
}
