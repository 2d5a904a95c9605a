//! The one store of certificates.
//!
//! Invariants: at most one request per identity is under way, and at most `MAX_IN_FLIGHT` altogether; a renewal
//! that fails leaves the old certificate in use until it expires; what has expired is never handed out. A
//! certificate that is present costs a look-up in an immutable map: no lock, no allocation.
//!
//! `run` does all the issuing, on the runtime that it is spawned on; everything else only asks and waits.

mod dump;
mod rotation;
mod slot;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use self::dump::{CertificateDump, ShownCertificate};
pub use self::status::{CertificateState, CertificateStatus};

use self::slot::Slot;
use super::{Clock, IdentityError, Issuer, Trust, WorkloadCertificate};
use crate::base::Identity;
use crate::telemetry::AgentMetrics;

/// How long after a failure the next connection that waits has the issuer asked again, and how long it waits for that
/// answer: shorter than the patience of most clients, so that they notice when the issuer is back, and long enough for
/// an issuer that is overloaded. The back-off itself may have grown to minutes.
const WAITER_PATIENCE: Duration = Duration::from_secs(5);

type Slots = HashMap<Identity, Arc<Slot>>;

/// What the store must know of its agent.
#[derive(Clone)]
pub struct StoreSettings {
    /// Whom the certificates' owners accept. Identities of another trust domain than our own are refused without asking
    /// the issuer.
    pub trust: Trust,
    /// Counts what was issued and what was not.
    pub metrics: AgentMetrics,
}

/// The one store. Single flight per identity, rotation at half life with jitter, the old one kept while renewal fails.
pub struct CertificateStore {
    issuer: Arc<dyn Issuer>,
    settings: StoreSettings,
    clock: Arc<dyn Clock>,
    slots: ArcSwap<Slots>,
    /// Shared by all identities, so that it grows even across forgetting one and meeting it again.
    generations: AtomicU64,
    /// Tells `run` that there may be something to issue.
    wake: Notify,
    changes: watch::Sender<u64>,
    /// Cancelled when `run` is over: nobody waits for an issuer that is not asked any more.
    ended: CancellationToken,
}

impl CertificateStore {
    /// A store without certificates; `run` must be spawned for any to be issued.
    pub fn new(issuer: Arc<dyn Issuer>, settings: StoreSettings, clock: Arc<dyn Clock>) -> Self {
        Self {
            issuer,
            settings,
            clock,
            slots: ArcSwap::default(),
            generations: AtomicU64::new(0),
            wake: Notify::new(),
            changes: watch::Sender::new(0),
            ended: CancellationToken::new(),
        }
    }

    /// The certificate; waits for the issuer the first time. While the issuer fails and nothing valid is held,
    /// the last failure is returned at once, so that connections do not pile up behind an issuer that is away; but
    /// [`WAITER_PATIENCE`] after a failure the issuer is asked again, however long the back-off, and waited for as long.
    pub async fn certificate(
        &self,
        identity: &Identity,
    ) -> Result<Arc<WorkloadCertificate>, IdentityError> {
        let now = self.clock.now();
        if let Some(held) = self.slots.load().get(identity).and_then(|slot| slot.valid(now)) {
            return Ok(held);
        }
        // In a box, since it is rare and would make the future of every connection larger.
        Box::pin(self.wait(identity)).await
    }

    /// Fetch in the background, for a workload that has just appeared.
    pub fn prefetch(&self, identity: &Identity) {
        match self.slot(identity) {
            Ok(_) => self.wake.notify_one(),
            Err(error) => tracing::warn!(%error, "a workload will have no certificate"),
        }
    }

    /// Forget identities that no local workload has any more. Who still waits for one gets an error.
    pub fn retain(&self, wanted: &dyn Fn(&Identity) -> bool) {
        let mut gone = Vec::new();
        self.slots.rcu(|slots| {
            gone.clear();
            let mut kept = Slots::clone(slots);
            gone.extend(kept.extract_if(|identity, _| !wanted(identity)).map(|(_, slot)| slot));
            kept
        });
        if gone.is_empty() {
            return;
        }
        for slot in &gone {
            slot.forget();
        }
        self.changed();
    }

    /// A counter that moves whenever a certificate is issued, renewed or forgotten: tunnels compare generations
    /// then.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The generation of the certificate that is in use; `None` without one.
    pub fn generation(&self, identity: &Identity) -> Option<u64> {
        self.slots.load().get(identity)?.generation()
    }

    /// Waits until another certificate of the identity than this one is in use; for ever, when the identity is
    /// forgotten. Each identity has its own signal: a renewal of one must not wake the tunnels of all others.
    pub async fn replaced(&self, certificate: &WorkloadCertificate) {
        let slot = self.slots.load().get(certificate.identity()).map(|slot| slot.generations());
        let Some(mut generations) = slot else { return std::future::pending().await };
        let is_another = |now: &u64| *now != 0 && *now != certificate.generation();
        if generations.wait_for(is_another).await.is_err() {
            std::future::pending().await
        }
    }

    /// When the first of the certificates that are held ends, or has ended; `None` without any.
    pub fn soonest_expiry(&self) -> Option<SystemTime> {
        self.slots.load().values().filter_map(|slot| slot.not_after()).min()
    }

    /// All identities, sorted, for the admin dump.
    pub fn status(&self) -> Vec<CertificateStatus> {
        let now = self.clock.now();
        let slots = self.slots.load();
        let mut list: Vec<_> = slots.values().map(|slot| slot.status(now)).collect();
        list.sort_by(|one, other| one.identity.cmp(&other.identity));
        list
    }

    /// The same with every certificate, in the shape that `istioctl ztunnel-config` reads.
    pub fn dump(&self) -> Vec<CertificateDump> {
        let now = self.clock.now();
        let slots = self.slots.load();
        let mut list: Vec<_> = slots.values().map(|slot| slot.dump(now)).collect();
        list.sort_by(|one, other| one.identity.cmp(&other.identity));
        list
    }

    async fn wait(&self, identity: &Identity) -> Result<Arc<WorkloadCertificate>, IdentityError> {
        let slot = self.slot(identity)?;
        slot.hurry(WAITER_PATIENCE);
        // Before `run` is woken, so that it sees that somebody waits.
        let settled = slot.settled(self.clock.as_ref());
        self.wake.notify_one();
        tokio::select! {
            biased;
            outcome = settled => outcome,
            error = outlasted(slot.last_error()) => Err(error),
            () = self.ended.cancelled() => {
                Err(IdentityError::Stopped { identity: identity.clone() })
            }
        }
    }

    /// The identity's slot, made when it is new.
    fn slot(&self, identity: &Identity) -> Result<Arc<Slot>, IdentityError> {
        let ours = self.settings.trust.trust_domains.own();
        if identity.trust_domain != *ours {
            let ours = ours.clone();
            return Err(IdentityError::ForeignTrustDomain { identity: identity.clone(), ours });
        }
        if let Some(slot) = self.slots.load().get(identity) {
            return Ok(slot.clone());
        }
        let mut slot = Arc::new(Slot::new(identity.clone()));
        self.slots.rcu(|slots| {
            let mut grown = Slots::clone(slots);
            // Somebody else may have been first: then it is theirs that lives.
            slot = grown.entry(identity.clone()).or_insert_with(|| slot.clone()).clone();
            grown
        });
        Ok(slot)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Patience is over with what failed before; without a failure there is no hurry.
async fn outlasted(last_error: Option<IdentityError>) -> IdentityError {
    match last_error {
        Some(error) => {
            sleep(WAITER_PATIENCE).await;
            error
        }
        None => std::future::pending().await,
    }
}
