//! One identity in the store: what connections read, and how far its next certificate is.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio::time::Instant;

use super::dump::CertificateDump;
use super::status::{CertificateState, CertificateStatus, timestamp};
use crate::base::Identity;
use crate::identity::{Clock, IdentityError, WorkloadCertificate};

/// Written by `run` (and by `retain`, once, at the end), read by everybody.
pub(super) struct Slot {
    identity: Identity,
    held: ArcSwapOption<WorkloadCertificate>,
    progress: watch::Sender<Progress>,
    /// Of what is held, for those who wait for another: apart from the progress, whose receivers count as waiting for
    /// the first. 0 before that.
    generation: watch::Sender<u64>,
}

struct Progress {
    phase: Phase,
    /// In a row; decides on the back-off.
    failures: u32,
    /// Of the last attempt, if that failed.
    error: Option<IdentityError>,
    /// The request that is under way was made before it was known to be of no use.
    outdated: bool,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Asked for; `run` has not begun.
    Queued,
    /// The issuer has the request.
    Issuing,
    /// By the wall clock, as validity is.
    RenewAt(SystemTime),
    /// By the monotonic clock: a wall clock that is set back must not stretch the back-off.
    RetryAt { failed: Instant, time: Instant },
    /// Not in the store any more.
    Forgotten,
}

