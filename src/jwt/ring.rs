//! Key sets that somebody fetches: what is known of each, and who waits for it.
//!
//! Judging a token only reads. A request whose token needs newer keys waits ([`KeyWait`]) while one task for each address
//! (`jwks`) fetches them, so that many requests cause one fetch. The fetched keys depend on the address alone: nothing that one
//! namespace says of an address changes what another one gets from it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use futures_util::future::select_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::{Keys, KeysUri};
use crate::base::Str;

/// Addresses at the most, of all namespaces: a fetch keeps a quarter of a MiB at the most while it lasts.
const MAX_SETS: usize = 256;
/// Addresses that one namespace is the first to name, at the most; few have more than one issuer.
const MAX_NAMESPACE_SETS: usize = 16;
/// Requests that wait for one address at the most. More would hold what others need for nothing but an unknown key.
const MAX_WAITING: usize = 128;

/// Where the keys of a rule are fetched.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KeySource {
    pub uri: Arc<KeysUri>,
    /// Of the object with the rule.
    pub namespace: Str,
    /// For how long a request waits for keys.
    pub timeout: Duration,
}

/// All sets that were wanted so far.
pub struct KeyRing {
    sets: ArcSwap<HashMap<Arc<KeysUri>, Arc<KeySet>>>,
    /// Held while sets are added or removed.
    edits: Mutex<mpsc::Sender<Arc<KeySet>>>,
    added: Mutex<Option<mpsc::Receiver<Arc<KeySet>>>>,
}

/// The set of one address.
pub struct KeySet {
    pub uri: Arc<KeysUri>,
    /// Whose namespace wanted it first.
    pub namespace: Str,
    known: ArcSwap<Known>,
    /// Counts fetches that ended.
    rounds: watch::Sender<u64>,
    wanted: Notify,
    waiting: AtomicUsize,
    /// Milliseconds.
    longest_wait: AtomicU64,
}

/// What is known of a set.
#[derive(Clone)]
pub struct Known {
    /// The last that were good.
    pub keys: Option<Keys>,
    /// When the last fetch that ended began.
    pub begun: Option<Instant>,
    /// No request causes a fetch before.
    pub next: Instant,
    /// Why the last fetch failed.
    pub failure: Option<Str>,
}

impl KeyRing {
    pub fn new() -> Arc<Self> {
        let (sender, receiver) = mpsc::channel(MAX_SETS);
        let (edits, added) = (Mutex::new(sender), Mutex::new(Some(receiver)));
        Arc::new(Self { sets: ArcSwap::default(), edits, added })
    }

    /// Sets that have been added, for the one who fetches them; `None`: somebody has taken it.
    pub fn added(&self) -> Option<mpsc::Receiver<Arc<KeySet>>> {
        self.added.lock().take()
    }

    /// What is known of an address that was wanted before.
    pub fn known(&self, uri: &KeysUri) -> Option<Guard<Arc<Known>>> {
        Some(self.sets.load().get(uri)?.known())
    }

    /// All sets, for dumps.
    pub fn sets(&self) -> Vec<Arc<KeySet>> {
        let mut sets: Vec<_> = self.sets.load().values().cloned().collect();
        sets.sort_by_cached_key(|set| set.uri.to_string());
        sets
    }

    /// The set of an address, from now on one that is fetched. `None`: there are too many.
    fn set(&self, source: &KeySource) -> Option<Arc<KeySet>> {
        if let Some(set) = self.sets.load().get(&source.uri) {
            return Some(set.clone());
        }
        let added = self.edits.lock();
        let sets = self.sets.load_full();
        if let Some(set) = sets.get(&source.uri) {
            return Some(set.clone());
        }
        let of_namespace = sets.values().filter(|set| set.namespace == source.namespace);
        if sets.len() >= MAX_SETS || of_namespace.count() >= MAX_NAMESPACE_SETS {
            return None;
        }
        let set = Arc::new(KeySet::new(source));
        added.try_send(set.clone()).ok()?;
        let mut sets = HashMap::clone(&sets);
        sets.insert(source.uri.clone(), set.clone());
        self.sets.store(Arc::new(sets));
        Some(set)
    }

