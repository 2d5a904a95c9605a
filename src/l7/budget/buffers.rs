//! What one connection to an application may hold of the byte budget of the client that it was made for, and what the policy of
//! its destination says of it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::window::Window;
use super::{Full, Reserved, Share};
use crate::traffic::PerConnection;

/// Shared by the senders of one connection and by who reads from it; the budget gets its part back with the last.
pub(in crate::l7) struct Buffers {
    share: Arc<Share>,
    /// Of HTTP/2.
    window: Window,
    /// Where a policy says something.
    limited: OnceLock<Limited>,
    _reserved: Reserved,
}

/// The limits of a connection, and the requests that it took so far.
struct Limited {
    limits: PerConnection,
    requests: AtomicU32,
}

impl Buffers {
    pub(in crate::l7) fn new(share: Arc<Share>, reserved: Reserved) -> Self {
        let (window, limited) = (Window::default(), OnceLock::new());
        Self { share, window, limited, _reserved: reserved }
    }

    /// From now on, the connection has these limits.
    pub(in crate::l7) fn limit(&self, limits: PerConnection) {
        if limits != PerConnection::default() {
            _ = self.limited.set(Limited { limits, requests: AtomicU32::new(0) });
        }
    }

    /// How long it may rest.
    pub(in crate::l7) fn rest(&self) -> Option<Duration> {
        self.limited.get()?.limits.idle_timeout
    }

    /// How long it takes requests.
    pub(in crate::l7) fn lifetime(&self) -> Option<Duration> {
        self.limited.get()?.limits.max_duration
    }

    /// Streams at once.
    pub(in crate::l7) fn most_streams(&self) -> Option<usize> {
        self.limited.get()?.limits.max_streams.map(|most| most as usize)
    }

    /// Counts a request that it takes.
    pub(in crate::l7) fn count(&self) {
        if let Some(limited) = self.limited.get() {
            limited.requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It has taken as many requests as it may.
    pub(in crate::l7) fn is_used_up(&self) -> bool {
        self.limited.get().is_some_and(|Limited { limits, requests }| {
            limits.max_requests.is_some_and(|most| requests.load(Ordering::Relaxed) >= most)
        })
    }

    pub(in crate::l7) fn share(&self) -> &Arc<Share> {
        &self.share
    }

    pub(in crate::l7) fn streams(&self) -> usize {
        self.window.open()
    }

    /// One more stream, whose response may fill its window; or why there is no room for it.
    pub(in crate::l7) fn open(&self) -> Result<(), String> {
        self.window.enter(&self.share).map_err(|full| self.share.why(full))
    }

    pub(in crate::l7) fn close(&self) {
        self.window.leave(&self.share);
    }

    /// Heads have come that may wait for their reader and take about so many bytes.
    pub(in crate::l7) fn trailers(&self, bytes: usize) -> Result<(), Full> {
        self.window.trailers(&self.share, bytes)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        self.window.close(&self.share);
    }
}
