//! One name of one workload: its last answer, and which caller refreshes it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The shortest cache time, whatever the TTL: connections in quick succession query once.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest cache time: a name that moves without respecting its TTL is followed soon.
pub(super) const LONGEST: Duration = Duration::from_secs(300);
/// The backoff after a resolver failed, or answered NXDOMAIN.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// How long a stale answer stays in use while the resolvers fail (RFC 8767 proposes one to three days; endpoints move
/// faster).
const STALE: Duration = Duration::from_secs(3600);

/// A resolver's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Empty: the name does not exist, or has no address.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ttl: Duration,
}

/// Why the resolvers gave no answer. Everybody who waits for one gets it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    /// No query can be made of the name.
    #[error("{0}")]
    Query(String),
    /// No resolver answers.
    #[error("{0}")]
    Silent(String),
    #[error("answer: {0}")]
    Unreadable(String),
    #[error("the answer does not match the query")]
    Mismatch,
    #[error("the resolver answered {0}")]
    Code(String),
    /// An answer, that there is none.
    #[error("the resolvers have no address for it")]
    NoAddress,
}

/// The cached state of a name.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) addresses: Vec<IpAddr>,
    /// Why there is no address.
    why: Option<NoAnswer>,
    /// When the next query is due.
    pub(super) until: Instant,
    /// When the answer expires.
    ends: Instant,
}

#[derive(Default)]
pub(super) struct Name {
    known: ArcSwapOption<Known>,
    turn: Mutex<()>,
}

impl Known {
    /// Why `name` has no address.
    pub(super) fn failure(&self, name: &str) -> Option<String> {
        self.why.as_ref().map(|why| format!("{name}: {why}"))
    }

    fn is_fresh(&self) -> bool {
        Instant::now() < self.until
    }

    fn of(answer: Answer) -> Self {
        let now = Instant::now();
        if answer.addresses.is_empty() {
            let why = Some(NoAnswer::NoAddress);
            let until = now + AFTER_FAILURE;
            return Self { addresses: Vec::new(), why, until, ends: until };
        }
        let until = now + answer.ttl.clamp(SHORTEST, LONGEST);
        Self { addresses: answer.addresses, why: None, until, ends: until + STALE }
    }

    /// The resolvers failed: the previous answer stays in use until it expires.
    fn without_answer(before: Option<&Known>, why: NoAnswer) -> Self {
        let now = Instant::now();
        let until = now + AFTER_FAILURE;
        match before.filter(|before| before.why.is_none() && now < before.ends) {
            Some(before) => Self { until: until.min(before.ends), ..before.clone() },
            None => Self { addresses: Vec::new(), why: Some(why), until, ends: until },
        }
    }
}

impl Name {
    /// The cached answer, refreshed if due. Of concurrent callers one queries; the others use the last answer, or wait
    /// if there is none.
    pub(super) async fn known<F>(&self, ask: impl FnOnce() -> F) -> Arc<Known>
    where
        F: Future<Output = Result<Answer, NoAnswer>>,
    {
        let before = self.known.load_full();
        if let Some(known) = before.as_ref().filter(|known| known.is_fresh()) {
            return known.clone();
        }
        let _turn = match (self.turn.try_lock(), before) {
            (Ok(turn), _) => turn,
            (Err(_), Some(known)) if Instant::now() < known.ends => return known,
            (Err(_), _) => self.turn.lock().await,
        };
        // The previous caller may have refreshed it.
        let before = self.known.load_full();
        if let Some(known) = before.as_ref().filter(|known| known.is_fresh()) {
            return known.clone();
        }
        let known = Arc::new(match ask().await {
            Ok(answer) => Known::of(answer),
            Err(why) => Known::without_answer(before.as_deref(), why),
        });
        self.known.store(Some(known.clone()));
        known
    }

    /// The last answer, without a query.
    pub(super) fn last(&self) -> Option<Arc<Known>> {
        self.known.load_full()
    }

    /// The name is being queried, or was used recently.
    pub(super) fn is_in_use(&self) -> bool {
        self.turn.try_lock().is_err()
            || self.known.load().as_ref().is_some_and(|known| known.is_fresh())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{advance, sleep};

    use super::*;

    fn answer(address: &str, seconds: u64) -> Result<Answer, NoAnswer> {
        let addresses = vec![address.parse().unwrap()];
        Ok(Answer { addresses, ttl: Duration::from_secs(seconds) })
    }

    async fn asked(name: &Name, result: Result<Answer, NoAnswer>) -> (bool, Arc<Known>) {
        let count = AtomicUsize::new(0);
        let known = name.known(|| {
            count.fetch_add(1, Ordering::Relaxed);
            async { result }
        });
        let known = known.await;
        (count.load(Ordering::Relaxed) > 0, known)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_holds_for_its_ttl_within_bounds() {
        for (ttl, holds) in [(0, 1), (30, 30), (86_400, 300)] {
            let name = Name::default();
            assert!(asked(&name, answer("192.0.2.1", ttl)).await.0);
            advance(Duration::from_secs(holds) - Duration::from_millis(1)).await;
            assert!(!asked(&name, answer("192.0.2.2", ttl)).await.0, "{ttl}");
            advance(Duration::from_millis(1)).await;
            let (again, known) = asked(&name, answer("192.0.2.2", ttl)).await;
            assert!(again && known.addresses == ["192.0.2.2".parse::<IpAddr>().unwrap()], "{ttl}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_resolvers_fail_the_last_answer_goes_on_for_an_hour() {
        let name = Name::default();
        let failure = || Err(NoAnswer::Silent("no resolver answers".to_owned()));
        let (_, known) = asked(&name, failure()).await;
        assert_eq!(known.failure("x").unwrap(), "x: no resolver answers");
        assert!(!asked(&name, answer("192.0.2.1", 10)).await.0, "not at once after a failure");
        advance(AFTER_FAILURE).await;
        assert!(asked(&name, answer("192.0.2.1", 10)).await.0);
        advance(Duration::from_secs(10)).await;
        let (again, known) = asked(&name, failure()).await;
        assert!(again && known.failure("x").is_none() && known.addresses.len() == 1);
        assert!(!asked(&name, failure()).await.0);
        advance(STALE).await;
        assert!(asked(&name, failure()).await.1.failure("x").is_some());
        advance(AFTER_FAILURE).await;
        let nothing = Ok(Answer { addresses: Vec::new(), ttl: Duration::from_secs(60) });
        assert!(asked(&name, nothing).await.1.failure("x").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_one_asks() {
        let name = Name::default();
        let count = AtomicUsize::new(0);
        let slow = || async {
            count.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_secs(1)).await;
            answer("192.0.2.1", 10)
        };
        let all = futures_util::future::join_all((0..20).map(|_| name.known(slow))).await;
        assert!(all.iter().all(|known| known.addresses.len() == 1));
        assert_eq!(count.load(Ordering::Relaxed), 1);
        advance(Duration::from_secs(11)).await;
        // With an answer at hand nobody waits for another's question.
        let asks = name.known(slow);
        let others = async {
            let start = Instant::now();
            assert_eq!(name.known(slow).await.addresses.len(), 1);
            assert_eq!(start.elapsed(), Duration::ZERO);
        };
        tokio::join!(biased; asks, others);
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