    /// Forgets a set that no policy names.
    pub fn remove(&self, uri: &KeysUri) {
        let _edits = self.edits.lock();
        let mut sets = HashMap::clone(&self.sets.load());
        sets.remove(uri);
        self.sets.store(Arc::new(sets));
    }
}

/// How many, since what they are changes.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} key sets", self.sets.load().len())
    }
}

impl KeySet {
    fn new(source: &KeySource) -> Self {
        let known = Known { keys: None, begun: None, next: Instant::now(), failure: None };
        Self {
            uri: source.uri.clone(),
            namespace: source.namespace.clone(),
            known: ArcSwap::from_pointee(known),
            rounds: watch::Sender::new(0),
            wanted: Notify::new(),
            waiting: AtomicUsize::new(0),
            longest_wait: AtomicU64::new(0),
        }
    }

    pub fn known(&self) -> Guard<Arc<Known>> {
        self.known.load()
    }

    /// A fetch has ended.
    pub fn learn(&self, known: Known) {
        self.known.store(Arc::new(known));
        self.rounds.send_modify(|round| *round += 1);
    }

    /// Ends when a request has begun to wait.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Some request waits.
    pub fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// The longest that any rule waits.
    pub fn longest_wait(&self) -> Duration {
        Duration::from_millis(self.longest_wait.load(Ordering::Relaxed))
    }
}

/// One of those that wait, until it is dropped.
struct Waiter {
    set: Arc<KeySet>,
    rounds: watch::Receiver<u64>,
    deadline: Instant,
}

impl Waiter {
    fn new(set: Arc<KeySet>, deadline: Instant, timeout: Duration) -> Option<Self> {
        let before = set.waiting.fetch_add(1, Ordering::Relaxed);
        let rounds = set.rounds.subscribe();
        let waiter = Self { set, rounds, deadline };
        if before >= MAX_WAITING {
            return None;
        }
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        waiter.set.longest_wait.fetch_max(timeout, Ordering::Relaxed);
        Some(waiter)
    }

