//! All downstream connections of one worker, by client, and what is done about those that rest too long, do not get to
//! the end of a head, or are in the way.
//!
//! Who is known here has a place; a client is known as long as anything is held for it, so that nobody gets a second
//! share by leaving and coming back. The lock is taken when a connection comes or goes and in the worker's rounds, one a
//! second, and never for a request.
//!
//! Under pressure the idlest connection gives way: of the client that is close to its share, of the client with the most
//! connections of a tenant that is, or of all. Chosen by samples, so that it costs the same however many there are. A
//! connection with a request in flight never gives way.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::client::{Client, Tenant};
use super::seat::{Order, Seat};
use super::{Full, Kind, Pool, Reserved, Scope, Share, Tenancy};
use crate::base::Seldom;
use crate::l7::WorkerSettings;
use crate::telemetry::{Closed, Telemetry, WorkerHealth};

/// How often the worker looks through its connections, and how exact its times are.
pub(in crate::l7) const ROUND: Duration = Duration::from_secs(1);

/// How long a connection that is to leave may take when nothing is in flight, in seconds: the answer to a last PING of
/// HTTP/2, and what a slow reader has not taken yet.
const GRACE: u32 = 2;

/// How many connections are looked at to find one that is among the idlest.
const SAMPLES: usize = 16;

/// The connections of one worker.
pub(in crate::l7) struct Seats {
    pool: Arc<Pool>,
    started: Instant,
    head_timeout: u32,
    idle_timeout: u32,
    table: Mutex<Table>,
    told: Seldom,
}

#[derive(Default)]
struct Table {
    clients: HashMap<Client, Entry>,
    tenants: HashMap<Tenant, Arc<Tenancy>>,
    all: Line<0>,
}

struct Entry {
    share: Arc<Share>,
    seats: Line<1>,
}

/// Connections in no order, each of which knows where it stands in line `N`.
#[derive(Default)]
struct Line<const N: usize>(Vec<Arc<Seat>>);

/// A connection's place, given back when dropped.
pub(in crate::l7) struct Seated {
    seat: Arc<Seat>,
    seats: Arc<Seats>,
    _place: Reserved,
}

impl Seats {
    pub(in crate::l7) fn new(settings: &WorkerSettings, telemetry: Telemetry) -> Arc<Self> {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        Arc::new(Self {
            pool: Pool::new(settings, telemetry),
            started: Instant::now(),
            head_timeout: seconds(settings.head_timeout),
            idle_timeout: seconds(settings.idle_timeout),
            table: Mutex::default(),
            told: Seldom::new(),
        })
    }

    pub(in crate::l7) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// A place for one more connection of this client, or why there is none.
    pub(in crate::l7) fn admit(self: &Arc<Self>, client: Client) -> Result<Seated, String> {
        self.tick();
        let mut table = self.table.lock();
        let share = table.share(client, &self.pool);
        let admitted = share.reserve(Kind::Connections, 1);
        let pressed = match &admitted {
            Ok(_) => share.pressed(Kind::Connections),
            Err(full) => Some(full.scope),
        };
        if let Some(scope) = pressed {
            self.relieve(&table, &share, scope);
        }
        let place = admitted.map_err(|full| share.why(full))?;
        let seat = Arc::new(Seat::new(share));
        table.enter(&seat);
        Ok(Seated { seat, seats: self.clone(), _place: place })
    }

    /// Bytes are wanted that cannot be had: somebody who rests gives way.
    pub(in crate::l7) fn make_room(&self, share: &Arc<Share>, full: Full) {
        self.relieve(&self.table.lock(), share, full.scope);
    }

    /// Is done once in a [`ROUND`].
    pub(in crate::l7) fn round(&self) {
        self.tick();
        let now = self.pool.clock();
        let mut table = self.table.lock();
        for seat in &table.all.0 {
            // The clock tells whole seconds, so a time may seem to be a second longer than it is.
            let late = seat.head_for(now).is_some_and(|time| time > self.head_timeout);
            let idle = seat.idle_for(now);
            match seat.order(now) {
                (Order::Stay | Order::Leave, _) if late => {
                    self.tell_of_late_head(seat);
                    self.end(seat, Order::End, Closed::Head);
                }
                (Order::Stay, _) if idle.is_some_and(|time| time > self.idle_timeout) => {
                    self.end(seat, Order::Leave, Closed::Idle);
                }
                (Order::Leave, time) if time > GRACE && idle.is_some_and(|idle| idle > GRACE) => {
                    seat.tell(Order::End);
                }
                _ => {}
            }
        }
        table.forget();
    }

