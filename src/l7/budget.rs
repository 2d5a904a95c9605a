//! What one worker, and each of its clients, may hold at once: connections, requests in flight, bytes buffered, copies
//! for mirrors.
//!
//! The byte budget is kept by reservation: whoever may buffer takes its worst case beforehand, so the sum never
//! exceeds the setting whatever the peers do. A downstream connection of either version reserves what is read ahead of a
//! head and what is written, and an HTTP/2 connection its receive window as there are streams to fill it
//! ([`window`]), with the trailers that nobody has read; each request over HTTP/2 reserves the two send
//! buffers of its streams; a large head, of the request or the response, and large trailers, what they take; a request
//! that may be sent again and a copy for a mirror, what they may keep of its body. A request's place is held until h2 has
//! sent the last frame of the response ([`held`](super::message::held)), because it waits in memory for a client that does not
//! read. Opaque connections buffer one chunk, and are bounded by the number of connections.
//!
//! Every place is taken three times: in the worker's sum, among those of the client's tenant, and among the client's own.
//! What a tenant may hold is a part of what the other tenants leave, and what a client may hold a part of what the
//! others of its tenant leave of that ([`Shares`]). So whoever is alone may hold much, whoever takes as much as it can
//! leaves something for the next who comes, however many do so, and nobody's share lies idle for somebody who is not
//! there. Counting takes a few atomic additions and no lock.

pub(in crate::l7) mod admission;
pub(in crate::l7) mod buffers;
pub(in crate::l7) mod client;
pub(in crate::l7) mod fair;
pub(in crate::l7) mod seat;
pub(in crate::l7) mod seats;
pub(in crate::l7) mod sizes;
pub(in crate::l7) mod turn;
pub(in crate::l7) mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::base::Seldom;
use crate::l7::WorkerSettings;
use crate::l7::version::Version;
use crate::telemetry::{Telemetry, WorkerHealth};
use client::Client;
use fair::{Begun, Rounds, Turns};
use sizes::{COPY_BUFFER, HPACK_TABLES, HTTP1_BUFFER, MOST_OF_A_HEAD, REPLAY_BUFFER, UNIT, units};
use turn::Unseen;

/// Mirrored requests on their way at once: enough for a thousand a second at 100 ms each, and what a mirror that does
/// not answer can hold.
const MIRRORS: usize = 128;

/// Connections on their way from layer 4 to the worker. A worker that runs takes them in microseconds; one that does
/// not shall not gather more.
pub(in crate::l7) const QUEUE: usize = 1024;

/// For so many requests in flight one more may be on its way out that was refused. Over HTTP/2 a client need not take the
/// answers, and could have any number of them.
const REFUSED: usize = 16;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::l7) enum Kind {
    Connections,
    Requests,
    /// In units.
    Bytes,
    Copies,
    /// Connections that the worker has not taken yet; they count as connections too.
    Waiting,
    /// Requests that were refused for want of a place and whose client has not taken the answer yet.
    Refused,
}

/// How many kinds there are.
const KINDS: usize = Kind::Refused as usize + 1;

/// How much of each kind somebody holds.
#[derive(Default)]
struct Held([AtomicUsize; KINDS]);

/// How much of what the others leave one may hold, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::l7) struct Shares {
    pub(in crate::l7) tenant: usize,
    pub(in crate::l7) client: usize,
}

/// The budgets of one worker in sum.
pub(in crate::l7) struct Pool {
    limits: [usize; KINDS],
    shares: Shares,
    held: Held,
    /// Seconds since the worker started, as of the last tick: what needs to know the time roughly does not ask the
    /// system for it.
    clock: AtomicU32,
    unseen: Arc<Unseen>,
    rounds: Rounds,
    telemetry: Telemetry,
    /// By scope and kind.
    told: [[Seldom; KINDS]; 3],
}

/// What all clients of one tenant hold together, and have begun.
#[derive(Default)]
pub(in crate::l7) struct Tenancy {
    held: Held,
    begun: Arc<Begun>,
}

/// What one client holds of the budgets of one worker.
pub(in crate::l7) struct Share {
    pub(in crate::l7) client: Client,
    pool: Arc<Pool>,
    tenancy: Arc<Tenancy>,
    held: Held,
    turns: Arc<Turns>,
    /// When nothing was found last that could make room for it, in seconds from 1 on.
    no_room: AtomicU32,
}

