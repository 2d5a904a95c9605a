//! The store over time, with time paused and an issuer that can be switched off.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rcgen::CertificateSigningRequest;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::telemetry::AgentMetrics;

/// The local authority behind a line that can be cut.
pub(super) struct Line {
    inner: LocalIssuer,
    pub(super) down: AtomicBool,
    /// The answers to come are for somebody else.
    confused: AtomicBool,
    calls: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
    delay: Duration,
    /// Moves when all certificates must be reissued.
    pub(super) revisions: watch::Sender<u64>,
}

impl Issuer for Line {
    fn name(&self) -> &str {
        "the test CA"
    }

    fn issue<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a CertificateSigningRequest,
    ) -> IssueFuture<'a> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(now, Ordering::Relaxed);
            sleep(self.delay).await;
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            if self.down.load(Ordering::Relaxed) {
                return Err(IdentityError::Refused("connection refused".to_owned()));
            }
            if self.confused.load(Ordering::Relaxed) {
                let other = KeyRequest::new(&ratings()).unwrap();
                return self.inner.issue(&ratings(), &other.csr).await;
            }
            self.inner.issue(identity, request).await
        })
    }

    fn revisions(&self) -> Option<watch::Receiver<u64>> {
        Some(self.revisions.subscribe())
    }
}

pub(super) struct Bench {
    _home: TempDir,
    pub(super) line: Arc<Line>,
    pub(super) store: Arc<CertificateStore>,
    pub(super) clock: Arc<PausedClock>,
    pub(super) metrics: AgentMetrics,
    cancel: CancellationToken,
    _run: AbortOnDropHandle<()>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with_delay(Duration::from_millis(10))
    }

    pub(super) fn with_delay(delay: Duration) -> Self {
        let clock = PausedClock::new();
        let (home, inner) = issuer(clock.clone());
        let line = Arc::new(Line {
            inner,
            down: AtomicBool::new(false),
            confused: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            delay,
            revisions: watch::Sender::new(0),
        });
        let metrics = AgentMetrics::default();
        let settings =
            StoreSettings { trust: Trust::of("cluster.local"), metrics: metrics.clone() };
        let store = Arc::new(CertificateStore::new(line.clone(), settings, clock.clone()));
        let cancel = CancellationToken::new();
        let run = tokio::spawn({
            let (store, cancel) = (store.clone(), cancel.clone());
            async move { store.run(cancel).await }
        });
        let _run = AbortOnDropHandle::new(run);
        Self { _home: home, line, store, clock, metrics, cancel, _run }
    }

    pub(super) fn set_down(&self, down: bool) {
        self.line.down.store(down, Ordering::Relaxed);
    }

    pub(super) fn calls(&self) -> usize {
        self.line.calls.load(Ordering::Relaxed)
    }

    pub(super) async fn get(
        &self,
        identity: &Identity,
    ) -> Result<Arc<WorkloadCertificate>, IdentityError> {
        self.store.certificate(identity).await
    }

    pub(super) fn status(&self) -> CertificateStatus {
        self.store.status().remove(0)
    }
}

