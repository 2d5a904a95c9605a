//! How many streams at once an application takes on one HTTP/2 connection, and whether it takes any more.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// How long the requests that come while a connection is new wait for what the application says in its SETTINGS. It sends
/// them at once (RFC 9113, 3.4), so a round trip is enough; one that is slower gets further connections.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the application said last, for the senders of the connection.
pub(super) struct Taken {
    most: AtomicUsize,
    is_told: AtomicBool,
    told: Notify,
    has_refused: AtomicBool,
    has_ended: AtomicBool,
    /// The connection is under TLS to the application, which requests say.
    is_encrypted: bool,
}

impl Taken {
    /// Before the application said anything, `most` are sent.
    pub(super) fn new(most: usize, is_encrypted: bool) -> Self {
        let (most, is_told) = (AtomicUsize::new(most), AtomicBool::new(false));
        let (told, has_refused) = (Notify::new(), AtomicBool::new(false));
        let has_ended = AtomicBool::new(false);
        Self { most, is_told, told, has_refused, has_ended, is_encrypted }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Notes what the connection knows now; `is_told` when the application has said it, or will never.
    pub(super) fn note(&self, most: usize, is_told: bool) {
        self.most.store(most, Ordering::Relaxed);
        if is_told && !self.is_told.swap(true, Ordering::Release) {
            self.told.notify_waiters();
        }
    }

    pub(super) fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Acquire)
    }

    /// The application has refused a request.
    pub(super) fn refuse(&self) {
        self.has_refused.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_refused(&self) -> bool {
        self.has_refused.load(Ordering::Relaxed)
    }

    /// The connection takes nothing more.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Waits until the application has said it, or has taken too long.
    pub(super) async fn heard(&self) {
        let told = self.told.notified();
        if !self.is_told() {
            let _ = tokio::time::timeout(PATIENCE, told).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_waits_until_it_is_told_and_not_for_ever() {
        let taken = Arc::new(Taken::new(1, false));
        let started = Instant::now();
        taken.heard().await;
        assert_eq!(started.elapsed(), PATIENCE);
        let (waits, told) = (taken.clone(), taken.clone());
        let waiting = tokio::spawn(async move { waits.heard().await });
        tokio::task::yield_now().await;
        told.note(7, true);
        waiting.await.unwrap();
        taken.heard().await;
        assert_eq!((started.elapsed(), taken.most()), (PATIENCE, 7));
    }
}
