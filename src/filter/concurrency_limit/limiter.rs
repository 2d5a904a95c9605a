//! The requests in progress under one limit, of one pod and port: how many, whose, and whether one more may be.
//!
//! Letting a request in takes two atomic additions for its client and one exchange for the sum, which never exceeds the limit. What a
//! client has may be exceeded by as many requests as are decided in the same moment.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::gradient::{Adaptive, Gradient, Sample};
use super::shares::{Seat, Shares, is_fair};
use crate::base::{Identity, ObjectKey, Str};

/// Pods and ports of one limit. Beyond that those are forgotten that have nothing in progress, and others share one.
const MOST: usize = 1024;

/// All limits in use on this node, for the metrics.
static IN_USE: Mutex<Vec<Weak<Limiter>>> = Mutex::new(Vec::new());

/// The limiters of one policy, one for each pod and port. The agent reads every limit, and has limiters where requests come.
#[derive(Debug, Default)]
pub(super) struct Limiters {
    hasher: RandomState,
    all: ArcSwap<HashMap<u64, Arc<Limiter>>>,
}

/// What is limited.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Subject<'a> {
    pub(super) service: Option<&'a ObjectKey>,
    pub(super) port: u16,
    pub(super) pod: &'a str,
}

#[derive(Debug)]
pub(super) struct Limiter {
    shown: Shown,
    epoch: Instant,
    hasher: RandomState,
    in_progress: AtomicU32,
    shares: Shares,
    gradient: Gradient,
    /// The limit that held for the last request.
    limit: AtomicU32,
    shed: [AtomicU64; 3],
}

/// Whose limiter it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub policy: ObjectKey,
    pub service: Option<ObjectKey>,
    pub port: u16,
    pub pod: Str,
}

/// A limit in use, for the metrics.
#[derive(Clone, Debug)]
pub struct LimitInUse {
    pub of: Shown,
    pub limit: u32,
    pub in_progress: u32,
    /// Requests that were not let in, by [`Shed::ALL`].
    pub shed: [u64; 3],
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// The limit is reached.
    Limit,
    /// What is left is for requests of higher priority.
    Priority,
    /// The client has its share.
    Share,
}

/// How a request is to be judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) limit: u32,
    /// How much of it requests of this priority may use.
    pub(super) room: u32,
    pub(super) client: Option<&'a Identity>,
    /// Clients have shares.
    pub(super) fair: bool,
    /// It is let in whatever there is.
    pub(super) always: bool,
}

/// The place of a request in a limit, given back when dropped.
#[derive(Debug)]
pub struct Place {
    limiter: Arc<Limiter>,
    seats: [Seat; 2],
    began: u64,
    /// Few others were in progress.
    calm: bool,
    adaptive: Option<Arc<Adaptive>>,
}

impl Shed {
    pub const ALL: [Shed; 3] = [Shed::Limit, Shed::Priority, Shed::Share];

    /// As the metrics show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Shed::Limit => "limit",
            Shed::Priority => "priority",
            Shed::Share => "share",
        }
    }
}

impl Limiters {
    pub(super) fn of(&self, policy: &ObjectKey, subject: Subject<'_>) -> Arc<Limiter> {
        let hash = self.hasher.hash_one(subject);
        match self.all.load().get(&hash) {
            Some(limiter) => limiter.clone(),
            None => self.add(policy, subject, hash),
        }
    }

    fn add(&self, policy: &ObjectKey, subject: Subject<'_>, hash: u64) -> Arc<Limiter> {
        let new = Arc::new(Limiter::new(policy, subject));
        let (mut key, mut added) = (hash, false);
        self.all.rcu(|all| {
            let mut all = HashMap::clone(all);
            if all.len() >= MOST {
                all.retain(|_, limiter| limiter.in_progress() > 0);
            }
            // Where all are in use, others share one.
            key = if all.len() >= MOST { 0 } else { hash };
            added = !all.contains_key(&key);
            all.entry(key).or_insert_with(|| new.clone());
            all
        });
        if added {
            let mut in_use = IN_USE.lock();
            in_use.retain(|limiter| limiter.strong_count() > 0);
            in_use.push(Arc::downgrade(&new));
        }
        self.all.load().get(&key).cloned().unwrap_or(new)
    }
}

/// The limits in use on this node.
pub fn limits_in_use() -> Vec<LimitInUse> {
    let limiters: Vec<_> = IN_USE.lock().iter().filter_map(Weak::upgrade).collect();
    let shown = limiters.iter().map(|limiter| LimitInUse {
        of: limiter.shown.clone(),
        limit: limiter.limit.load(Ordering::Relaxed),
        in_progress: limiter.in_progress(),
        shed: limiter.shed.each_ref().map(|count| count.load(Ordering::Relaxed)),
    });
    shown.collect()
}

