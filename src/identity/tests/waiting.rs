//! Who comes first, how long anybody waits, and clocks that jump.

use tokio::time::sleep;

use super::rotation::Bench;
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const CROWD: usize = 200;

fn crowd() -> impl Iterator<Item = Identity> {
    (0..CROWD).map(|n| Identity::new("cluster.local", "many", format!("sa-{n}")))
}

fn available(bench: &Bench) -> usize {
    let status = bench.store.status();
    status.iter().filter(|it| it.state == CertificateState::Available).count()
}

/// Asks, and tells how long it took.
async fn timed(bench: &Bench, identity: &Identity) -> Duration {
    let started = Instant::now();
    bench.get(identity).await.unwrap();
    started.elapsed()
}

#[tokio::test(start_paused = true)]
async fn whom_a_connection_waits_for_overtakes_two_hundred() {
    let bench = Bench::with_delay(SECOND);
    crowd().for_each(|identity| bench.store.prefetch(&identity));
    sleep(SECOND * 5 / 2).await;
    assert_eq!(available(&bench), 16, "eight at a time, a second each");
    // One that stands in the queue already, and one that nobody has heard of: the next two places are theirs.
    let queued = bench.store.status();
    let queued = queued.iter().rfind(|it| it.state == CertificateState::Initializing).unwrap();
    let new = ratings();
    let (raised, added) = tokio::join!(timed(&bench, &queued.identity), timed(&bench, &new));
    assert!(raised <= SECOND * 2 && added <= SECOND * 2, "{raised:?}, {added:?}");
    assert!(available(&bench) < CROWD / 4);
    sleep(SECOND * 25).await;
    assert_eq!((available(&bench), bench.calls()), (CROWD + 1, CROWD + 1));
}

#[tokio::test(start_paused = true)]
async fn new_identities_come_before_renewals() {
    let bench = Bench::with_delay(SECOND);
    crowd().for_each(|identity| bench.store.prefetch(&identity));
    sleep(SECOND * 26).await;
    assert_eq!(available(&bench), CROWD);
    bench.line.revisions.send_modify(|revision| *revision += 1);
    sleep(SECOND / 2).await;
    bench.store.prefetch(&reviews());
    sleep(SECOND * 2).await;
    assert_eq!(available(&bench), CROWD + 1, "the new one stands behind the renewals");
    assert!(bench.calls() < CROWD + 1 + CROWD / 4);
}

#[tokio::test(start_paused = true)]
async fn another_revision_replaces_what_is_held_and_what_is_under_way() {
    let bench = Bench::with_delay(SECOND);
    let first = bench.get(&reviews()).await.unwrap();
    bench.store.prefetch(&ratings());
    sleep(SECOND / 2).await;
    bench.line.revisions.send_modify(|revision| *revision += 1);
    sleep(SECOND * 3).await;
    assert!(bench.get(&reviews()).await.unwrap().generation() > first.generation());
    assert_eq!(bench.calls(), 4, "both twice: one had been asked for before the change");
    sleep(SECOND * 60).await;
    assert_eq!(bench.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_is_told_to_those_of_its_identity() {
    let bench = Bench::new();
    let mine = bench.get(&reviews()).await.unwrap();
    let other = bench.get(&ratings()).await.unwrap();
    let waiting = tokio::time::timeout(SECOND * 60, bench.store.replaced(&mine));
    assert!(waiting.await.is_err(), "nothing was renewed");
    bench.line.revisions.send_modify(|revision| *revision += 1);
    bench.store.replaced(&mine).await;
    assert!(bench.store.generation(&reviews()).unwrap() > mine.generation());
    // Who comes late is told at once; who is forgotten waits for nothing.
    bench.store.replaced(&mine).await;
    bench.store.retain(&|identity| *identity == reviews());
    assert!(tokio::time::timeout(DAY, bench.store.replaced(&other)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_waits_learns_soon_that_the_issuer_is_back() {
    let bench = Bench::new();
    bench.set_down(true);
    bench.store.prefetch(&reviews());
    // The back-off has grown to its longest.
    sleep(SECOND * 1200).await;
    bench.set_down(false);
    let started = Instant::now();
    while bench.get(&reviews()).await.is_err() {
        assert!(started.elapsed() <= SECOND * 5, "a stale error");
        sleep(SECOND / 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_does_not_have_the_issuer_asked_without_end() {
    let bench = Bench::new();
    bench.set_down(true);
    assert!(bench.get(&reviews()).await.is_err());
    sleep(SECOND * 600).await;
    let before = bench.calls();
    for _ in 0..600 {
        assert!(bench.get(&reviews()).await.is_err());
        sleep(SECOND / 10).await;
    }
    let calls = bench.calls() - before;
    assert!((8..=14).contains(&calls), "{calls} attempts in a minute");
    assert_eq!(bench.metrics.certificate_failures.get(), bench.calls() as u64);
    assert_eq!(bench.metrics.certificates_issued.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_long_for_an_issuer_that_was_away_and_hangs_now() {
    let bench = Bench::with_delay(SECOND * 20);
    bench.set_down(true);
    assert!(bench.get(&reviews()).await.is_err());
    sleep(SECOND * 6).await;
    let started = Instant::now();
    assert!(bench.get(&reviews()).await.is_err());
    assert_eq!(started.elapsed(), SECOND * 5);
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_forward_renews_at_once() {
    let bench = Bench::new();
    let first = bench.get(&reviews()).await.unwrap();
    bench.clock.forward(DAY.mul_f64(0.6));
    assert!(Arc::ptr_eq(&first, &bench.get(&reviews()).await.unwrap()), "it is valid still");
    sleep(SECOND * 6).await;
    assert!(bench.get(&reviews()).await.unwrap().generation() > first.generation());
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_past_the_end_hands_out_nothing_that_has_expired() {
    let bench = Bench::new();
    let first = bench.get(&reviews()).await.unwrap();
    let soonest = bench.store.soonest_expiry().unwrap();
    assert_eq!(soonest, first.not_after());
    bench.clock.forward(DAY * 2);
    // At once, before the store has looked at the clock by itself.
    let second = bench.get(&reviews()).await.unwrap();
    assert!(second.is_valid(bench.clock.now()) && !first.is_valid(bench.clock.now()));
    assert!(bench.store.soonest_expiry().unwrap() > soonest);

    bench.set_down(true);
    bench.clock.forward(DAY * 2);
    let outcome = bench.get(&reviews()).await.map(drop).unwrap_err();
    assert!(outcome.to_string().contains("connection refused"), "{outcome}");
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_renews_what_has_not_begun() {
    let bench = Bench::new();
    let first = bench.get(&reviews()).await.unwrap();
    // A little changes nothing: certificates are dated back for that.
    bench.clock.back(SECOND * 60);
    sleep(SECOND * 10).await;
    assert_eq!(bench.calls(), 1);
    bench.clock.back(DAY * 30);
    assert!(Arc::ptr_eq(&first, &bench.get(&reviews()).await.unwrap()), "in use meanwhile");
    sleep(SECOND * 6).await;
    let second = bench.get(&reviews()).await.unwrap();
    assert!(second.not_after() < bench.clock.now() + DAY * 2);
    assert_eq!(bench.calls(), 2);
}
