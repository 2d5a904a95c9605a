//! Copies of a body, for mirrors. The original never waits for a copy: one that falls behind by more than it may is
//! broken off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

use super::BodyError;
use super::part::Part;
use crate::l7::budget::sizes::COPY_BUFFER;

/// How many frames a copy may be behind, whatever their length.
const FRAMES: usize = 256;

/// Where the original's frames go.
pub(super) struct Tee {
    frames: mpsc::Sender<Option<Part>>,
    behind: Arc<AtomicUsize>,
}

/// The body of a copy. `None` in the channel stands for the end, so that an original that broke off is not taken for
/// one that is complete.
pub(super) struct Copied {
    frames: mpsc::Receiver<Option<Part>>,
    behind: Arc<AtomicUsize>,
    hint: SizeHint,
    ended: bool,
}

impl Tee {
    pub(super) fn new(hint: SizeHint) -> (Self, Copied) {
        let (sender, receiver) = mpsc::channel(FRAMES);
        let behind = Arc::<AtomicUsize>::default();
        let copied = Copied { frames: receiver, behind: behind.clone(), hint, ended: false };
        (Self { frames: sender, behind }, copied)
    }

    /// The copy has half of what it may be behind by.
    pub(super) fn lags(&self) -> bool {
        self.behind.load(Ordering::Relaxed) > COPY_BUFFER / 2 || self.frames.capacity() < FRAMES / 2
    }

    /// Passes a part on; false when the copy is too far behind, or not wanted any more.
    pub(super) fn pass(&self, part: Part) -> bool {
        let length = part.len();
        let behind = self.behind.fetch_add(length, Ordering::Relaxed) + length;
        behind <= COPY_BUFFER && self.frames.try_send(Some(part)).is_ok()
    }

    /// The original has come to its end.
    pub(super) fn end(self) {
        _ = self.frames.try_send(None);
    }
}

impl Copied {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match ready!(self.frames.poll_recv(cx)) {
            Some(Some(part)) => {
                self.behind.fetch_sub(part.len(), Ordering::Relaxed);
                Poll::Ready(Some(Ok(part.into())))
            }
            Some(None) => {
                self.ended = true;
                Poll::Ready(None)
            }
            None => {
                self.ended = true;
                Poll::Ready(Some(Err(BodyError::Behind)))
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ended
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.hint
    }
}
