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
}

struct Progress {
    phase: Phase,
    /// In a row; decides on the back-off.
    failures: u32,
    /// Of the last attempt, if that failed.
    error: Option<IdentityError>,
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
    RetryAt(Instant),
    /// Not in the store any more.
    Forgotten,
}

impl Slot {
    pub(super) fn new(identity: Identity) -> Self {
        let progress = Progress { phase: Phase::Queued, failures: 0, error: None };
        Self { identity, held: ArcSwapOption::empty(), progress: watch::Sender::new(progress) }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The certificate, unless it has expired.
    pub(super) fn valid(&self, now: SystemTime) -> Option<Arc<WorkloadCertificate>> {
        let held = self.held.load();
        held.as_ref().filter(|certificate| certificate.is_valid(now)).cloned()
    }

    /// Waits until there is a valid certificate or the last attempt has failed.
    pub(super) async fn settled(
        &self,
        clock: &dyn Clock,
    ) -> Result<Arc<WorkloadCertificate>, IdentityError> {
        let mut progress = self.progress.subscribe();
        loop {
            if let Some(held) = self.valid(clock.now()) {
                return Ok(held);
            }
            if let Some(error) = progress.borrow_and_update().error.clone() {
                return Err(error);
            }
            // Never an error: the sender is ours.
            if progress.changed().await.is_err() {
                return Err(IdentityError::Forgotten { identity: self.identity.clone() });
            }
        }
    }

    /// How long until this slot wants the issuer; `None` when it does not.
    pub(super) fn due_in(&self, wall: SystemTime, monotonic: Instant) -> Option<Duration> {
        match self.progress.borrow().phase {
            Phase::Queued => Some(Duration::ZERO),
            Phase::RenewAt(time) => Some(time.duration_since(wall).unwrap_or_default()),
            Phase::RetryAt(time) => Some(time.saturating_duration_since(monotonic)),
            Phase::Issuing | Phase::Forgotten => None,
        }
    }

    /// Sorts first whom a connection waits for, then new identities, then renewals.
    pub(super) fn urgency(&self) -> impl Ord + use<> {
        (self.progress.receiver_count() == 0, self.held.load().is_some())
    }

    pub(super) fn start(&self) {
        self.advance(|progress| progress.phase = Phase::Issuing);
    }

    /// The new certificate replaces the old one; `false` if the slot was forgotten meanwhile.
    pub(super) fn succeed(
        &self,
        certificate: Arc<WorkloadCertificate>,
        renew_at: SystemTime,
    ) -> bool {
        self.advance(|progress| {
            // Before anybody is woken, who then looks for it.
            self.held.store(Some(certificate));
            *progress = Progress { phase: Phase::RenewAt(renew_at), failures: 0, error: None };
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
            progress.phase = Phase::RetryAt(Instant::now() + wait);
            progress.error = Some(error);
            pause = Some(wait);
        });
        pause
    }

    /// The end of this slot: nothing changes it any more.
    pub(super) fn forget(&self) {
        self.advance(|progress| {
            self.held.store(None);
            progress.phase = Phase::Forgotten;
            progress.error = Some(IdentityError::Forgotten { identity: self.identity.clone() });
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
                Phase::RetryAt(time) => {
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

    /// Changes the progress, unless the slot is forgotten.
    fn advance(&self, change: impl FnOnce(&mut Progress)) -> bool {
        self.progress.send_if_modified(|progress| {
            if matches!(progress.phase, Phase::Forgotten) {
                return false;
            }
            change(progress);
            true
        })
    }
}
