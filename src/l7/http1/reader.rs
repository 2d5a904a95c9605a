//! The receiving half of a connection of HTTP/1: chunk by chunk, so that a connection at rest holds no buffer, and what came in a
//! frame of a tunnel is not copied.

use std::io;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};

use super::error::Error;
use crate::l7::budget::sizes::HTTP1_BUFFER;
use crate::sock::ChunkRead;
use crate::tunnel::CarrierRead;

/// The longest head of a message, in bytes.
const LONGEST_HEAD: usize = HTTP1_BUFFER;

/// What is read at once, in bytes: most heads fit, and the allocator has such a piece at hand.
const LEAST_READ: usize = 1024;
/// Where as much is sure to come.
const USUAL_READ: usize = 16 * 1024;
/// On a connection that carries much.
const MOST_READ: usize = HTTP1_BUFFER;

/// The receiving half, with what was read of it and not used.
pub(in crate::l7) struct Reader {
    half: CarrierRead,
    left: Bytes,
    /// How much of it is the beginning of a head that has not come to its end.
    scanned: usize,
    /// How much to read next.
    hint: usize,
    ended: bool,
}

impl Reader {
    /// `front` was read before.
    pub(in crate::l7) fn new(half: CarrierRead, front: Bytes) -> Self {
        Self { half, left: front, scanned: 0, hint: LEAST_READ, ended: false }
    }

    /// What was read and not used.
    pub(super) fn left(&mut self) -> &mut Bytes {
        &mut self.left
    }

    /// Nothing more comes, and there is nothing left.
    pub(super) fn is_at_end(&self) -> bool {
        self.ended && self.left.is_empty()
    }

    /// Whether the peer has neither closed the connection nor said anything, as far as is known by now.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.left.is_empty() && !self.ended && self.half.poll_chunk(&mut cx, 1).is_pending()
    }

    /// Reads once more and puts it behind what is left. `wanted`: as much as is sure to come. False at the end.
    pub(super) fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        wanted: u64,
    ) -> Poll<io::Result<bool>> {
        if self.ended {
            return Poll::Ready(Ok(false));
        }
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let hint = self.hint.max(wanted.min(USUAL_READ));
        let chunk = ready!(self.half.poll_chunk(cx, hint))?;
        if chunk.is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(false));
        }
        if chunk.len() >= self.hint {
            self.hint = (4 * self.hint).min(MOST_READ);
        } else if chunk.len() < self.hint / 4 {
            self.hint = (self.hint / 2).max(LEAST_READ);
        }
        self.put(chunk);
        Poll::Ready(Ok(true))
    }

    fn put(&mut self, chunk: Bytes) {
        if self.left.is_empty() {
            self.left = chunk;
            return;
        }
        let both = std::mem::take(&mut self.left).try_into_mut();
        let mut both = both.unwrap_or_else(|left| BytesMut::from(&left[..]));
        both.extend_from_slice(&chunk);
        self.left = both.freeze();
    }

    /// A head has begun to come, and is not at its end.
    pub(super) fn has_part_of_a_head(&self) -> bool {
        self.left.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    /// The next head, once it is there as a whole, by what `parse` makes of what is left: the head and its length. `None`: the
    /// connection ended before it.
    pub(super) fn poll_head<T>(
        &mut self,
        cx: &mut Context<'_>,
        parse: impl Fn(&Bytes) -> Result<Option<(T, usize)>, Error>,
    ) -> Poll<Result<Option<T>, Error>> {
        loop {
            if self.may_be_whole() {
                if let Some((head, length)) = parse(&self.left)? {
                    if length > LONGEST_HEAD {
                        return Poll::Ready(Err(Error::TooLarge));
                    }
                    self.use_up(length);
                    return Poll::Ready(Ok(Some(head)));
                }
                self.scanned = self.left.len();
            }
            if self.left.len() >= LONGEST_HEAD {
                return Poll::Ready(Err(Error::TooLarge));
            }
            if !ready!(self.poll_more(cx, 0))? {
                let is_cut = self.has_part_of_a_head();
                return Poll::Ready(if is_cut { Err(Error::Cut) } else { Ok(None) });
            }
        }
    }

    /// Whether there is an end of a head in what came since it was parsed last.
    fn may_be_whole(&mut self) -> bool {
        if self.left.is_empty() {
            return false;
        }
        if self.scanned == 0 {
            return true;
        }
        let new = &self.left[self.scanned.saturating_sub(3)..];
        let ends = |at: usize| matches!(&new[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]);
        let is_whole = new.iter().enumerate().any(|(at, byte)| *byte == b'\n' && ends(at));
        self.scanned = self.left.len();
        is_whole
    }

    fn use_up(&mut self, length: usize) {
        self.scanned = 0;
        if length == self.left.len() {
            self.left = Bytes::new();
        } else {
            _ = self.left.split_to(length);
        }
    }
}

impl ChunkRead for Reader {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, hint: usize) -> Poll<io::Result<Bytes>> {
        match (self.left.is_empty(), self.ended) {
            (false, _) => Poll::Ready(Ok(std::mem::take(&mut self.left))),
            (true, true) => Poll::Ready(Ok(Bytes::new())),
            (true, false) => self.half.poll_chunk(cx, hint),
        }
    }
}
