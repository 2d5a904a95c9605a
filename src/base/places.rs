//! Places of one listener: few, and whoever holds one idly gives it up for the next client.
//!
//! Clients of the pages are probes and scrapers, which send a request at once. A place that waits for its client, to send
//! or to take an answer, is therefore the first to be taken away when all are in use: of the address that holds the most,
//! the one that waits longest. So a client that opens connections and says nothing has places of its own kind only, and
//! a probe is answered whatever it does.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Connections at a time on each listener: scrapers and operators, with room to spare.
const MAX_CONNECTIONS: usize = 64;
/// A client that neither sends a request nor takes an answer for so long is gone.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The places of one listener.
#[derive(Default)]
pub(super) struct Places(Mutex<Seats>);

#[derive(Default)]
struct Seats {
    next: u64,
    taken: Vec<Seat>,
}

struct Seat {
    number: u64,
    /// `None`: a process of this machine that may administer.
    address: Option<IpAddr>,
    /// Since when it waits for its client; `None` while its request is worked on.
    waiting: Option<Instant>,
    /// Cancelled when the place is taken away.
    leave: CancellationToken,
}

/// One connection's place; free again when it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    leave: CancellationToken,
}

impl Places {
    /// A place for a client; `None` when all are at work.
    pub(super) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Place> {
        let address = address.map(|it| it.to_canonical());
        let mut seats = self.0.lock();
        if seats.taken.len() >= MAX_CONNECTIONS {
            let index = seats.least_needed()?;
            seats.taken.swap_remove(index).leave.cancel();
        }
        let (number, leave) = (seats.next, CancellationToken::new());
        seats.next += 1;
        let waiting = Some(Instant::now());
        seats.taken.push(Seat { number, address, waiting, leave: leave.clone() });
        Some(Place { places: self.clone(), number, leave })
    }
}

impl Seats {
    /// Of those that wait for their clients, the longest of the address that holds the most places.
    fn least_needed(&self) -> Option<usize> {
        let held =
            |seat: &Seat| self.taken.iter().filter(|other| other.address == seat.address).count();
        let waiting = self.taken.iter().enumerate().filter_map(|(index, seat)| {
            Some((
                held(seat),
                std::cmp::Reverse(seat.waiting?),
                std::cmp::Reverse(seat.number),
                index,
            ))
        });
        waiting.max().map(|(.., index)| index)
    }
}

impl Place {
    /// Its request is worked on, and the client waits.
    pub(super) fn works(&self) {
        self.set(None);
    }

    /// It waits for the client.
    pub(super) fn waits(&self) {
        self.set(Some(Instant::now()));
    }

    fn set(&self, waiting: Option<Instant>) {
        let mut seats = self.places.0.lock();
        let own = seats.taken.iter_mut().find(|seat| seat.number == self.number);
        if let Some(seat) = own {
            seat.waiting = waiting;
        }
    }

    /// Ready when the place is taken away, or the client has been waited for too long.
    pub(super) async fn over(&self) {
        let too_long = async {
            loop {
                let since = {
                    let seats = self.places.0.lock();
                    let own = seats.taken.iter().find(|seat| seat.number == self.number);
                    own.and_then(|seat| seat.waiting)
                };
                let until = since.unwrap_or_else(Instant::now) + MAX_WAIT;
                if until <= Instant::now() {
                    return;
                }
                sleep_until(until).await;
            }
        };
        tokio::select! {
            () = self.leave.cancelled() => {}
            () = too_long => {}
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.0.lock().taken.retain(|seat| seat.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    fn fill(places: &Arc<Places>, last: u8, count: usize) -> Vec<Place> {
        (0..count).map(|_| places.take(address(last)).expect("a place")).collect()
    }

    fn left(held: &[Place]) -> Vec<usize> {
        (0..held.len()).filter(|index| held[*index].leave.is_cancelled()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_wait_of_the_address_that_holds_the_most_ends() {
        let places = Arc::new(Places::default());
        let few = fill(&places, 1, 4);
        tokio::time::advance(Duration::from_secs(1)).await;
        let many = fill(&places, 2, MAX_CONNECTIONS - 4);
        many[0].works();
        let _third = places.take(address(3)).expect("a place");
        assert_eq!((left(&few), left(&many)), (vec![], vec![1]), "the first one is at work");
        many[2].works();
        many[2].waits();
        let mapped = Some("::ffff:10.0.0.2".parse().unwrap());
        let _same = places.take(mapped).expect("a place");
        assert_eq!((left(&few), left(&many)), (vec![], vec![1, 3]), "in another form");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_at_work_is_not_interrupted() {
        let places = Arc::new(Places::default());
        let mut held = fill(&places, 1, MAX_CONNECTIONS);
        held.iter().for_each(Place::works);
        assert!(places.take(address(2)).is_none());
        held.pop();
        assert!(places.take(address(2)).is_some());
        assert!(left(&held).is_empty());
        drop(held);
        assert!(places.0.lock().taken.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_without_end() {
        let places = Arc::new(Places::default());
        let place = places.take(None).expect("a place");
        let begun = Instant::now();
        place.works();
        assert!(tokio::time::timeout(10 * MAX_WAIT, place.over()).await.is_err(), "a long profile");
        place.waits();
        place.over().await;
        assert_eq!(begun.elapsed(), 11 * MAX_WAIT);
    }
}
