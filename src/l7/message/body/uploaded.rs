//! How far a request's body has passed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::BodyError;
use crate::l7::http1::error::Error;

/// What has passed of a request's body so far.
#[derive(Clone, Debug, Default)]
pub(in crate::l7) struct Uploaded(pub(super) Arc<Passed>);

#[derive(Debug, Default)]
pub(super) struct Passed {
    pub(super) bytes: AtomicU64,
    /// Of gRPC.
    pub(super) messages: AtomicU64,
    pub(super) broken: OnceLock<Broken>,
    pub(super) ended: AtomicBool,
    /// Somebody wants to know when it ended.
    timed: AtomicBool,
    ended_at: OnceLock<Instant>,
}

/// What is wrong with a body that came to no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::l7) enum Broken {
    /// Its chunks break the rules (RFC 9112, 7.1).
    Malformed,
    /// The client has stopped sending before its end.
    Cut,
}

impl Uploaded {
    pub(in crate::l7) fn bytes(&self) -> usize {
        usize::try_from(self.0.bytes.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    pub(in crate::l7) fn messages(&self) -> u64 {
        self.0.messages.load(Ordering::Relaxed)
    }

    /// Keeps the time of its end.
    pub(in crate::l7) fn time(&self) {
        self.0.timed.store(true, Ordering::Relaxed);
    }

    /// When it ended, if that was after somebody wanted to know.
    pub(in crate::l7) fn ended_at(&self) -> Option<Instant> {
        self.0.ended_at.get().copied()
    }

    /// All of it has passed.
    pub(in crate::l7) fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::Relaxed)
    }

    pub(in crate::l7) fn broken(&self) -> Option<Broken> {
        self.0.broken.get().copied()
    }
}

impl Passed {
    pub(super) fn end(&self) {
        if !self.ended.swap(true, Ordering::Relaxed) && self.timed.load(Ordering::Relaxed) {
            _ = self.ended_at.set(Instant::now());
        }
    }
}

impl Broken {
    /// What HTTP/1 has found; over HTTP/2 the stream is reset.
    pub(super) fn of(error: &BodyError) -> Option<Self> {
        match error {
            BodyError::Http1(Error::Framing(_)) => Some(Self::Malformed),
            BodyError::Http1(Error::Cut) => Some(Self::Cut),
            _ => None,
        }
    }
}
