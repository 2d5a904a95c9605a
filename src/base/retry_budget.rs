//! Retry budgets: how many requests to a destination may be sent again, as a share of those that are sent at all (Istio,
//! `retryBudget`; Gateway API, `retryConstraint`).
//!
//! Two ways to count. Without an interval, retries in progress are compared with requests in progress, as in Envoy. With one,
//! retries are compared with the requests that arrived in the interval, so that whatever fails, and however fast, the destination
//! gets no more than the requests and the share. A minimum holds besides: with little traffic, the share is nothing.
//!
//! Atomics only. Where requests of several threads meet, one may be refused that had just fitted; never one more is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Str;

/// What may be sent again.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RetryBudget {
    /// The object that says it, for messages.
    pub by: Str,
    /// Retries for each million requests.
    pub per_million: u32,
    /// How long a request counts from its arrival; 0: as long as it is in progress.
    pub interval: Duration,
    pub least: LeastRetries,
}

/// What may be sent again however few requests there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum LeastRetries {
    /// So many in progress.
    AtOnce(u32),
    /// So many in each interval.
    Rate { count: u32, interval: Duration },
}

impl RetryBudget {
    /// Of a hundred requests, where nobody says it: Istio's.
    pub const PERCENT: u32 = 20;

    /// The retries that so many requests allow.
    fn share_of(&self, requests: u64) -> u64 {
        requests.saturating_mul(u64::from(self.per_million)) / 1_000_000
    }
}

/// What is spent of a budget.
#[derive(Debug)]
pub struct Spent {
    budget: RetryBudget,
    /// In progress.
    requests: AtomicU32,
    retries: AtomicU32,
    /// Where the budget has an interval.
    arrived: Option<Window>,
    retried: Option<Window>,
    /// Where the minimum is a rate.
    least: Option<Window>,
}

impl Spent {
    pub fn of(budget: &RetryBudget) -> Arc<Self> {
        let window = |interval: Duration| (!interval.is_zero()).then(|| Window::new(interval));
        let least = match budget.least {
            LeastRetries::AtOnce(_) => None,
            LeastRetries::Rate { interval, .. } => window(interval),
        };
        Arc::new(Self {
            budget: budget.clone(),
            requests: AtomicU32::new(0),
            retries: AtomicU32::new(0),
            arrived: window(budget.interval),
            retried: window(budget.interval),
            least,
        })
    }

    pub fn by(&self) -> &Str {
        &self.budget.by
    }

    /// A request came, whatever becomes of it.
    pub fn arrives(&self) {
        if let Some(arrived) = &self.arrived {
            arrived.add();
        }
    }

    /// A request is in progress until this is dropped.
    pub fn request(self: &Arc<Self>) -> InProgress {
        self.requests.fetch_add(1, Ordering::Relaxed);
        InProgress { of: self.clone(), is_retry: false }
    }

    /// A request may be sent again, and that is in progress until this is dropped. `None`: the budget is spent.
    pub fn retry(self: &Arc<Self>) -> Option<InProgress> {
        // Counted before it is known whether it may be, so that no two take the same place.
        let before = self.retries.fetch_add(1, Ordering::Relaxed);
        let retry = InProgress { of: self.clone(), is_retry: true };
        (self.has_least(before) || self.has_share(before)).then_some(retry)
    }

    fn has_least(&self, in_progress: u32) -> bool {
        match (self.budget.least, &self.least) {
            (LeastRetries::AtOnce(most), _) => {
                let permitted = in_progress < most;
                if permitted && let Some(retried) = &self.retried {
                    retried.add();
                }
                permitted
            }
            (LeastRetries::Rate { count, .. }, Some(window)) => {
                let permitted = window.add_up_to(u64::from(count));
                if permitted && let Some(retried) = &self.retried {
                    retried.add();
                }
                permitted
            }
            (LeastRetries::Rate { .. }, None) => false,
        }
    }

    fn has_share(&self, in_progress: u32) -> bool {
        match (&self.arrived, &self.retried) {
            (Some(arrived), Some(retried)) => {
                retried.add_up_to(self.budget.share_of(arrived.count()))
            }
            _ => {
                let requests = self.requests.load(Ordering::Relaxed);
                u64::from(in_progress) < self.budget.share_of(u64::from(requests))
            }
        }
    }
}

/// A request or a retry in progress.
#[derive(Debug)]
pub struct InProgress {
    of: Arc<Spent>,
    is_retry: bool,
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let count = if self.is_retry { &self.of.retries } else { &self.of.requests };
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// In how many parts an interval is counted. What lies back between 15 and 16 of them is forgotten.
const PARTS: u64 = 16;

/// How many events there were in the last interval.
#[derive(Debug)]
struct Window {
    epoch: Instant,
    part: Duration,
    /// The number of the part since the epoch, and the events in it, in one word each.
    parts: [AtomicU64; PARTS as usize],
}

impl Window {
    fn new(interval: Duration) -> Self {
        let part = (interval / (PARTS as u32 - 1)).max(Duration::from_micros(1));
        Self { epoch: Instant::now(), part, parts: Default::default() }
    }

    /// The number of the current part; 0 is none, since words begin with it.
    fn now(&self) -> u32 {
        let parts = self.epoch.elapsed().as_nanos() / self.part.as_nanos().max(1);
        (parts as u32).wrapping_add(1)
    }

