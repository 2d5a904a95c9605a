//! Accounts for bytes that one direction of a connection has handed over and that are not consumed yet: by a peer that
//! does not read, or the other end of a pipe.
//!
//! They are reserved from the workload's budget as they are handed over and released as they leave, so that a peer with
//! many streams, or a program that speaks HBONE itself, holds no more of the agent's memory than the budget allows. A
//! small amount is part of the connection's own reservation and costs the budget nothing; without budget, a little at a
//! time still passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;

use crate::base::{Held, Need, Room};

/// The bytes of a direction that may wait outside the budget: what a relay reads at a time from a connection that
/// carries little. It is within `l4::CONNECTION_BYTES`.
const LITTLE: usize = 1024;

/// The account of one direction.
pub(super) struct Waiting {
    room: Room,
    bytes: AtomicUsize,
    writer: AtomicWaker,
}

/// A part that waits. When it is dropped, it has been sent, or is not needed any more.
pub(super) struct Part {
    bytes: Bytes,
    /// The size that was handed over.
    length: usize,
    waiting: Arc<Waiting>,
    _held: Option<Held>,
}

/// Permission to hand over so many bytes.
pub(super) struct Leave {
    pub(super) bytes: usize,
    held: Option<Held>,
}

impl Waiting {
    pub(super) fn new(room: Room) -> Arc<Self> {
        Arc::new(Self { room, bytes: AtomicUsize::new(0), writer: AtomicWaker::new() })
    }

    /// Waits until some of `wanted` bytes may be handed over, at least one. One task at a time waits.
    pub(super) fn poll_leave(&self, cx: &mut Context<'_>, wanted: usize) -> Poll<Leave> {
        if let Some(leave) = self.leave(wanted) {
            return Poll::Ready(leave);
        }
        self.writer.register(cx.waker());
        // The last one may have been released meanwhile.
        self.leave(wanted).map_or(Poll::Pending, Poll::Ready)
    }

    fn leave(&self, wanted: usize) -> Option<Leave> {
        let waiting = self.bytes.load(Ordering::Acquire);
        if waiting + wanted <= LITTLE {
            return Some(Leave { bytes: wanted, held: None });
        }
        if let Some(held) = self.room.take(wanted, Need::Growth) {
            return Some(Leave { bytes: wanted, held: Some(held) });
        }
        (waiting == 0).then(|| Leave { bytes: wanted.min(LITTLE), held: None })
    }

    /// `bytes`: as many as `leave` says.
    pub(super) fn part(self: &Arc<Self>, bytes: Bytes, leave: Leave) -> Part {
        let length = bytes.len();
        self.bytes.fetch_add(length, Ordering::AcqRel);
        Part { bytes, length, waiting: self.clone(), _held: leave.held }
    }

    /// Empty, to carry the end.
    pub(super) fn end(self: &Arc<Self>) -> Part {
        self.part(Bytes::new(), Leave { bytes: 0, held: None })
    }
}

impl Part {
    pub(super) fn into_bytes(mut self) -> Bytes {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.length > 0
            && self.waiting.bytes.fetch_sub(self.length, Ordering::AcqRel) == self.length
        {
            self.waiting.writer.wake();
        }
    }
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn hand_over(waiting: &Arc<Waiting>, bytes: usize) -> Part {
        let leave = poll_fn(|cx| waiting.poll_leave(cx, bytes)).await;
        waiting.part(Bytes::from(vec![0; leave.bytes]), leave)
    }

    #[tokio::test]
    async fn what_waits_is_taken_from_the_room_until_it_goes() {
        let room = Room::new(400 * 1024);
        let waiting = Waiting::new(room.clone());
        let little = hand_over(&waiting, LITTLE).await;
        assert_eq!(room.taken(), 0, "it is within the connection's place");
        let much = hand_over(&waiting, 200 * 1024).await;
        assert_eq!((much.remaining(), room.taken()), (200 * 1024, 200 * 1024));
        assert_eq!(much.into_bytes().len(), 200 * 1024);
        drop(little);
        assert_eq!((room.taken(), waiting.bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn without_room_little_passes_at_a_time() {
        let room = Room::new(4 * 1024);
        let others = room.take(4 * 1024, Need::Place);
        let waiting = Waiting::new(room.clone());
        let first = hand_over(&waiting, 100_000).await;
        assert_eq!(first.remaining(), LITTLE);
        let second = tokio::spawn({
            let waiting = waiting.clone();
            async move { hand_over(&waiting, 3_000).await.remaining() }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(others);
        drop(first);
        assert_eq!(second.await.unwrap(), 3_000, "there is room again");
    }
}