impl Limiter {
    fn new(policy: &ObjectKey, subject: Subject<'_>) -> Self {
        let Subject { service, port, pod } = subject;
        let shown =
            Shown { policy: policy.clone(), service: service.cloned(), port, pod: pod.into() };
        Self {
            shown,
            epoch: Instant::now(),
            hasher: RandomState::new(),
            in_progress: AtomicU32::new(0),
            shares: Shares::default(),
            gradient: Gradient::default(),
            limit: AtomicU32::new(0),
            shed: Default::default(),
        }
    }

    pub(super) fn in_progress(&self) -> u32 {
        self.in_progress.load(Ordering::Relaxed)
    }

    /// The limit that the latency permits at present.
    pub(super) fn adapted(&self, by: &Adaptive) -> u32 {
        self.gradient.limit(by)
    }

    /// A place for one more request, or why there is none; with `always` a place, and why there would be none.
    pub(super) fn enter(
        self: Arc<Self>,
        asked: &Asked<'_>,
        adaptive: Option<&Arc<Adaptive>>,
    ) -> (Option<Place>, Option<Shed>) {
        self.limit.store(asked.limit, Ordering::Relaxed);
        let seats = self.seats(asked.client);
        let shed = self.take(asked, seats);
        if let Some(shed) = shed {
            self.shed[shed as usize].fetch_add(1, Ordering::Relaxed);
            if !asked.always {
                seats.into_iter().for_each(|seat| self.shares.leave(seat));
                return (None, Some(shed));
            }
            self.in_progress.fetch_add(1, Ordering::Relaxed);
        }
        let in_progress = self.in_progress();
        let calm = adaptive.is_some_and(|by| in_progress <= by.min);
        if adaptive.is_some() {
            self.gradient.note(in_progress);
        }
        let (began, adaptive) = (self.now(), adaptive.cloned());
        (Some(Place { limiter: self, seats, began, calm, adaptive }), shed)
    }

    /// Of the client's namespace, and of its identity. All plaintext counts as one client.
    fn seats(&self, client: Option<&Identity>) -> [Seat; 2] {
        let namespace = client.map(|it| (&it.trust_domain, &it.namespace));
        let whole = client.map(|it| (&it.trust_domain, &it.namespace, &it.service_account));
        [self.hasher.hash_one((0, namespace)), self.hasher.hash_one((1, whole))]
            .map(|hash| self.shares.enter(hash))
    }

