//! The objects of a running source, for whoever asks for them: an agent keeps none besides its source, which changes them in place.

use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Objects;

/// So many may wait for an answer. Each costs a copy of the index of all objects.
const MOST: usize = 2;
/// How long a source may take. It answers between two things that it does; the longest is a translation of everything.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shared by the source and whoever asks.
#[derive(Clone, Debug, Default)]
pub struct Asked(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Vec<SyncSender<Objects>>>,
    wanted: Notify,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoObjects {
    #[error("{MOST} others wait for the objects; ask again")]
    Busy,
    #[error("the source has not read all objects yet, or is busy; look at its log, and ask again")]
    NotYet,
}

impl Asked {
    /// The objects in force. Blocks the thread until the source has time.
    ///
    /// # Errors
    /// The source does not answer in time.
    pub fn get(&self) -> Result<Objects, NoObjects> {
        let (answer, answered) = mpsc::sync_channel(1);
        {
            let mut waiting = self.0.waiting.lock();
            if waiting.len() >= MOST {
                return Err(NoObjects::Busy);
            }
            waiting.push(answer);
        }
        self.0.wanted.notify_one();
        answered.recv_timeout(PATIENCE).map_err(|_| {
            // Whoever has gone takes no place.
            self.0.waiting.lock().clear();
            NoObjects::NotYet
        })
    }

    /// Resolves when somebody asks.
    pub(super) async fn wanted(&self) {
        self.0.wanted.notified().await;
    }

    pub(super) fn answer(&self, objects: &Objects) {
        for waiting in std::mem::take(&mut *self.0.waiting.lock()) {
            // Whoever has gone meanwhile needs none.
            _ = waiting.try_send(objects.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::objects::Namespace;
    use crate::source::tests::{key, objects};

    #[tokio::test]
    async fn whoever_asks_gets_the_objects_that_the_source_has() {
        let asked = Asked::default();
        let here = asked.clone();
        let asking = tokio::task::spawn_blocking(move || here.get());
        asked.wanted().await;
        asked.answer(&objects("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"));
        let found = asking.await.unwrap().unwrap();
        assert!(found.get::<Namespace>(&key("shop")).is_some());
    }

    #[test]
    fn no_more_than_a_few_may_wait() {
        let asked = Asked::default();
        let waiting: Vec<_> = (0..MOST).map(|_| mpsc::sync_channel(1)).collect();
        asked.0.waiting.lock().extend(waiting.iter().map(|(sender, _)| sender.clone()));
        assert!(matches!(asked.get(), Err(NoObjects::Busy)));
    }
}
