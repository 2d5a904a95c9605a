//! One node's part of a limit for one service.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::UNIT;
use super::moved::Moved;
use crate::base::Str;
use crate::filter::rate_limit::buckets::{Buckets, Rate, Taken};

/// How the pods of a service are spread over nodes.
pub trait Spread: fmt::Debug + Sync {
    /// Another one wherever `pods` may say something else.
    fn version(&self) -> u64;
    fn pods(&self) -> Pods;
}

/// Pods of a service, ready or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// On this node.
    pub here: u32,
    /// On all nodes.
    pub all: u32,
}

impl Pods {
    /// At least one is here: somebody is counting.
    pub(super) fn counts(self) -> (u64, u64) {
        let here = u64::from(self.here).max(1);
        (here, u64::from(self.all).max(here))
    }
}

/// A part. Its buckets are those of local limits, in thousandths of tokens.
#[derive(Debug)]
pub struct Part {
    pub buckets: Arc<Buckets>,
    pub moved: Moved,
    version: AtomicU64,
    pods: AtomicU64,
    /// Woken when somebody lacks tokens; empty while nobody exchanges any.
    exchange: OnceLock<Arc<Notify>>,
}

impl Default for Part {
    fn default() -> Self {
        Self::of(&Str::default(), true)
    }
}

impl Part {
    /// For a service of this namespace, of a limit with keys or without.
    pub fn of(namespace: &Str, has_keys: bool) -> Self {
        Self {
            buckets: Buckets::new(namespace, has_keys),
            moved: Moved::default(),
            version: AtomicU64::new(u64::MAX),
            pods: AtomicU64::new(0),
            exchange: OnceLock::new(),
        }
    }

    /// From now on what is lacking is told to whoever waits for `wake`.
    pub fn join(&self, wake: &Arc<Notify>) {
        _ = self.exchange.set(wake.clone());
    }

    pub fn is_joined(&self) -> bool {
        self.exchange.get().is_some()
    }

    /// Counted once for each version.
    pub fn pods(&self, spread: &dyn Spread) -> Pods {
        let version = spread.version();
        if self.version.load(Ordering::Acquire) == version {
            let pods = self.pods.load(Ordering::Relaxed);
            return Pods { here: (pods >> 32) as u32, all: pods as u32 };
        }
        let pods = spread.pods();
        self.pods.store(u64::from(pods.here) << 32 | u64::from(pods.all), Ordering::Relaxed);
        self.version.store(version, Ordering::Release);
        pods
    }

    /// Takes whole tokens from the part's bucket of a key, or else those that were moved here. `rate` is the part's. By `hash` the
    /// bucket of `id` is found. Returns its state in whole tokens.
    pub fn take(&self, id: u64, hash: u64, rate: Rate, tokens: u64) -> Taken {
        let needed = tokens.saturating_mul(UNIT);
        let mut state = self.buckets.take(hash, rate, needed);
        state.left /= UNIT;
        if !state.taken
            && let Some(exchange) = self.exchange.get()
        {
            state.taken = self.moved.take(id, hash, needed, Instant::now());
            if self.moved.is_first() {
                exchange.notify_one();
            }
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    #[derive(Debug, Default)]
    struct Counting(AtomicU64, AtomicUsize);

    impl Spread for Counting {
        fn version(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn pods(&self) -> Pods {
            self.1.fetch_add(1, Ordering::Relaxed);
            Pods { here: 2, all: 7 }
        }
    }

    #[test]
    fn pods_are_counted_once_for_a_version() {
        let (part, spread) = (Part::default(), Counting::default());
        for _ in 0..3 {
            assert_eq!(part.pods(&spread), Pods { here: 2, all: 7 });
        }
        assert_eq!(spread.1.load(Ordering::Relaxed), 1);
        spread.0.store(1, Ordering::Relaxed);
        part.pods(&spread);
        assert_eq!(spread.1.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_part_has_not_is_taken_from_what_was_moved_here() {
        let (part, wake) = (Part::default(), Arc::new(Notify::new()));
        let rate = Rate { tokens: 1, interval: Duration::from_secs(1000), burst: 2 * UNIT };
        let hash = part.buckets.hash(&7u64);
        let take = || part.take(7, hash, rate, 1).taken;
        assert_eq!([take(), take(), take()], [true, true, false]);
        part.join(&wake);
        assert!(!take());
        wake.notified().await;
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        assert!(part.moved.give(7, hash, UNIT, now + second));
        assert_eq!([take(), take()], [true, false], "each once");
        assert!(part.moved.give(7, hash, 3 * UNIT, now + second));
        tokio::time::advance(second).await;
        assert_eq!([take(), take()], [true, false], "all but one are too old");
    }
}
