//! Rate limits for log messages.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The interval between two messages of one kind: a peer that keeps causing the problem must not fill the log.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// One kind of problem, and when it was logged last.
#[derive(Default)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether the caller should log it now.
    pub fn is_due(&self) -> bool {
        let mut last = self.0.lock();
        let due = last.is_none_or(|last| last.elapsed() >= TELL_EVERY);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_trouble_is_told_once_a_minute() {
        let trouble = Seldom::new();
        let told = (0..5).filter(|_| trouble.is_due()).count();
        assert_eq!(told, 1);
        tokio::time::advance(TELL_EVERY).await;
        assert!(trouble.is_due());
        assert!(!trouble.is_due());
    }
}
