//! Who follows new flows. Each has a bounded queue; who does not read fast enough loses flows, and is told how many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::Seen;
use super::filter::Filter;

/// Flows that wait for one observer, beside what is on its way: as many as are written in one go.
pub const QUEUE: usize = 512;
/// How many may follow: operators and a relay, with room to spare.
pub const MAX_OBSERVERS: usize = 8;

/// As many as may already follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_OBSERVERS} observers follow the flows of this agent, which is as many as may")]
pub struct TooMany;

/// All who follow.
pub(super) struct Observers {
    list: ArcSwap<Vec<Arc<Observer>>>,
    /// Held while the list changes.
    changing: Mutex<()>,
    count: AtomicUsize,
    shown: Gauge,
}

struct Observer {
    filter: Filter,
    queue: Sender<Arc<Seen>>,
    lost: AtomicU64,
}

/// What one observer has to read.
pub(super) struct Following {
    observer: Arc<Observer>,
    pub(super) queue: Receiver<Arc<Seen>>,
    /// As many as it knows that it has lost.
    told: u64,
}

impl Observers {
    pub(super) fn new(shown: Gauge) -> Self {
        let (list, changing) = (ArcSwap::default(), Mutex::new(()));
        Self { list, changing, count: AtomicUsize::new(0), shown }
    }

    /// One relaxed load.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Gives a flow to all who want it; how many had no room for it.
    pub(super) fn offer(&self, seen: &Arc<Seen>) -> u64 {
        let mut lost = 0;
        for observer in self.list.load().iter().filter(|it| it.filter.wants(&seen.flow)) {
            if observer.queue.try_send(seen.clone()).is_err() {
                observer.lost.fetch_add(1, Ordering::Relaxed);
                lost += 1;
            }
        }
        lost
    }

    pub(super) fn add(&self, filter: Filter) -> Result<Following, TooMany> {
        let (sender, queue) = channel(QUEUE);
        let observer = Arc::new(Observer { filter, queue: sender, lost: AtomicU64::new(0) });
        let _changing = self.changing.lock();
        let mut list = Vec::clone(&self.list.load());
        if list.len() >= MAX_OBSERVERS {
            return Err(TooMany);
        }
        list.push(observer.clone());
        self.replace(list);
        Ok(Following { observer, queue, told: 0 })
    }

    pub(super) fn remove(&self, following: &Following) {
        let _changing = self.changing.lock();
        let mut list = Vec::clone(&self.list.load());
        list.retain(|observer| !Arc::ptr_eq(observer, &following.observer));
        self.replace(list);
    }

    fn replace(&self, list: Vec<Arc<Observer>>) {
        self.count.store(list.len(), Ordering::Relaxed);
        self.shown.set(i64::try_from(list.len()).unwrap_or(i64::MAX));
        self.list.store(Arc::new(list));
    }
}

impl Following {
    /// How many were lost that it has not been told of; it is told now.
    pub(super) fn lost(&mut self) -> Option<u64> {
        let lost = self.observer.lost.load(Ordering::Relaxed);
        let more = lost - self.told;
        self.told = lost;
        (more > 0).then_some(more)
    }
}
