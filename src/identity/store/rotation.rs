//! Background work: issuing, renewing at half life, and retrying.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::CertificateStore;
use super::slot::Slot;
use crate::base::{Backoff, Identity};
use crate::identity::request::KeyRequest;
use crate::identity::{IdentityError, WorkloadCertificate};

/// Requests that an issuer has at one time, as ztunnel: enough to fill a node quickly, few enough for an
/// issuer that a whole cluster asks after a restart.
const MAX_IN_FLIGHT: usize = 8;

/// How long an issuer may take. Longer than any healthy one needs; a hung one must not hold a place for ever.
const ISSUE_TIMEOUT: Duration = Duration::from_secs(30);

/// Renewal comes at half of what was left at the issue, as in Istio, give or take a tenth of that, so that
/// the identities of a node, issued together, do not come back together.
const RENEWAL_FRACTION: f64 = 0.5;
const RENEWAL_JITTER: f64 = 0.05;

/// An issuer that hands out what is about to expire is not asked more often than this.
const MIN_RENEWAL: Duration = Duration::from_secs(1);

/// The longest pause, as ztunnel: short against the half of a day that is left for a renewal.
const MAX_BACK_OFF: Duration = Duration::from_secs(150);
/// The first pause, as ztunnel, and by which part chance changes each.
const BACK_OFF: Backoff = Backoff::new(Duration::from_millis(500), MAX_BACK_OFF).spread(0.8..=1.2);

/// The wall clock is looked at this often: it may be set, and a machine may sleep, without any timer noticing.
const CLOCK_CHECK: Duration = Duration::from_secs(5);
/// More than a clock that is disciplined moves by between two looks.
const CLOCK_JUMP: Duration = Duration::from_secs(30);

/// The requests under way.
type Flights<'a> =
    FuturesUnordered<BoxFuture<'a, (Arc<Slot>, Result<WorkloadCertificate, IdentityError>)>>;

impl CertificateStore {
    /// Issues and renews until cancelled; everybody who waits then gets an error. Spawn it once.
    pub async fn run(&self, cancel: CancellationToken) {
        let _ended = self.ended.clone().drop_guard();
        let mut flights = Flights::new();
        let mut clocks = Clocks { wall: self.clock.now(), monotonic: Instant::now() };
        let mut revisions = self.issuer.revisions();
        loop {
            clocks.look(self.clock.now());
            let pause = self.launch(&mut flights);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.wake.notified() => {}
                () = revised(&mut revisions) => self.outdate(),
                Some((slot, outcome)) = flights.next() => self.settle(&slot, outcome),
                () = sleep(pause) => {}
            }
        }
    }

    /// Starts what is due, the most urgent first, and returns how long nothing else will be.
    fn launch<'a>(&'a self, flights: &mut Flights<'a>) -> Duration {
        let (wall, monotonic) = (self.clock.now(), Instant::now());
        let mut pause = CLOCK_CHECK;
        let mut due = Vec::new();
        for slot in self.slots.load().values() {
            match slot.due_in(wall, monotonic) {
                Some(Duration::ZERO) => due.push(slot.clone()),
                Some(wait) => pause = pause.min(wait),
                None => {}
            }
        }
        due.sort_by_key(|slot| slot.urgency());
        // The others follow when a place is free: each end of a flight comes by here.
        for slot in due.into_iter().take(MAX_IN_FLIGHT.saturating_sub(flights.len())) {
            slot.start();
            flights.push(Box::pin(async move {
                let outcome = self.issue(slot.identity()).await;
                (slot, outcome)
            }));
        }
        pause
    }

    /// The issuer would issue something else now: all certificates are replaced, the old ones in use meanwhile.
    fn outdate(&self) {
        let slots = self.slots.load();
        tracing::info!(
            count = slots.len(),
            issuer = self.issuer.name(),
            "reissuing all certificates"
        );
        slots.values().for_each(|slot| slot.outdate());
    }

    /// One attempt. The key is made here and goes into the certificate, nowhere else.
    async fn issue(&self, identity: &Identity) -> Result<WorkloadCertificate, IdentityError> {
        let request = KeyRequest::new(identity)?;
        let answer = timeout(ISSUE_TIMEOUT, self.issuer.issue(identity, &request.csr)).await;
        let issued = answer.unwrap_or_else(|_| {
            let waited = ISSUE_TIMEOUT.as_secs();
            Err(IdentityError::Refused(format!("no answer within {waited} s")))
        })?;
        let generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        let clock = self.clock.clone();
        let trust = &self.settings.trust;
        WorkloadCertificate::new(identity, request.into_key(), issued, generation, trust, clock)
    }

    fn settle(&self, slot: &Slot, outcome: Result<WorkloadCertificate, IdentityError>) {
        let identity = slot.identity();
        match outcome {
            Ok(certificate) => {
                let now = self.clock.now();
                let renew_at = renewal(now, certificate.not_after());
                let serial = certificate.details().serial.clone();
                let generation = certificate.generation();
                self.settings.metrics.certificates_issued.inc();
                if slot.succeed(Arc::new(certificate), renew_at) {
                    self.changed();
                    tracing::debug!(%identity, serial, generation, "certificate issued");
                }
            }
            Err(error) => {
                self.settings.metrics.certificate_failures.inc();
                let error = self.name_issuer(identity, error);
                if let Some(pause) = slot.fail(error.clone(), back_off) {
                    let retry = format!("{:.1}s", pause.as_secs_f64());
                    let in_use = slot.valid(self.clock.now()).is_some();
                    tracing::warn!(%error, retry, in_use, "certificate not issued; check the issuer");
                }
            }
        }
    }

    fn name_issuer(&self, identity: &Identity, error: IdentityError) -> IdentityError {
        let reason = format!("{}: {error}", self.issuer.name());
        IdentityError::Issue { identity: identity.clone(), reason }
    }
}

