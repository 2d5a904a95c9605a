//! Slots for unauthenticated clients: few, and an idle client loses its slot to the next one.
//!
//! A well-behaved client sends its request at once. So if all slots are in use, a slot that waits for its client, to
//! send or to read, is evicted first: of the client that holds the most, the one that waits longest. A client that
//! opens connections and stays silent therefore evicts itself, and others are served whatever it does.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The slots of one listener. `K` identifies a client.
pub struct Places<K> {
    limit: usize,
    seats: Mutex<Seats<K>>,
}

struct Seats<K> {
    next: u64,
    taken: Vec<Seat<K>>,
}

struct Seat<K> {
    number: u64,
    client: K,
    /// Since when it waits for its client; `None` while its request is processed.
    waiting: Option<Instant>,
    /// Cancelled when the slot is evicted.
    leave: CancellationToken,
}

/// One connection's slot; freed when dropped.
pub struct Place<K> {
    places: Arc<Places<K>>,
    number: u64,
    leave: CancellationToken,
}

impl<K: Clone + Eq + Hash> Places<K> {
    pub fn new(limit: usize) -> Arc<Self> {
        let seats = Mutex::new(Seats { next: 0, taken: Vec::new() });
        Arc::new(Self { limit, seats })
    }

    /// A slot for a client; `None` if all are busy.
    pub fn take(self: &Arc<Self>, client: K) -> Option<Place<K>> {
        let mut seats = self.seats.lock();
        if seats.taken.len() >= self.limit {
            let index = seats.least_needed()?;
            seats.taken.swap_remove(index).leave.cancel();
        }
        let (number, leave) = (seats.next, CancellationToken::new());
        seats.next += 1;
        let waiting = Some(Instant::now());
        seats.taken.push(Seat { number, client, waiting, leave: leave.clone() });
        Some(Place { places: self.clone(), number, leave })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.seats.lock().taken.len()
    }
}

impl<K: Eq + Hash> Seats<K> {
    /// The slot to evict: of those that wait for their clients, the longest waiting one of the client that holds the
    /// most.
    fn least_needed(&self) -> Option<usize> {
        let mut held: HashMap<&K, usize> = HashMap::new();
        for seat in &self.taken {
            *held.entry(&seat.client).or_default() += 1;
        }
        let waiting = self.taken.iter().enumerate().filter_map(|(index, seat)| {
            let since = Reverse((seat.waiting?, seat.number));
            Some((held.get(&seat.client).copied(), since, index))
        });
        waiting.max().map(|(.., index)| index)
    }
}

impl<K> Place<K> {
    /// The request is being processed, and the client waits.
    pub fn works(&self) {
        self.set(None);
    }

    /// The slot waits for the client.
    pub fn waits(&self) {
        self.set(Some(Instant::now()));
    }

    fn set(&self, waiting: Option<Instant>) {
        let mut seats = self.places.seats.lock();
        if let Some(seat) = seats.taken.iter_mut().find(|seat| seat.number == self.number) {
            seat.waiting = waiting;
        }
    }

    /// Ready when the slot is evicted, or the client has timed out.
    pub async fn over(&self, patience: Duration) {
        let too_long = async {
            loop {
                let since = {
                    let seats = self.places.seats.lock();
                    let own = seats.taken.iter().find(|seat| seat.number == self.number);
                    own.and_then(|seat| seat.waiting)
                };
                let until = since.unwrap_or_else(Instant::now) + patience;
                if until <= Instant::now() {
                    return;
                }
                sleep_until(until).await;
            }
        };
        tokio::select! {
            () = self.taken_away() => {}
            () = too_long => {}
        }
    }

    /// Ready when the slot is evicted.
    pub async fn taken_away(&self) {
        self.leave.cancelled().await;
    }
}

impl<K> Drop for Place<K> {
    fn drop(&mut self) {
        self.places.seats.lock().taken.retain(|seat| seat.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 20;
    const PATIENCE: Duration = Duration::from_secs(30);

    fn fill(places: &Arc<Places<u8>>, client: u8, count: usize) -> Vec<Place<u8>> {
        (0..count).map(|_| places.take(client).expect("a place")).collect()
    }

    fn left(held: &[Place<u8>]) -> Vec<usize> {
        (0..held.len()).filter(|index| held[*index].leave.is_cancelled()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_wait_of_the_client_that_holds_the_most_ends() {
        let places = Places::new(LIMIT);
        let few = fill(&places, 1, 4);
        tokio::time::advance(Duration::from_secs(1)).await;
        let many = fill(&places, 2, LIMIT - 4);
        many[0].works();
        let _third = places.take(3).expect("a place");
        assert_eq!((left(&few), left(&many)), (vec![], vec![1]), "the first one is at work");
        many[2].works();
        tokio::time::advance(Duration::from_secs(1)).await;
        many[2].waits();
        let _same = places.take(2).expect("a place");
        assert_eq!((left(&few), left(&many)), (vec![], vec![1, 3]), "it has just been answered");
        assert_eq!(places.taken(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_at_work_is_not_interrupted() {
        let places = Places::new(LIMIT);
        let mut held = fill(&places, 1, LIMIT);
        held.iter().for_each(Place::works);
        assert!(places.take(2).is_none());
        held.pop();
        assert!(places.take(2).is_some());
        assert!(left(&held).is_empty());
        drop(held);
        assert_eq!(places.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_without_end() {
        let places = Places::new(LIMIT);
        let place = places.take(1).expect("a place");
        let begun = Instant::now();
        place.works();
        let working = tokio::time::timeout(10 * PATIENCE, place.over(PATIENCE));
        assert!(working.await.is_err(), "a long profile");
        place.waits();
        place.over(PATIENCE).await;
        assert_eq!(begun.elapsed(), 11 * PATIENCE);
    }
}