    /// Until a fetch has ended. False: none does in time.
    async fn next(&mut self) -> bool {
        if self.set.known().next > self.deadline {
            return false;
        }
        self.set.wanted.notify_one();
        matches!(timeout_at(self.deadline, self.rounds.changed()).await, Ok(Ok(())))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.set.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that waits for keys that its token may be of.
pub struct KeyWait {
    since: Instant,
    waiters: Vec<Waiter>,
    /// Nobody has judged again since this waits.
    is_new: bool,
    /// Sources that have no place.
    pub refused: usize,
}

impl KeyWait {
    pub fn new(ring: &KeyRing, sources: &[Arc<KeySource>]) -> Self {
        let since = Instant::now();
        let waiters = sources.iter().filter_map(|source| {
            Waiter::new(ring.set(source)?, since + source.timeout, source.timeout)
        });
        let waiters: Vec<_> = waiters.collect();
        let refused = sources.len() - waiters.len();
        Self { since, waiters, is_new: true, refused }
    }

    /// Waits until some keys have been fetched, so that the token should be judged again. False: nothing new will come in time.
    pub async fn next(&mut self) -> bool {
        if std::mem::take(&mut self.is_new) && !self.waiters.is_empty() {
            // Some may have come between the first judgement and this.
            return true;
        }
        // Keys that were asked for after the token came are as new as they get.
        self.waiters.retain(|it| it.set.known().begun.is_none_or(|begun| begun < self.since));
        while !self.waiters.is_empty() {
            let waits = self.waiters.iter_mut().map(|waiter| Box::pin(waiter.next()));
            let (learnt, index, _) = select_all(waits).await;
            if learnt {
                return true;
            }
            self.waiters.remove(index);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(host: &str, namespace: &str) -> Arc<KeySource> {
        let uri = Arc::new(KeysUri::parse(&format!("https://{host}.example/keys")).unwrap());
        let timeout = Duration::from_secs(5);
        Arc::new(KeySource { uri, namespace: namespace.into(), timeout })
    }

    fn learnt(set: &KeySet, begun: Instant) {
        let next = begun + Duration::from_secs(3);
        set.learn(Known { keys: Some(Keys::none()), begun: Some(begun), next, failure: None });
    }

    /// Waits after the judgement that is always made once more.
    async fn again(wait: &mut KeyWait) -> bool {
        assert!(wait.next().await);
        wait.next().await
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_woken_by_one_fetch_and_ask_for_one_more_at_the_most() {
        let ring = KeyRing::new();
        let mut added = ring.added().unwrap();
        assert!(ring.known(&source("a", "shop").uri).is_none());
        let waits: Vec<_> = (0..10)
            .map(|_| {
                let mut wait = KeyWait::new(&ring, &[source("a", "shop")]);
                tokio::spawn(async move { (again(&mut wait).await, wait.next().await) })
            })
            .collect();
        let set = added.recv().await.unwrap();
        set.wanted().await;
        assert!(set.is_wanted());
        tokio::time::advance(Duration::from_millis(100)).await;
        learnt(&set, Instant::now());
        for wait in waits {
            assert_eq!(wait.await.unwrap(), (true, false), "keys are newer than the token");
        }
        assert!(!set.is_wanted());
        assert!(added.try_recv().is_err(), "one set for all");
        assert_eq!(set.longest_wait(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_it_may_or_for_a_fetch_that_comes_too_late() {
        let ring = KeyRing::new();
        let mut added = ring.added().unwrap();
        let begun = Instant::now();
        assert!(!again(&mut KeyWait::new(&ring, &[source("a", "shop")])).await);
        assert!((5..6).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        let set = added.recv().await.unwrap();
        let next = Instant::now() + Duration::from_secs(6);
        let failure = Some("away".into());
        set.learn(Known { keys: None, begun: Some(begun), next, failure });
        let begun = Instant::now();
        assert!(!again(&mut KeyWait::new(&ring, &[source("a", "shop")])).await);
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    /// A fetch that began before the token came may have got keys that are older.
    #[tokio::test(start_paused = true)]
    async fn keys_that_were_asked_for_before_are_not_the_last_word() {
        let ring = KeyRing::new();
        let mut wait = KeyWait::new(&ring, &[source("a", "shop")]);
        let set = ring.sets()[0].clone();
        tokio::time::advance(Duration::from_millis(1)).await;
        let mut late = KeyWait::new(&ring, &[source("a", "shop")]);
        learnt(&set, wait.since);
        assert_eq!((again(&mut wait).await, late.waiters.len()), (false, 1));
        let learns = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            learnt(&set, Instant::now());
        };
        assert!(again(&mut late).await, "of the fetch before");
        let (learnt, ()) = tokio::join!(late.next(), learns);
        assert!(learnt);
        assert!(!late.next().await);
    }

    #[tokio::test(start_paused = true)]
    async fn sets_and_those_who_wait_are_bounded() {
        let ring = KeyRing::new();
        for namespace in 0..40 {
            for host in 0..20 {
                let source = source(&format!("n{namespace}-{host}"), &format!("n{namespace}"));
                _ = ring.set(&source);
            }
            let expected = MAX_SETS.min((namespace + 1) * MAX_NAMESPACE_SETS);
            assert_eq!(ring.sets().len(), expected);
        }
        ring.remove(&source("n0-0", "n0").uri);
        assert!(ring.set(&source("n39-0", "n39")).is_none(), "the channel was never read");
        let known = source("n1-0", "other");
        let waits: Vec<_> =
            (0..200).map(|_| KeyWait::new(&ring, std::slice::from_ref(&known))).collect();
        let waiting = waits.iter().filter(|wait| wait.refused == 0).count();
        assert_eq!(waiting, MAX_WAITING);
        drop(waits);
        assert!(!ring.set(&known).unwrap().is_wanted());
    }
}