/// Both clocks, as they stood together.
struct Clocks {
    wall: SystemTime,
    monotonic: Instant,
}

impl Clocks {
    /// Tells when the wall clock was set, or the machine slept: what follows in the log is explained by it.
    fn look(&mut self, wall: SystemTime) {
        let monotonic = Instant::now();
        let expected = self.wall + monotonic.duration_since(self.monotonic);
        let jumped = match wall.duration_since(expected) {
            Ok(forward) if forward > CLOCK_JUMP => Some(format!("+{}s", forward.as_secs())),
            Err(back) if back.duration() > CLOCK_JUMP => {
                Some(format!("-{}s", back.duration().as_secs()))
            }
            _ => None,
        };
        if let Some(by) = jumped {
            tracing::warn!(
                by,
                "the clock of this machine has jumped; checking all certificates again"
            );
        }
        *self = Self { wall, monotonic };
    }
}

/// Waits for the issuer to be another; for ever, when it cannot tell.
async fn revised(revisions: &mut Option<watch::Receiver<u64>>) {
    if let Some(revisions) = revisions
        && revisions.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// When to replace a certificate that is issued now.
fn renewal(now: SystemTime, not_after: SystemTime) -> SystemTime {
    let left = not_after.duration_since(now).unwrap_or_default();
    let fraction = spread(RENEWAL_FRACTION, RENEWAL_JITTER);
    now + left.mul_f64(fraction).max(MIN_RENEWAL)
}

/// The pause after so many failures in a row. Chance does not lengthen the longest.
fn back_off(failures: u32) -> Duration {
    BACK_OFF.after(failures).min(MAX_BACK_OFF)
}

/// A number evenly distributed around `centre`.
fn spread(centre: f64, radius: f64) -> f64 {
    centre + radius * (2.0 * fastrand::f64() - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renews_around_half_life() {
        let now = SystemTime::now();
        for _ in 0..200 {
            let left = renewal(now, now + Duration::from_secs(1000)).duration_since(now).unwrap();
            assert!((450..=550).contains(&left.as_secs()), "{left:?}");
        }
        assert_eq!(renewal(now, now), now + MIN_RENEWAL);
    }

    #[test]
    fn no_pause_is_longer_than_the_cap() {
        for _ in 0..200 {
            assert!((0.4..=0.6).contains(&back_off(1).as_secs_f64()));
            let late = back_off(u32::MAX);
            assert!(late <= MAX_BACK_OFF && late >= MAX_BACK_OFF.mul_f64(0.8), "{late:?}");
        }
    }
}
