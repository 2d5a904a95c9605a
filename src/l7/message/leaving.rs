//! A client of HTTP/1 that ends its direction while it waits for a response: one that has gone, or one that only has nothing more
//! to say (`printf ... | nc`). TCP does not tell them apart, so the end is passed on, and the application decides as it would
//! without a mesh: most take it for a client that left, and cancel what they do for it.
//!
//! hyper either takes the end for a client that left, or does not look for it. So it is told of the end only between
//! requests, and where the body of a request lacks its own: then whoever reads the body says so. A connection that is
//! reset is an error of reading, which hyper sees at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// What is known of one downstream connection of HTTP/1.
#[derive(Clone, Debug, Default)]
pub(in crate::l7) struct Leaving(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// A request is in flight.
    in_flight: AtomicBool,
    /// The body of the request has not been read to its end.
    in_body: AtomicBool,
    /// The client sends nothing more.
    ended: AtomicBool,
    /// It has ended within a body.
    cut: AtomicBool,
    /// The task that serves the connection.
    server: AtomicWaker,
    /// Whoever waits for more of the body.
    reader: AtomicWaker,
}

/// While a request is in flight.
pub(in crate::l7) struct Awaited(Leaving);

impl Leaving {
    /// A request has come.
    pub(in crate::l7) fn begin(&self, has_body: bool) -> Awaited {
        self.0.in_body.store(has_body, Ordering::Release);
        self.0.in_flight.store(true, Ordering::Release);
        Awaited(self.clone())
    }

    /// The client's direction has ended. Ready when hyper may know.
    pub(in crate::l7) fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        let shared = &self.0;
        shared.server.register(cx.waker());
        shared.ended.store(true, Ordering::SeqCst);
        shared.reader.wake();
        let is_known =
            !shared.in_flight.load(Ordering::SeqCst) || shared.cut.load(Ordering::SeqCst);
        if is_known { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Somebody waits for more of the body. When the client has ended, no more comes, and hyper turns that into an error.
    pub(in crate::l7) fn wants_more(&self, cx: &Context<'_>) {
        let shared = &self.0;
        shared.reader.register(cx.waker());
        if shared.ended.load(Ordering::SeqCst) {
            shared.cut.store(true, Ordering::SeqCst);
            shared.server.wake();
        }
    }

    /// The body is read once more.
    pub(in crate::l7) fn body_begins(&self) {
        self.0.in_body.store(true, Ordering::Release);
    }

    /// Nobody has anything to say to a client that left: the server may know, and ends the connection.
    pub(in crate::l7) fn give_up(&self) {
        self.0.cut.store(true, Ordering::SeqCst);
        self.0.server.wake();
    }

    /// All of the body has been read. Where the end of the client came before, the task that serves it passes that on now.
    pub(in crate::l7) fn body_ended(&self) {
        self.0.in_body.store(false, Ordering::SeqCst);
        if self.0.ended.load(Ordering::SeqCst) {
            self.0.server.wake();
        }
    }

    /// The client has sent a whole request, and sends nothing more.
    pub(in crate::l7) fn has_left(&self) -> bool {
        self.0.ended.load(Ordering::SeqCst) && !self.0.in_body.load(Ordering::SeqCst)
    }
}

impl Awaited {
    pub(in crate::l7) fn has_left(&self) -> bool {
        self.0.has_left()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let shared = &self.0.0;
        shared.in_flight.store(false, Ordering::SeqCst);
        if shared.ended.load(Ordering::SeqCst) {
            shared.server.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn an_end_is_hidden_while_a_request_is_in_flight() {
        let (leaving, cx) = (Leaving::default(), Context::from_waker(Waker::noop()));
        assert!(!leaving.has_left());
        let request = leaving.begin(true);
        assert!(leaving.poll_ended(&cx).is_pending());
        assert!(!leaving.has_left(), "its body is on its way");
        leaving.body_ended();
        assert!(leaving.has_left() && request.has_left());
        drop(request);
        assert!(leaving.poll_ended(&cx).is_ready(), "there is nothing to wait for");
    }

    #[test]
    fn an_end_within_a_body_is_one() {
        let (leaving, cx) = (Leaving::default(), Context::from_waker(Waker::noop()));
        let request = leaving.begin(true);
        leaving.wants_more(&cx);
        assert!(leaving.poll_ended(&cx).is_pending(), "the reader may have more to read");
        leaving.wants_more(&cx);
        assert!(leaving.poll_ended(&cx).is_ready());
        assert!(!request.has_left());
    }
}