impl Slot {
    pub(super) fn new(identity: Identity) -> Self {
        let progress = Progress::new(Phase::Queued);
        Self {
            identity,
            held: ArcSwapOption::empty(),
            progress: watch::Sender::new(progress),
            generation: watch::Sender::new(0),
        }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The certificate, unless it has expired.
    pub(super) fn valid(&self, now: SystemTime) -> Option<Arc<WorkloadCertificate>> {
        let held = self.held.load();
        held.as_ref().filter(|certificate| certificate.is_valid(now)).cloned()
    }

    /// Waits until there is a valid certificate or the attempt that is due or under way has failed. Counts as waiting
    /// from the call on.
    pub(super) fn settled<'a>(
        &'a self,
        clock: &'a dyn Clock,
    ) -> impl Future<Output = Result<Arc<WorkloadCertificate>, IdentityError>> + 'a {
        let mut progress = self.progress.subscribe();
        async move {
            loop {
                if let Some(held) = self.valid(clock.now()) {
                    return Ok(held);
                }
                if let Some(error) = progress.borrow_and_update().failure() {
                    return Err(error);
                }
                // Never an error: the sender is ours.
                if progress.changed().await.is_err() {
                    return Err(IdentityError::Forgotten { identity: self.identity.clone() });
                }
            }
        }
    }

    /// Why the last attempt failed, unless one has succeeded since.
    pub(super) fn last_error(&self) -> Option<IdentityError> {
        self.progress.borrow().error.clone()
    }

    /// Somebody waits: the next attempt need not be later than `patience` after the one that failed.
    pub(super) fn hurry(&self, patience: Duration) {
        let now = Instant::now();
        self.advance(|progress| match progress.phase {
            Phase::RetryAt { failed, .. } if now.duration_since(failed) >= patience => {
                progress.phase = Phase::Queued;
                true
            }
            _ => false,
        });
    }

    /// The issuer would issue something else now.
    pub(super) fn outdate(&self) {
        self.advance(|progress| {
            match progress.phase {
                Phase::Issuing => progress.outdated = true,
                _ => progress.phase = Phase::Queued,
            }
            true
        });
    }

    /// How long until this slot wants the issuer; `None` when it does not.
    pub(super) fn due_in(&self, wall: SystemTime, monotonic: Instant) -> Option<Duration> {
        match self.progress.borrow().phase {
            Phase::Queued => Some(Duration::ZERO),
            // The clock was set back behind the certificate's start: peers with the right time refuse it, and its end
            // is further away by this clock than by theirs.
            Phase::RenewAt(_) if self.is_of_the_future(wall) => Some(Duration::ZERO),
            Phase::RenewAt(time) => Some(time.duration_since(wall).unwrap_or_default()),
            Phase::RetryAt { time, .. } => Some(time.saturating_duration_since(monotonic)),
            Phase::Issuing | Phase::Forgotten => None,
        }
    }

    fn is_of_the_future(&self, now: SystemTime) -> bool {
        let held = self.held.load();
        held.as_ref().is_some_and(|certificate| now < certificate.details().not_before)
    }

    pub(super) fn generation(&self) -> Option<u64> {
        self.held.load().as_ref().map(|certificate| certificate.generation())
    }

    pub(super) fn generations(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// When what is held stops being accepted.
    pub(super) fn not_after(&self) -> Option<SystemTime> {
        self.held.load().as_ref().map(|certificate| certificate.not_after())
    }

    /// Sorts first whom a connection waits for, then new identities, then renewals.
    pub(super) fn urgency(&self) -> impl Ord + use<> {
        (self.progress.receiver_count() == 0, self.held.load().is_some())
    }

    pub(super) fn start(&self) {
        self.advance(|progress| {
            progress.phase = Phase::Issuing;
            true
        });
    }

    /// The new certificate replaces the old one; `false` if the slot was forgotten meanwhile.
    pub(super) fn succeed(
        &self,
        certificate: Arc<WorkloadCertificate>,
        renew_at: SystemTime,
    ) -> bool {
        self.advance(|progress| {
            // Before anybody is woken, who then looks for it.
            let generation = certificate.generation();
            self.held.store(Some(certificate));
            self.generation.send_replace(generation);
            let next = if progress.outdated { Phase::Queued } else { Phase::RenewAt(renew_at) };
            *progress = Progress::new(next);
            true
        })
    }

    /// Keeps what is held and returns the pause, which `back_off` makes from the failures in a row; `None` if
    /// the slot was forgotten meanwhile.
    pub(super) fn fail(
        &self,
        error: IdentityError,
        back_off: impl FnOnce(u32) -> Duration,
    ) -> Option<Duration> {
        let mut pause = None;
        self.advance(|progress| {
            progress.failures = progress.failures.saturating_add(1);
            let wait = back_off(progress.failures);
            let failed = Instant::now();
            progress.phase = Phase::RetryAt { failed, time: failed + wait };
            progress.outdated = false;
            progress.error = Some(error);
            pause = Some(wait);
            true
        });
        pause
    }

    /// The end of this slot: nothing changes it any more.
    pub(super) fn forget(&self) {
        self.advance(|progress| {
            self.held.store(None);
            progress.phase = Phase::Forgotten;
            progress.error = Some(IdentityError::Forgotten { identity: self.identity.clone() });
            true
        });
    }

    pub(super) fn status(&self, now: SystemTime) -> CertificateStatus {
        let progress = self.progress.borrow();
        let held = self.held.load();
        let details = held.as_ref().map(|certificate| certificate.details());
        let state = match (held.as_ref(), &progress.error) {
            (Some(certificate), _) if certificate.is_valid(now) => CertificateState::Available,
            (None, None) => CertificateState::Initializing,
            _ => CertificateState::Unavailable,
        };
        CertificateStatus {
            identity: self.identity.clone(),
            state,
            serial: details.map(|details| details.serial.clone()),
            not_before: details.map(|details| timestamp(details.not_before)),
            not_after: details.map(|details| timestamp(details.not_after)),
            renew_at: match progress.phase {
                Phase::RenewAt(time) => Some(timestamp(time)),
                Phase::RetryAt { time, .. } => {
                    Some(timestamp(now + time.saturating_duration_since(Instant::now())))
                }
                Phase::Queued | Phase::Issuing | Phase::Forgotten => None,
            },
            generation: held.as_ref().map(|certificate| certificate.generation()),
            failures: progress.failures,
            last_error: progress.error.as_ref().map(IdentityError::to_string),
        }
    }

    pub(super) fn dump(&self, now: SystemTime) -> CertificateDump {
        CertificateDump::new(self.status(now), self.held.load().as_deref())
    }

    /// Changes the progress, unless the slot is forgotten; `change` says whether it did.
    fn advance(&self, change: impl FnOnce(&mut Progress) -> bool) -> bool {
        self.progress.send_if_modified(|progress| {
            !matches!(progress.phase, Phase::Forgotten) && change(progress)
        })
    }
}

impl Progress {
    fn new(phase: Phase) -> Self {
        Self { phase, failures: 0, error: None, outdated: false }
    }

    /// The error, when nothing is under way that may turn out better.
    fn failure(&self) -> Option<IdentityError> {
        match self.phase {
            Phase::RetryAt { .. } | Phase::Forgotten => self.error.clone(),
            Phase::Queued | Phase::Issuing | Phase::RenewAt(_) => None,
        }
    }
}
