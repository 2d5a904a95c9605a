//! The objects that a source has at present, for whoever asks: to tell what would be with others.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::Objects;

/// Questions that wait, at the most: an operator asks one at a time.
const MOST_WAITING: usize = 16;

/// Asks a running source for its objects; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Present(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Vec<oneshot::Sender<Objects>>>,
    asked: Notify,
}

impl Present {
    /// The objects, once the source has a moment. `None`: it does not run, or has ended.
    pub fn ask(&self) -> oneshot::Receiver<Objects> {
        let (told, objects) = oneshot::channel();
        let mut waiting = self.0.waiting.lock();
        waiting.retain(|it| !it.is_closed());
        if waiting.len() < MOST_WAITING {
            waiting.push(told);
        }
        drop(waiting);
        self.0.asked.notify_one();
        objects
    }

    /// Waits until somebody asks.
    pub(super) async fn asked(&self) {
        self.0.asked.notified().await;
    }

    /// Answers everybody who asks. A copy shares the objects.
    pub(super) fn answer(&self, objects: &Objects) {
        for told in self.0.waiting.lock().drain(..) {
            // Whoever has gone needs no answer.
            _ = told.send(objects.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_asks_is_answered_once_and_too_many_are_not() {
        let present = Present::default();
        let asked: Vec<_> = (0..=MOST_WAITING).map(|_| present.ask()).collect();
        present.asked().await;
        present.answer(&Objects::default());
        let mut answered = 0;
        for one in asked {
            answered += usize::from(one.await.is_ok());
        }
        assert_eq!(answered, MOST_WAITING);
    }
}