/// Whose limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::l7) enum Scope {
    Client,
    Tenant,
    Worker,
}

/// There is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::l7) struct Full {
    kind: Kind,
    pub(in crate::l7) scope: Scope,
    /// Whoever it is may hold so much now.
    limit: usize,
}

/// A place in one of the budgets, given back when dropped.
pub(in crate::l7) struct Reserved {
    share: Arc<Share>,
    kind: Kind,
    amount: usize,
}

/// The place of one copy on its way.
pub(in crate::l7) struct MirrorPermit {
    _copy: Reserved,
    _buffer: Option<Reserved>,
}

impl Held {
    fn of(&self, kind: Kind) -> &AtomicUsize {
        &self.0[kind as usize]
    }

    fn get(&self, kind: Kind) -> usize {
        self.of(kind).load(Ordering::Relaxed)
    }

    fn add(&self, kind: Kind, amount: usize) -> usize {
        self.of(kind).fetch_add(amount, Ordering::Relaxed) + amount
    }

    fn subtract(&self, kind: Kind, amount: usize) {
        self.of(kind).fetch_sub(amount, Ordering::Relaxed);
    }
}

impl Shares {
    /// What a tenant, and one of its clients, may hold of `limit` while other tenants hold `others`, and other clients
    /// of this tenant `siblings`.
    fn limits(self, limit: usize, others: usize, siblings: usize) -> [usize; 2] {
        let part = |of: usize, percent: usize| (of as u128 * percent as u128 / 100) as usize;
        let tenant = part(limit.saturating_sub(others), self.tenant);
        [tenant, part(tenant.saturating_sub(siblings), self.client)]
    }
}

impl Pool {
    pub(in crate::l7) fn new(settings: &WorkerSettings, telemetry: Telemetry) -> Arc<Self> {
        let limits = [
            settings.max_connections,
            settings.max_requests,
            settings.max_buffered_bytes / UNIT,
            MIRRORS,
            QUEUE,
            settings.max_requests.div_ceil(REFUSED),
        ];
        let shares = Shares { tenant: settings.tenant_share, client: settings.client_share };
        let (held, clock, told) = (Held::default(), AtomicU32::new(0), Default::default());
        let (unseen, rounds) = (Arc::<Unseen>::default(), Rounds::default());
        Arc::new(Self { limits, shares, held, clock, unseen, rounds, telemetry, told })
    }

    pub(in crate::l7) fn clock(&self) -> u32 {
        self.clock.load(Ordering::Relaxed)
    }

    pub(in crate::l7) fn set_clock(&self, seconds: u32) {
        self.clock.store(seconds, Ordering::Relaxed);
    }

    pub(in crate::l7) fn unseen(&self) -> &Arc<Unseen> {
        &self.unseen
    }

    pub(in crate::l7) fn rounds(&self) -> &Rounds {
        &self.rounds
    }

    pub(in crate::l7) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// How much of it is taken now; the rest is others' to fill in.
    pub(in crate::l7) fn health(&self) -> WorkerHealth {
        WorkerHealth {
            connections: self.held.get(Kind::Connections),
            requests: self.held.get(Kind::Requests),
            buffered_bytes: self.held.get(Kind::Bytes) * UNIT,
            buffered_bytes_limit: self.limits[Kind::Bytes as usize] * UNIT,
            ..WorkerHealth::default()
        }
    }

    /// Whether a tenant and a client that hold so much, with the `amount` that came last, hold more than they may.
    /// Whoever holds nothing else may have its first.
    fn exceeded(&self, kind: Kind, amount: usize, [tenant, client]: [usize; 2]) -> Option<Full> {
        let [of_tenant, of_client] = self.limits_of(kind, tenant, client);
        let over = |held: usize, limit: usize| held > limit && held > amount;
        match (over(client, of_client), over(tenant, of_tenant)) {
            (true, _) => Some(Full { kind, scope: Scope::Client, limit: of_client }),
            (_, true) => Some(Full { kind, scope: Scope::Tenant, limit: of_tenant }),
            _ => None,
        }
    }

    fn limits_of(&self, kind: Kind, tenant: usize, client: usize) -> [usize; 2] {
        let others = self.held.get(kind).saturating_sub(tenant);
        let siblings = tenant.saturating_sub(client);
        self.shares.limits(self.limits[kind as usize], others, siblings)
    }
}

