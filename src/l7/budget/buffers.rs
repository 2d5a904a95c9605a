//! What one connection to an application may hold of the byte budget of the client that it was made for.

use std::sync::Arc;

use super::window::Window;
use super::{Full, Reserved, Share};

/// Shared by the senders of one connection and by who reads from it; the budget gets its part back with the last.
pub(in crate::l7) struct Buffers {
    share: Arc<Share>,
    /// Of HTTP/2.
    window: Window,
    _reserved: Reserved,
}

impl Buffers {
    pub(in crate::l7) fn new(share: Arc<Share>, reserved: Reserved) -> Self {
        Self { share, window: Window::default(), _reserved: reserved }
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
