//! Which heads of requests hyper's HTTP/2 has answered itself: it tells nobody, but what is written does.
//!
//! A request is handled in a task of its own, after the poll of the connection in which its head was read. So a head that
//! is written within that poll, on a stream that was opened in it, is an answer of the library, which has only one: 431,
//! for a head that is too long. Other heads that it refuses it answers with a reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// The size of a frame's head, and the type of a frame that begins a response (RFC 9113, 4.1 and 6.2).
const HEAD: usize = 9;
const HEADERS: u8 = 1;
/// The bits of a stream's number.
const STREAM: u32 = (1 << 31) - 1;

/// How many streams a client has opened, of which hyper has seen all, or that hyper has not come to all of them yet; and
/// how many of them it has answered itself.
#[derive(Clone, Default)]
pub(in crate::l7) struct Streams(Arc<Told>);

#[derive(Default)]
struct Told {
    seen: AtomicUsize,
    /// The last stream whose head has come, and the last that was open before the connection's present poll.
    last: AtomicU32,
    before: AtomicU32,
    answered: AtomicUsize,
}

/// hyper has not come to all of them.
const NOT_SEEN: usize = usize::MAX;

/// The position in the stream of frames that are written.
#[derive(Default)]
pub(in crate::l7) struct Written {
    head: [u8; HEAD],
    /// Bytes of `head` that were written.
    have: usize,
    /// Bytes until the next head.
    skip: usize,
}

impl Streams {
    /// What was read so far: how many streams, if hyper has seen all of them, and the last of them, if its head has come to
    /// its end.
    pub(in crate::l7) fn note(&self, streams: Option<usize>, last: Option<u32>) {
        self.0.seen.store(streams.unwrap_or(NOT_SEEN), Ordering::Relaxed);
        if let Some(last) = last {
            self.0.last.store(last, Ordering::Relaxed);
        }
    }

    pub(in crate::l7) fn seen(&self) -> Option<usize> {
        Some(self.0.seen.load(Ordering::Relaxed)).filter(|streams| *streams != NOT_SEEN)
    }

    /// How many of `refused` heads were answered. The connection's poll is over.
    pub(in crate::l7) fn answered(&self, refused: usize) -> usize {
        self.0.before.store(self.0.last.load(Ordering::Relaxed), Ordering::Relaxed);
        if refused == 0 {
            return 0;
        }
        self.0.answered.swap(0, Ordering::Relaxed).min(refused)
    }
}

impl Written {
    pub(in crate::l7) fn note(&mut self, mut bytes: &[u8], streams: &Streams) {
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.skip);
            (self.skip, bytes) = (self.skip - skipped, &bytes[skipped..]);
            let more = bytes.len().min(HEAD - self.have);
            self.head[self.have..self.have + more].copy_from_slice(&bytes[..more]);
            (self.have, bytes) = (self.have + more, &bytes[more..]);
            if self.have == HEAD {
                self.frame(streams);
            }
        }
    }

    fn frame(&mut self, streams: &Streams) {
        let [a, b, c, kind, _, stream @ ..] = self.head;
        (self.have, self.skip) = (0, u32::from_be_bytes([0, a, b, c]) as usize);
        let told = &streams.0;
        let stream = u32::from_be_bytes(stream) & STREAM;
        if kind == HEADERS && stream > told.before.load(Ordering::Relaxed) {
            told.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, 0, 0, 0, 0, stream], payload].concat()
    }

    #[test]
    fn what_is_answered_in_the_poll_in_which_it_was_read_is_the_librarys() {
        for cut in 1..30 {
            let (streams, mut written) = (Streams::default(), Written::default());
            let mut write = |bytes: &[u8]| {
                bytes.chunks(cut).for_each(|part| written.note(part, &streams));
            };
            // The third stream's head comes in two polls.
            streams.note(None, None);
            assert_eq!(streams.answered(0), 0);
            streams.note(Some(2), Some(3));
            write(
                &[frame(4, 0, &[0; 12]), frame(HEADERS, 3, &[0x48, 0x82]), frame(3, 1, &[0; 4])]
                    .concat(),
            );
            assert_eq!((streams.seen(), streams.answered(2)), (Some(2), 1));
            // The handler's answer comes later, and is none of these.
            write(&[frame(HEADERS, 1, &[0x88]), frame(0, 1, &[1; 20])].concat());
            streams.note(None, Some(5));
            assert_eq!((streams.seen(), streams.answered(0)), (None, 0));
            write(&frame(HEADERS, 5, &[0x88]));
            assert_eq!(streams.answered(1), 0);
        }
    }
}