    /// Adds one request to the sum, unless it says why not.
    fn take(&self, asked: &Asked<'_>, [namespace, identity]: [Seat; 2]) -> Option<Shed> {
        let mut now = self.in_progress();
        loop {
            if now >= asked.room {
                return Some(if now < asked.limit { Shed::Priority } else { Shed::Limit });
            }
            if asked.fair && !is_fair(asked.room - now, namespace.before, identity.before) {
                return Some(Shed::Share);
            }
            let counted = self.in_progress.compare_exchange_weak(
                now,
                now + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match counted {
                Ok(_) => return None,
                Err(present) => now = present,
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX / 4)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.in_progress() == 0 && self.shares.sum() == 0
    }
}

impl Place {
    /// Whether somebody wants to know when the response came.
    pub fn is_timed(&self) -> bool {
        self.adaptive.is_some()
    }

    /// The response came. `sent`: when the client's part of the request was at its end; `None` if that was before it was let in.
    pub fn answered(&self, sent: Option<Instant>) {
        let Some(by) = &self.adaptive else { return };
        let limiter = &self.limiter;
        let now = limiter.now();
        let sent = sent.map(|sent| sent.saturating_duration_since(limiter.epoch));
        let sent = sent.map_or(0, |sent| u64::try_from(sent.as_nanos()).unwrap_or(u64::MAX));
        let latency = Duration::from_nanos(now.saturating_sub(self.began.max(sent)));
        let calm = self.calm && limiter.in_progress() <= by.min;
        limiter.gradient.heard(by, Sample { began: self.began, now, latency, calm });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limiter.in_progress.fetch_sub(1, Ordering::Relaxed);
        self.seats.into_iter().for_each(|seat| self.limiter.shares.leave(seat));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;

    fn limiters() -> (Limiters, ObjectKey) {
        (Limiters::default(), ObjectKey::new("shop", "limit"))
    }

    fn subject(pod: &str) -> Subject<'_> {
        Subject { service: None, port: 80, pod }
    }

    fn asked(limit: u32, client: &Identity) -> Asked<'_> {
        Asked { limit, room: limit, client: Some(client), fair: true, always: false }
    }

    #[test]
    fn pods_and_ports_have_limiters_of_their_own_within_a_bound() {
        let (limiters, policy) = limiters();
        let one = limiters.of(&policy, subject("a"));
        assert!(Arc::ptr_eq(&one, &limiters.of(&policy, subject("a"))));
        assert!(!Arc::ptr_eq(&one, &limiters.of(&policy, Subject { port: 81, ..subject("a") })));
        let client = Identity::new("cluster.local", "shop", "a");
        let held: Vec<_> = (0..2 * MOST)
            .filter_map(|pod| {
                let limiter = limiters.of(&policy, subject(&pod.to_string()));
                limiter.enter(&asked(u32::MAX, &client), None).0
            })
            .collect();
        assert_eq!(held.len(), 2 * MOST);
        assert!(limiters.all.load().len() <= MOST + 1, "{}", limiters.all.load().len());
        drop(held);
        limiters.of(&policy, subject("new"));
        assert!(limiters.all.load().len() <= 2, "those that rest are forgotten");
    }

    #[test]
    fn lower_priorities_leave_the_rest_to_higher_ones() {
        let (limiters, policy) = limiters();
        let limiter = limiters.of(&policy, subject("a"));
        let clients: Vec<_> =
            (0..10).map(|at| Identity::new("cluster.local", format!("n{at}"), "a")).collect();
        let mut held = Vec::new();
        for (room, refused) in [(5, Shed::Priority), (9, Shed::Priority), (10, Shed::Limit)] {
            let shed = loop {
                let client = &clients[held.len() % clients.len()];
                let asked = Asked { room, fair: false, ..asked(10, client) };
                match limiter.clone().enter(&asked, None) {
                    (Some(place), None) => held.push(place),
                    (_, shed) => break shed,
                }
            };
            assert_eq!((held.len() as u32, shed), (room, Some(refused)));
        }
    }

    #[test]
    fn in_shadow_mode_all_are_let_in_and_counted() {
        let (limiters, policy) = limiters();
        let limiter = limiters.of(&policy, subject("shadow"));
        let client = Identity::new("cluster.local", "shop", "a");
        let asked = Asked { always: true, ..asked(2, &client) };
        let entered: Vec<_> = (0..3).map(|_| limiter.clone().enter(&asked, None)).collect();
        assert!(entered.iter().all(|(held, _)| held.is_some()));
        assert_eq!(entered.iter().filter(|(_, shed)| shed.is_some()).count(), 2);
        assert_eq!(limiter.in_progress(), 3);
        drop(entered);
        assert!(limiter.is_empty());
        let shown = limits_in_use();
        let shown = shown.iter().find(|it| it.of.pod == "shadow").unwrap();
        assert_eq!((shown.limit, shown.in_progress, shown.shed), (2, 0, [1, 0, 1]));
    }

    proptest! {
        /// Whoever comes and goes: the limit is never exceeded, and at the end nothing is left.
        #[test]
        fn a_limit_is_never_exceeded_and_places_return(
            limit in 1u32..30,
            steps in proptest::collection::vec((0usize..6, any::<bool>(), 0usize..40), 1..300),
        ) {
            let (limiters, policy) = limiters();
            let limiter = limiters.of(&policy, subject("a"));
            let clients: Vec<_> =
                (0..6).map(|at| Identity::new("t", format!("n{}", at / 2), format!("s{at}"))).collect();
            let mut held = Vec::new();
            for (client, comes, which) in steps {
                if comes {
                    held.extend(limiter.clone().enter(&asked(limit, &clients[client]), None).0);
                } else if which < held.len() {
                    held.swap_remove(which);
                }
                prop_assert!(limiter.in_progress() <= limit);
                prop_assert_eq!(limiter.in_progress() as usize, held.len());
            }
            drop(held);
            prop_assert!(limiter.is_empty());
        }

        /// Clients that want all there is leave each other what they need: one that has few in progress is always let in once the
        /// others have heard of it.
        #[test]
        fn an_excess_takes_nothing_from_others(greedy in 1usize..5, limit in 60u32..400) {
            let (limiters, policy) = limiters();
            let limiter = limiters.of(&policy, subject("a"));
            let client = |name: String| Identity::new("t", name, "s");
            let enter = |who: &Identity| limiter.clone().enter(&asked(limit, who), None).0;
            let modest = client("modest".into());
            let mut theirs = std::collections::VecDeque::new();
            for round in 0..3 * limit as usize {
                for at in 0..greedy {
                    theirs.extend(enter(&client(format!("greedy{at}"))));
                }
                let one = enter(&modest);
                prop_assert!(one.is_some(), "round {round}: {} in progress", limiter.in_progress());
                // One of theirs ends.
                theirs.pop_front();
            }
        }
    }

    #[test]
    fn threads_exceed_no_limit_and_leave_nothing() {
        let (limiters, policy) = limiters();
        let limiter = limiters.of(&policy, subject("a"));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (limiter, over) = (&limiter, &over);
                scope.spawn(move || {
                    let client = Identity::new("t", format!("n{thread}"), "s");
                    for _ in 0..2_000 {
                        let held: Vec<_> = (0..4)
                            .filter_map(|_| limiter.clone().enter(&asked(8, &client), None).0)
                            .collect();
                        if limiter.in_progress() > 8 {
                            over.store(true, Ordering::Relaxed);
                        }
                        drop(held);
                    }
                });
            }
        });
        assert!(!over.load(Ordering::Relaxed));
        assert!(limiter.is_empty());
    }
}