    fn add(&self) {
        self.change(self.now(), |events| events.saturating_add(1));
    }

    /// Counts one more if there are fewer than so many.
    fn add_up_to(&self, most: u64) -> bool {
        let now = self.now();
        self.change(now, |events| events.saturating_add(1));
        let permitted = self.count_at(now) <= most;
        if !permitted {
            self.change(now, |events| events.saturating_sub(1));
        }
        permitted
    }

    fn count(&self) -> u64 {
        self.count_at(self.now())
    }

    fn count_at(&self, now: u32) -> u64 {
        let parts = self.parts.iter().map(|part| unpack(part.load(Ordering::Relaxed)));
        let recent = parts.filter(|(number, _)| u64::from(now.wrapping_sub(*number)) < PARTS);
        recent.map(|(_, events)| u64::from(events)).sum()
    }

    fn change(&self, now: u32, change: impl Fn(u32) -> u32) {
        let Some(part) = self.parts.get(now as usize % PARTS as usize) else { return };
        let changed = |word| {
            let (number, events) = unpack(word);
            let events = if number == now { events } else { 0 };
            Some(pack(now, change(events)))
        };
        // The change is never refused.
        _ = part.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
    }
}

fn pack(number: u32, events: u32) -> u64 {
    u64::from(number) << 32 | u64::from(events)
}

fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn spent(percent: u32, interval: Duration, least: LeastRetries) -> Arc<Spent> {
        let per_million = percent * 10_000;
        Spent::of(&RetryBudget { by: "test".into(), per_million, interval, least })
    }

    /// The examples of Istio's reference.
    #[tokio::test(start_paused = true)]
    async fn retries_in_progress_are_a_share_of_requests_in_progress() {
        for (percent, least, requests, expected) in
            [(20, 3, 25, 5), (20, 3, 2, 3), (20, 0, 4, 0), (0, 3, 100, 3), (100, 0, 7, 7)]
        {
            let spent = spent(percent, Duration::ZERO, LeastRetries::AtOnce(least));
            let requests: Vec<_> = (0..requests).map(|_| spent.request()).collect();
            let mut retries: Vec<_> = std::iter::from_fn(|| spent.retry()).collect();
            assert_eq!(retries.len(), expected, "{percent} % of {}", requests.len());
            if retries.pop().is_some() {
                assert!(spent.retry().is_some(), "a place is given back");
            }
            drop(requests);
            assert_eq!(spent.requests.load(Ordering::Relaxed), 0);
        }
    }

    /// The example of Gateway API: of 1,000 requests in 10 seconds 200 are sent again.
    #[tokio::test(start_paused = true)]
    async fn with_an_interval_retries_are_a_share_of_what_arrived_in_it() {
        let spent = spent(20, 10 * SECOND, LeastRetries::AtOnce(0));
        let tried = || (0..1000).filter(|_| spent.retry().is_some()).count();
        assert_eq!(tried(), 0);
        for _ in 0..1000 {
            spent.arrives();
        }
        advance(9 * SECOND).await;
        assert_eq!(tried(), 200, "however fast they end");
        assert_eq!(tried(), 0);
        advance(2 * SECOND).await;
        assert_eq!(tried(), 0, "the requests are over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_left_however_few_requests_there_are() {
        let spent = spent(20, 10 * SECOND, LeastRetries::Rate { count: 10, interval: SECOND });
        let tried = || (0..100).filter(|_| spent.retry().is_some()).count();
        assert_eq!(tried(), 10);
        assert_eq!(tried(), 0);
        advance(2 * SECOND).await;
        assert_eq!(tried(), 10);
    }

    /// Several threads never get more than there is, and what they give back is whole.
    #[test]
    fn threads_share_a_budget() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        let hour = Duration::from_secs(3600);
        let spent = spent(20, hour, LeastRetries::AtOnce(0));
        for _ in 0..1000 {
            spent.arrives();
        }
        let granted = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let _inside = runtime.enter();
                    for _ in 0..500 {
                        granted.fetch_add(u32::from(spent.retry().is_some()), Ordering::Relaxed);
                    }
                });
            }
        });
        let granted = granted.load(Ordering::Relaxed);
        assert!((1..=200).contains(&granted), "{granted}");
        assert_eq!(spent.retries.load(Ordering::Relaxed), 0);
        assert_eq!((0..500).filter(|_| spent.retry().is_some()).count() as u32, 200 - granted);
    }

    proptest! {
        /// Whatever comes and whenever: over all time the destination gets no more than the requests and the share.
        #[test]
        fn load_is_at_most_one_and_the_share(
            percent in 0u32..=100,
            events in proptest::collection::vec((0u64..2000, any::<bool>()), 1..200),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let spent = spent(percent, 10 * SECOND, LeastRetries::AtOnce(0));
                let (mut requests, mut retries) = (0u64, 0u64);
                for (pause, arrives) in events {
                    advance(Duration::from_millis(pause)).await;
                    if arrives {
                        spent.arrives();
                        requests += 1;
                    }
                    while spent.retry().is_some() {
                        retries += 1;
                        prop_assert!(retries <= requests, "{percent} %: {retries} of {requests}");
                    }
                }
                prop_assert!(retries * 100 <= requests * u64::from(percent));
                Ok(())
            })?;
        }
    }
}