impl Share {
    pub(in crate::l7) fn new(client: Client, pool: Arc<Pool>, tenancy: Arc<Tenancy>) -> Arc<Self> {
        let (held, no_room) = (Held::default(), AtomicU32::new(0));
        let turns = Turns::new(tenancy.begun.clone());
        Arc::new(Self { client, pool, tenancy, held, turns, no_room })
    }

    pub(in crate::l7) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Waits until it is this client's turn to begin another request.
    pub(in crate::l7) async fn turn(&self) {
        self.pool.rounds.begin(&self.turns, self.pool.clock()).await;
    }

    /// Takes a place, which must be given back.
    pub(in crate::l7) fn take(&self, kind: Kind, amount: usize) -> Result<(), Full> {
        let (pool, limit) = (&self.pool, self.pool.limits[kind as usize]);
        let within = |held: usize| held.checked_add(amount).filter(|held| *held <= limit);
        let total = pool.held.of(kind);
        if total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_err() {
            return Err(self.refused(Full { kind, scope: Scope::Worker, limit }));
        }
        let held = [self.tenancy.held.add(kind, amount), self.held.add(kind, amount)];
        match pool.exceeded(kind, amount, held) {
            None => Ok(()),
            Some(full) => {
                self.give_back(kind, amount);
                Err(self.refused(full))
            }
        }
    }

    pub(in crate::l7) fn give_back(&self, kind: Kind, amount: usize) {
        self.held.subtract(kind, amount);
        self.tenancy.held.subtract(kind, amount);
        self.pool.held.subtract(kind, amount);
    }

    pub(in crate::l7) fn reserve(
        self: &Arc<Self>,
        kind: Kind,
        amount: usize,
    ) -> Result<Reserved, Full> {
        self.take(kind, amount)?;
        Ok(Reserved { share: self.clone(), kind, amount })
    }

    /// What an HTTP connection of this version may buffer, as far as it can be told beforehand.
    /// Its streams reserve what they need besides.
    pub(in crate::l7) fn connection(self: &Arc<Self>, version: Version) -> Result<Reserved, Full> {
        let bytes = match version {
            Version::Http1 => 2 * HTTP1_BUFFER,
            Version::Http2 => 2 * HTTP1_BUFFER + HPACK_TABLES,
        };
        self.reserve(Kind::Bytes, units(bytes))
    }

    /// What a head takes that comes in several frames, each of which is decoded as it comes.
    pub(in crate::l7) fn partial_head(self: &Arc<Self>) -> Result<Reserved, Full> {
        self.reserve(Kind::Bytes, units(MOST_OF_A_HEAD))
    }

    /// A place for one more copy of a request.
    pub(in crate::l7) fn mirror(self: &Arc<Self>, has_body: bool) -> Result<MirrorPermit, Full> {
        let copy = self.reserve(Kind::Copies, 1)?;
        let buffer = match has_body {
            true => Some(self.reserve(Kind::Bytes, units(COPY_BUFFER))?),
            false => None,
        };
        Ok(MirrorPermit { _copy: copy, _buffer: buffer })
    }

    /// What a body that may be sent again may keep.
    pub(in crate::l7) fn replay(self: &Arc<Self>) -> Option<Reserved> {
        self.reserve(Kind::Bytes, units(REPLAY_BUFFER)).ok()
    }

    /// Whose limit it is close to: fifteen sixteenths. Room is made from there on, before anybody must be refused.
    pub(in crate::l7) fn pressed(&self, kind: Kind) -> Option<Scope> {
        let (tenant, client) = (self.tenancy.held.get(kind), self.held.get(kind));
        let [of_tenant, of_client] = self.pool.limits_of(kind, tenant, client);
        let (total, limit) = (self.pool.held.get(kind), self.pool.limits[kind as usize]);
        let close = |held: usize, limit: usize| held >= limit - limit / 16;
        match (close(client, of_client), close(tenant, of_tenant), close(total, limit)) {
            (true, _, _) => Some(Scope::Client),
            (_, true, _) => Some(Scope::Tenant),
            (_, _, true) => Some(Scope::Worker),
            _ => None,
        }
    }