#[tokio::test(start_paused = true)]
async fn many_waiters_make_one_request() {
    let bench = Bench::new();
    let waiters = (0..50).map(|_| async { bench.get(&reviews()).await.unwrap() });
    let all = futures_util::future::join_all(waiters).await;
    assert_eq!(bench.calls(), 1);
    assert!(all.iter().all(|one| Arc::ptr_eq(one, &all[0])));
    assert_eq!(bench.get(&reviews()).await.unwrap().identity(), &reviews());
    assert_eq!(bench.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_are_bounded_and_all_are_answered() {
    let bench = Bench::new();
    let identities: Vec<_> =
        (0..40).map(|n| Identity::new("cluster.local", "many", format!("sa-{n}"))).collect();
    for identity in &identities {
        bench.store.prefetch(identity);
    }
    for identity in &identities {
        bench.get(identity).await.unwrap();
    }
    assert_eq!(bench.calls(), 40);
    assert_eq!(bench.line.most.load(Ordering::Relaxed), 8);
}

#[tokio::test(start_paused = true)]
async fn rotates_around_half_life_and_tells() {
    let bench = Bench::new();
    let first = bench.get(&reviews()).await.unwrap();
    let mut changes = bench.store.subscribe();
    sleep(DAY.mul_f64(0.44)).await;
    assert!(Arc::ptr_eq(&first, &bench.get(&reviews()).await.unwrap()));
    assert!(!changes.has_changed().unwrap());
    sleep(DAY.mul_f64(0.12)).await;
    let second = bench.get(&reviews()).await.unwrap();
    assert!(second.generation() > first.generation());
    assert_ne!(second.details().serial, first.details().serial);
    assert!(changes.has_changed().unwrap());
    assert_eq!(bench.calls(), 2);
    changes.mark_unchanged();
    sleep(DAY * 3).await;
    let third = bench.get(&reviews()).await.unwrap();
    assert!(third.is_valid(bench.clock.now()) && third.generation() > second.generation());
}

/// Trap 19, the first half.
#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_away_at_the_first_request() {
    let bench = Bench::new();
    bench.set_down(true);
    let error = bench.get(&reviews()).await.map(drop).unwrap_err().to_string();
    for part in ["bookinfo/sa/reviews", "the test CA", "connection refused"] {
        assert!(error.contains(part), "{error}");
    }
    // While it is backing off nobody waits.
    assert!(timeout(Duration::from_millis(1), bench.get(&reviews())).await.unwrap().is_err());
    assert_eq!(bench.status().state, CertificateState::Unavailable);
    bench.set_down(false);
    sleep(Duration::from_secs(1)).await;
    bench.get(&reviews()).await.unwrap();
    let status = bench.status();
    assert_eq!((status.state, status.last_error), (CertificateState::Available, None));
}

/// Trap 19, the second half.
#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_away_at_rotation() {
    let bench = Bench::new();
    let first = bench.get(&reviews()).await.unwrap();
    bench.set_down(true);
    sleep(DAY.mul_f64(0.95)).await;
    assert!(Arc::ptr_eq(&first, &bench.get(&reviews()).await.unwrap()));
    let status = bench.status();
    assert_eq!(status.state, CertificateState::Available);
    assert!(status.last_error.unwrap().contains("connection refused"));
    // About 0.45 of a day with a pause of at most 150 s, jitter included.
    let calls = bench.calls();
    assert!((250..500).contains(&calls), "{calls}");
    sleep(DAY.mul_f64(0.06)).await;
    assert!(bench.get(&reviews()).await.is_err(), "an expired certificate was served");
    assert_eq!(bench.status().state, CertificateState::Unavailable);
    bench.set_down(false);
    sleep(Duration::from_secs(151)).await;
    let again = bench.get(&reviews()).await.unwrap();
    assert!(again.generation() > first.generation());
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_never_answers_is_given_up() {
    let bench = Bench::with_delay(DAY);
    let started = Instant::now();
    let error = bench.get(&reviews()).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("no answer within 30 s"), "{error}");
    assert_eq!(started.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_somebody_else_is_not_used() {
    let bench = Bench::new();
    bench.line.confused.store(true, Ordering::Relaxed);
    let error = bench.get(&reviews()).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("it is for spiffe://cluster.local/ns/bookinfo/sa/ratings"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn forgotten_identities_are_not_renewed() {
    let bench = Bench::new();
    let first = bench.get(&reviews()).await.unwrap();
    bench.get(&ratings()).await.unwrap();
    bench.store.retain(&|identity| *identity == ratings());
    assert_eq!(bench.store.status().len(), 1);
    sleep(DAY.mul_f64(0.6)).await;
    assert_eq!(bench.calls(), 3, "ratings twice and reviews once");
    assert!(bench.get(&reviews()).await.unwrap().generation() > first.generation());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_forgotten_identity_gets_an_error() {
    let bench = Bench::with_delay(Duration::from_secs(1));
    let identity = reviews();
    let (outcome, ()) = tokio::join!(bench.get(&identity), async {
        sleep(Duration::from_millis(100)).await;
        bench.store.retain(&|_| false);
    });
    assert!(matches!(outcome, Err(IdentityError::Forgotten { .. })));
    // The late answer changes nothing, and the identity can be requested again.
    let changes = bench.store.subscribe();
    sleep(Duration::from_secs(2)).await;
    assert!(!changes.has_changed().unwrap());
    assert!(bench.store.status().is_empty());
    assert!(bench.get(&reviews()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_store_that_has_ended() {
    let bench = Bench::with_delay(Duration::from_secs(1));
    let identity = reviews();
    let (outcome, ()) = tokio::join!(bench.get(&identity), async {
        sleep(Duration::from_millis(100)).await;
        bench.cancel.cancel();
    });
    assert!(matches!(outcome, Err(IdentityError::Stopped { .. })));
    assert!(matches!(bench.get(&ratings()).await, Err(IdentityError::Stopped { .. })));
}

#[tokio::test(start_paused = true)]
async fn other_trust_domains_are_refused_without_a_request() {
    let bench = Bench::new();
    let foreign = Identity::new("elsewhere.local", "bookinfo", "reviews");
    bench.store.prefetch(&foreign);
    let outcome = bench.get(&foreign).await;
    assert!(matches!(outcome, Err(IdentityError::ForeignTrustDomain { .. })));
    assert_eq!((bench.calls(), bench.store.status().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_status_is_readable() {
    let bench = Bench::new();
    bench.store.prefetch(&reviews());
    assert_eq!(bench.status().state, CertificateState::Initializing);
    bench.get(&reviews()).await.unwrap();
    let json = serde_json::to_value(bench.status()).unwrap();
    assert_eq!(json["identity"], "spiffe://cluster.local/ns/bookinfo/sa/reviews");
    assert_eq!(json["state"], "Available");
    assert_eq!(json["serial"].as_str().unwrap().len(), 32);
    assert!(json["notAfter"].as_str().unwrap().ends_with('Z'));
    assert!(json.get("lastError").is_none());
}