    /// No connection needs a round; what is forgotten waits until one does.
    pub(in crate::l7) fn is_empty(&self) -> bool {
        self.table.lock().all.0.is_empty()
    }

    pub(in crate::l7) fn health(&self) -> WorkerHealth {
        let clients = self.table.lock().clients.len();
        WorkerHealth { clients, ..self.pool.health() }
    }

    fn tick(&self) {
        let seconds = self.started.elapsed().as_secs();
        self.pool.set_clock(u32::try_from(seconds).unwrap_or(u32::MAX));
    }

    /// Has one connection of those in `scope` leave that has rested for long.
    fn relieve(&self, table: &Table, share: &Arc<Share>, scope: Scope) {
        let now = self.pool.clock();
        let largest = match scope {
            Scope::Client => Some(share),
            Scope::Tenant => table.largest(|other| share.is_beside(other)),
            Scope::Worker => table.largest(|_| true),
        };
        let seats = largest.and_then(|share| table.clients.get(&share.client));
        let resting = |seat: &&Arc<Seat>| seat.order(now).0 == Order::Stay && seat.is_idle();
        let idlest = seats.and_then(|entry| {
            let resting = entry.seats.sample().filter(resting);
            resting.max_by_key(|seat| seat.idle_for(now))
        });
        if let Some(seat) = idlest {
            self.end(seat, Order::Leave, Closed::Pressure);
        }
    }

    fn end(&self, seat: &Seat, order: Order, cause: Closed) {
        self.pool.telemetry().agent().worker_closed(cause);
        seat.tell(order);
    }

    fn tell_of_late_head(&self, seat: &Seat) {
        if self.told.is_due() {
            tracing::warn!(
                client = %seat.share().client, seconds = self.head_timeout,
                "a client did not send the whole head of a request in time, and its connection is closed ([layer7] \
                 head_timeout)"
            );
        }
    }
}

impl Table {
    fn share(&mut self, client: Client, pool: &Arc<Pool>) -> Arc<Share> {
        if let Some(entry) = self.clients.get(&client) {
            return entry.share.clone();
        }
        let tenancy = self.tenants.entry(client.tenant()).or_default().clone();
        let share = Share::new(client.clone(), pool.clone(), tenancy);
        self.clients.insert(client, Entry { share: share.clone(), seats: Line::default() });
        share
    }

    fn enter(&mut self, seat: &Arc<Seat>) {
        self.all.enter(seat);
        if let Some(entry) = self.clients.get_mut(&seat.share().client) {
            entry.seats.enter(seat);
        }
    }

    fn leave(&mut self, seat: &Seat) {
        self.all.leave(seat);
        if let Some(entry) = self.clients.get_mut(&seat.share().client) {
            entry.seats.leave(seat);
        }
    }

    /// Forgets clients for whom nothing is held any more. Nobody else gets hold of a share but under the lock.
    fn forget(&mut self) {
        self.clients.retain(|_, entry| Arc::strong_count(&entry.share) > 1);
        self.tenants.retain(|_, tenancy| Arc::strong_count(tenancy) > 1);
    }

    /// Of some connections, the client that has the most.
    fn largest(&self, of: impl Fn(&Share) -> bool) -> Option<&Arc<Share>> {
        let shares = self.all.sample().map(|seat| seat.share()).filter(|share| of(share));
        shares.max_by_key(|share| {
            self.clients.get(&share.client).map_or(0, |entry| entry.seats.0.len())
        })
    }
}

impl<const N: usize> Line<N> {
    fn enter(&mut self, seat: &Arc<Seat>) {
        seat.places[N].store(self.0.len(), Ordering::Relaxed);
        self.0.push(seat.clone());
    }

    fn leave(&mut self, seat: &Seat) {
        let place = seat.places[N].load(Ordering::Relaxed);
        if !self.0.get(place).is_some_and(|found| std::ptr::eq(&raw const **found, seat)) {
            return;
        }
        self.0.swap_remove(place);
        if let Some(moved) = self.0.get(place) {
            moved.places[N].store(place, Ordering::Relaxed);
        }
    }

