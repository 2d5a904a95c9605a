//! Queues of what waits to be exported, spans and records of the access log: bounded, never waited for, and shared by tenants.
//!
//! A tenant may have as many of them in a queue as places are free (a dynamic threshold, as in shared-memory switches). A single
//! tenant fills half of the queue; several leave free as much as each of them has. So a namespace that records everything cannot
//! crowd out the spans of others.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};

use super::span::Finished;

/// How many spans wait at the most: what the OpenTelemetry SDKs keep (`OTEL_BSP_MAX_QUEUE_SIZE`).
pub const MAX_QUEUED: usize = 2_048;

/// Tenants are told apart by a hash with a random key: two share a place by chance, and nobody can choose with whom.
const PLACES: usize = 256;

/// A bounded queue.
pub fn queue<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    let shares = Arc::new(Shares::new(capacity));
    (Sender { sender, shares: shares.clone() }, Receiver { receiver, shares })
}

/// The end that puts in.
pub struct Sender<T> {
    sender: mpsc::Sender<(usize, T)>,
    shares: Arc<Shares>,
}

/// The end that takes out.
pub struct Receiver<T> {
    receiver: mpsc::Receiver<(usize, T)>,
    shares: Arc<Shares>,
}

/// Why something was not put into a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The queue, or the tenant's share of it.
    Full,
    Closed,
}

/// How many of the places of a queue are taken, together and by each tenant.
struct Shares {
    hasher: RandomState,
    capacity: usize,
    all: AtomicUsize,
    tenants: Box<[AtomicUsize; PLACES]>,
}

impl Shares {
    fn new(capacity: usize) -> Self {
        let tenants = Box::new(std::array::from_fn(|_| AtomicUsize::new(0)));
        Self { hasher: RandomState::new(), capacity, all: AtomicUsize::new(0), tenants }
    }

    /// The tenant's place in the table, if there is room for one more. Tenants that come at the same moment may exceed their shares
    /// by one each; the channel bounds them all.
    fn take(&self, tenant: &str) -> Option<usize> {
        let place = (self.hasher.hash_one(tenant) % PLACES as u64) as usize;
        let taken = self.tenants.get(place)?;
        let free = self.capacity.saturating_sub(self.all.load(Ordering::Relaxed));
        if taken.load(Ordering::Relaxed) >= free {
            return None;
        }
        taken.fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
        Some(place)
    }

    fn give_back(&self, place: usize) {
        if let Some(taken) = self.tenants.get(place) {
            taken.fetch_sub(1, Ordering::Relaxed);
            self.all.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<T> Sender<T> {
    /// Puts it in, unless there is no room for the tenant.
    pub fn offer(&self, tenant: &str, it: T) -> Result<(), Refused> {
        if self.sender.is_closed() {
            return Err(Refused::Closed);
        }
        let place = self.shares.take(tenant).ok_or(Refused::Full)?;
        self.sender.try_send((place, it)).map_err(|error| {
            self.shares.give_back(place);
            match error {
                TrySendError::Full(_) => Refused::Full,
                TrySendError::Closed(_) => Refused::Closed,
            }
        })
    }

    /// Nobody takes anything out any more.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl<T> Receiver<T> {
    /// The next one; `None` once all senders are gone.
    pub async fn recv(&mut self) -> Option<T> {
        let (place, it) = self.receiver.recv().await?;
        self.shares.give_back(place);
        Some(it)
    }

    /// The next one, if there is one.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let (place, it) = self.receiver.try_recv()?;
        self.shares.give_back(place);
        Ok(it)
    }

    /// Nothing more is put in; what is there can still be taken out.
    pub fn close(&mut self) {
        self.receiver.close();
    }
}

/// A queue from records to the exporter; cheap to clone.
pub struct Outbox<T>(Arc<Queue<T>>);

/// The queue of spans.
pub type Spans = Outbox<Finished>;

struct Queue<T> {
    sender: Sender<Box<T>>,
    receiver: Mutex<Option<Receiver<Box<T>>>>,
    /// Somebody exports them.
    taken: AtomicBool,
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        let (sender, receiver) = queue(MAX_QUEUED);
        let (receiver, taken) = (Mutex::new(Some(receiver)), AtomicBool::new(false));
        Self(Arc::new(Queue { sender, receiver, taken }))
    }
}

impl<T> Outbox<T> {
    /// Puts it into the queue, or drops it when its tenant has no room or nobody exports; then it is false.
    pub fn offer(&self, tenant: &str, it: Box<T>) -> bool {
        self.0.taken.load(Ordering::Relaxed) && self.0.sender.offer(tenant, it).is_ok()
    }

    /// The other end, once: for the exporter.
    pub fn receiver(&self) -> Option<Receiver<Box<T>>> {
        self.0.taken.store(true, Ordering::Relaxed);
        self.0.receiver.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers so many for a tenant, and tells how many were taken.
    fn offer(sender: &Sender<usize>, tenant: &str, count: usize) -> usize {
        (0..count).filter(|it| sender.offer(tenant, *it).is_ok()).count()
    }

    #[test]
    fn a_noisy_tenant_leaves_room_for_the_others() {
        let (sender, mut receiver) = queue(1_000);
        assert_eq!(offer(&sender, "noisy", 5_000), 500);
        assert_eq!(offer(&sender, "quiet", 100), 100);
        assert_eq!(offer(&sender, "noisy", 5_000), 0, "it has more than is left");
        // What is taken out makes room again, for whose it was.
        for _ in 0..200 {
            receiver.try_recv().expect("one that waits");
        }
        assert_eq!(offer(&sender, "noisy", 5_000), 150, "(1000 - 400 + 300) / 2 are 450");
        while receiver.try_recv().is_ok() {}
        assert_eq!(receiver.shares.all.load(Ordering::Relaxed), 0);
        assert!(receiver.shares.tenants.iter().all(|it| it.load(Ordering::Relaxed) == 0));
        assert_eq!(offer(&sender, "noisy", 5_000), 500);
    }

    #[test]
    fn many_noisy_tenants_together_leave_a_share() {
        let (sender, _receiver) = queue(1_100);
        for round in 0..50 {
            for tenant in 0..10 {
                offer(&sender, &format!("noisy-{tenant}"), 20 + round);
            }
        }
        // Fewer than 11 if two of them share a place.
        assert!(offer(&sender, "quiet", 50) >= 40);
    }

    #[test]
    fn what_is_closed_takes_nothing() {
        let (sender, mut receiver) = queue(4);
        assert_eq!(offer(&sender, "a", 1), 1);
        receiver.close();
        assert_eq!(sender.offer("a", 1), Err(Refused::Closed));
        assert!(sender.is_closed() && receiver.try_recv().is_ok());
    }
}