    /// Whether to look for what rests upstream for this client. Looking takes the lock that every request of the worker
    /// needs: where nothing was found, not again within a second.
    pub(in crate::l7) fn may_make_room(&self) -> bool {
        self.no_room.load(Ordering::Relaxed) != self.pool.clock().saturating_add(1)
    }

    /// Nothing was found.
    pub(in crate::l7) fn has_no_room(&self) {
        self.no_room.store(self.pool.clock().saturating_add(1), Ordering::Relaxed);
    }

    /// Of the same tenant?
    pub(in crate::l7) fn is_beside(&self, other: &Share) -> bool {
        Arc::ptr_eq(&self.tenancy, &other.tenancy)
    }

    /// Counts a refusal, and tells of it once in a while.
    fn refused(&self, full: Full) -> Full {
        self.pool.telemetry.agent().worker_limited.inc();
        if self.pool.told[full.scope as usize][full.kind as usize].is_due() {
            tracing::warn!(client = %self.client, "a waypoint worker refuses: {}", self.why(full));
        }
        full
    }

    /// For the log: who holds how much, and which settings say that this is all.
    pub(in crate::l7) fn why(&self, full: Full) -> String {
        let (what, setting, unit) = match full.kind {
            Kind::Connections => ("connections", "max_connections", 1),
            Kind::Requests => ("requests in flight", "max_requests", 1),
            Kind::Bytes => ("bytes of buffers", "max_buffered_bytes", UNIT),
            Kind::Copies => ("mirrored requests on their way", "", 1),
            Kind::Waiting => ("connections that are still to be taken", "", 1),
            Kind::Refused => ("refused requests whose answers are not taken", "max_requests", 1),
        };
        let limit = full.limit * unit;
        let separator = if setting.is_empty() { "" } else { ", " };
        match full.scope {
            Scope::Client => format!(
                "{} may hold {limit} {what} of the namespace's worker now, as one client beside the others ([layer7] \
                 {setting}{separator}client_share)",
                self.client
            ),
            Scope::Tenant => format!(
                "{} may hold {limit} {what} of the namespace's worker together now, beside the others ([layer7] \
                 {setting}{separator}tenant_share)",
                self.client.tenant()
            ),
            Scope::Worker => format!(
                "the namespace's worker has {limit} {what}, as many as it may ([layer7] {setting})"
            ),
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.share.give_back(self.kind, self.amount);
    }
}

impl std::fmt::Debug for Reserved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.kind, self.amount)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::base::Identity;

    fn pool(connections: usize, shares: [usize; 2]) -> Arc<Pool> {
        let settings = WorkerSettings {
            max_connections: connections,
            tenant_share: shares[0],
            client_share: shares[1],
            ..WorkerSettings::for_tests()
        };
        Pool::new(&settings, Telemetry::without_log())
    }

    /// Clients of as many tenants as `of` says, with so many clients each; the first tenant's have no identity.
    fn clients(pool: &Arc<Pool>, of: &[u8]) -> Vec<Vec<Arc<Share>>> {
        let tenant = |(number, count): (usize, &u8)| {
            let tenancy = Arc::<Tenancy>::default();
            let identity = Identity::new("cluster.local", format!("tenant-{number}"), "default");
            let identity = (number > 0).then_some(&identity);
            let client = |last| Client::new(identity, Ipv4Addr::new(10, 0, 0, last).into());
            let share = |last| Share::new(client(last), pool.clone(), tenancy.clone());
            (0..*count).map(share).collect()
        };
        of.iter().enumerate().map(tenant).collect()
    }

    /// Takes as many places as there are.
    fn grab(share: &Arc<Share>) -> Vec<Reserved> {
        std::iter::from_fn(|| share.reserve(Kind::Connections, 1).ok()).collect()
    }

    #[test]
    fn whoever_takes_all_it_can_leaves_something_for_the_next() {
        let pool = pool(1000, [80, 80]);
        let all = clients(&pool, &[1, 3, 1]);
        let [outsider, greedy, other] = [&all[0][0], &all[1][0], &all[2][0]];
        let first = grab(greedy);
        assert_eq!(first.len(), 640, "80 % of 80 %");
        let second = grab(&all[1][1]);
        assert_eq!(second.len(), 128, "80 % of what its sibling leaves of 800");
        let third = grab(&all[1][2]);
        assert_eq!(first.len() + second.len() + third.len(), 793, "the tenant has 800");
        let next = grab(other);
        assert_eq!(next.len(), 132, "64 % of what the tenant leaves");
        assert_eq!(grab(outsider).len(), 48);
        drop(first);
        assert_eq!(grab(other).len() + next.len(), 541, "what is given back is there for others");
    }

    #[test]
    fn the_first_place_is_anybodys_and_the_sum_holds() {
        let pool = pool(2, [1, 1]);
        let all = clients(&pool, &[1, 1, 1]);
        let held: Vec<_> = all.iter().map(|tenant| grab(&tenant[0])).collect();
        let held: Vec<_> = held.iter().map(Vec::len).collect();
        assert_eq!(held, [1, 1, 0]);
    }

    #[test]
    fn a_refusal_names_client_limit_and_setting() {
        let pool = pool(10, [100, 50]);
        let all = clients(&pool, &[2]);
        let _held = grab(&all[0][0]);
        let full = all[0][0].reserve(Kind::Connections, 1).unwrap_err();
        let why = all[0][0].why(full);
        for part in
            ["10.0.0.0 without an identity", "5 connections", "max_connections, client_share"]
        {
            assert!(why.contains(part), "{why}");
        }
    }

    proptest! {
        /// However places are taken and given back, no sum is exceeded, nobody holds more than its share when it is
        /// given something, and all is given back in the end.
        #[test]
        fn sums_and_shares_hold(
            steps in proptest::collection::vec((0usize..3, 0usize..2, 1usize..40, any::<bool>()), 1..200),
            limit in 1usize..300, tenant in 1usize..=100, client in 1usize..=100,
        ) {
            let pool = pool(limit, [tenant, client]);
            let all = clients(&pool, &[2, 2, 2]);
            let mut held: Vec<(usize, usize, Reserved)> = Vec::new();
            for (tenant, client, amount, gives_back) in steps {
                if gives_back && !held.is_empty() {
                    held.swap_remove(amount % held.len());
                    continue;
                }
                let share = &all[tenant][client];
                let sum = |of: &dyn Fn(usize, usize) -> bool| -> usize {
                    held.iter().filter(|it| of(it.0, it.1)).map(|it| it.2.amount).sum()
                };
                let before = [sum(&|_, _| true), sum(&|it, _| it == tenant), sum(&|t, c| (t, c) == (tenant, client))];
                let [of_tenant, of_client] =
                    pool.shares.limits(limit, before[0] - before[1], before[1] - before[2]);
                let fits = before[0] + amount <= limit
                    && (before[1] + amount <= of_tenant || before[1] == 0)
                    && (before[2] + amount <= of_client || before[2] == 0);
                let reserved = share.reserve(Kind::Connections, amount);
                prop_assert_eq!(reserved.is_ok(), fits);
                held.extend(reserved.ok().map(|it| (tenant, client, it)));
                let now: usize = held.iter().map(|it| it.2.amount).sum();
                prop_assert!(now <= limit);
                prop_assert_eq!(pool.held.get(Kind::Connections), now);
            }
            drop(held);
            prop_assert_eq!(pool.held.get(Kind::Connections), 0);
            for share in all.iter().flatten() {
                prop_assert_eq!(share.held.get(Kind::Connections), 0);
                prop_assert_eq!(share.tenancy.held.get(Kind::Connections), 0);
            }
        }
    }

    #[test]
    fn the_sum_holds_when_many_threads_take_at_once() {
        let pool = pool(100, [90, 90]);
        let all = clients(&pool, &[2, 2]);
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for share in all.iter().flatten() {
                scope.spawn(|| {
                    let mut held = Vec::new();
                    for round in 0..30_000 {
                        if let Ok(place) = share.reserve(Kind::Connections, 1) {
                            most.fetch_max(
                                inside.fetch_add(1, Ordering::SeqCst) + 1,
                                Ordering::SeqCst,
                            );
                            held.push(place);
                        }
                        if round % 3 == 0 && !held.is_empty() {
                            inside.fetch_sub(1, Ordering::SeqCst);
                            held.swap_remove(round % held.len());
                        }
                    }
                    inside.fetch_sub(held.len(), Ordering::SeqCst);
                });
            }
        });
        assert!(most.into_inner() <= 100);
        assert_eq!(pool.held.get(Kind::Connections), 0, "all is given back");
    }
}