    /// Some of them, or all when they are few.
    fn sample(&self) -> impl Iterator<Item = &Arc<Seat>> {
        let count = self.0.len();
        let few = count <= SAMPLES;
        let place = move |sample: usize| if few { sample } else { fastrand::usize(..count) };
        (0..count.min(SAMPLES)).filter_map(move |sample| self.0.get(place(sample)))
    }
}

impl std::ops::Deref for Seated {
    type Target = Arc<Seat>;

    fn deref(&self) -> &Arc<Seat> {
        &self.seat
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.seats.table.lock().leave(&self.seat);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::base::Identity;
    use crate::l7::version::Version;

    fn seats(connections: usize) -> Arc<Seats> {
        let settings = WorkerSettings {
            max_connections: connections,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            ..WorkerSettings::for_tests()
        };
        Seats::new(&settings, Telemetry::without_log())
    }

    fn client(namespace: &str, last: u8) -> Client {
        let identity = Identity::new("cluster.local", namespace, "default");
        Client::new(Some(&identity), Ipv4Addr::new(10, 0, 0, last).into())
    }

    fn told(seats: &Seats, seat: &Seat) -> Order {
        seat.order(seats.pool.clock()).0
    }

    async fn later(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_idlest_of_a_client_with_many_gives_way() {
        let seats = seats(100);
        let other = seats.admit(client("other", 1)).ok().unwrap();
        later(1).await;
        // Up to 15/16 of 64 % of what the other leaves nobody is in the way.
        let mut held = vec![seats.admit(client("evil", 1)).ok().unwrap()];
        let busy = held[0].request(Version::Http1, 100).ok().unwrap();
        later(1).await;
        held.extend((0..12).map(|_| seats.admit(client("evil", 1)).ok().unwrap()));
        later(1).await;
        let close =
            |held: &[Seated]| held.iter().filter(|it| told(&seats, it) == Order::Leave).count();
        while close(&held) == 0 {
            held.push(seats.admit(client("evil", 1)).ok().unwrap());
        }
        assert!((50..64).contains(&held.len()), "{}", held.len());
        assert!(told(&seats, &held[0]) == Order::Stay, "a request is in flight");
        assert!(told(&seats, &other) == Order::Stay, "it is another client's");
        drop(busy);
        drop(held);
        assert_eq!(seats.health().connections, 1);
        seats.round();
        assert_eq!(seats.health().clients, 1, "whoever holds nothing is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_left_something_behind_is_still_known() {
        let seats = seats(100);
        let seat = seats.admit(client("shop", 1)).ok().unwrap();
        let left = seat.share().connection(Version::Http2).unwrap();
        drop(seat);
        seats.round();
        let again = seats.admit(client("shop", 1)).ok().unwrap();
        assert!(Arc::ptr_eq(
            &again.share().clone(),
            &seats.admit(client("shop", 1)).ok().unwrap().share().clone()
        ));
        assert_eq!(seats.health().clients, 1);
        drop((again, left));
        seats.round();
        assert_eq!(seats.health().clients, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_heads_and_long_rests_end() {
        let seats = seats(100);
        let [slow, resting, busy] =
            [1, 2, 3].map(|last| seats.admit(client("shop", last)).ok().unwrap());
        slow.head_begins();
        busy.head_begins();
        let request = busy.request(Version::Http1, 100).ok().unwrap();
        later(10).await;
        seats.round();
        assert_eq!(told(&seats, &slow), Order::Stay);
        later(1).await;
        seats.round();
        assert_eq!(told(&seats, &slow), Order::End);
        later(50).await;
        seats.round();
        assert_eq!(told(&seats, &resting), Order::Leave, "it has had no request for a minute");
        assert_eq!(told(&seats, &busy), Order::Stay);
        later(3).await;
        seats.round();
        assert_eq!(told(&seats, &resting), Order::End, "it did not leave by itself");
        drop(request);
        later(61).await;
        seats.round();
        assert_eq!(told(&seats, &busy), Order::Leave);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_told() {
        let seats = seats(100);
        let seat = seats.admit(client("shop", 1)).ok().unwrap();
        let (waits, held) = (seat.clone(), seat.clone());
        let task = tokio::spawn(async move {
            waits.told(Order::Leave).await;
            waits.told(Order::End).await;
        });
        tokio::task::yield_now().await;
        held.tell(Order::Leave);
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        held.tell(Order::End);
        task.await.unwrap();
    }
}
