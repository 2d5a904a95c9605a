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

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use self::dump::{CertificateDump, ShownCertificate};
pub use self::status::{CertificateState, CertificateStatus};

use self::slot::Slot;
use super::{Clock, IdentityError, Issuer, WorkloadCertificate};
use crate::base::{Identity, Str};

type Slots = HashMap<Identity, Arc<Slot>>;

/// What the store must know of its agent.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Identities of other trust domains are refused without asking the issuer.
    pub trust_domain: Str,
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
    /// the last failure is returned at once: connections do not pile up behind an issuer that is away.
    pub async fn certificate(
        &self,
        identity: &Identity,
    ) -> Result<Arc<WorkloadCertificate>, IdentityError> {
        let now = self.clock.now();
        if let Some(held) = self.slots.load().get(identity).and_then(|slot| slot.valid(now)) {
            return Ok(held);
        }
        self.wait(identity).await
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
        self.wake.notify_one();
        tokio::select! {
            biased;
            outcome = slot.settled(self.clock.as_ref()) => outcome,
            () = self.ended.cancelled() => {
                Err(IdentityError::Stopped { identity: identity.clone() })
            }
        }
    }

    /// The identity's slot, made when it is new.
    fn slot(&self, identity: &Identity) -> Result<Arc<Slot>, IdentityError> {
        if identity.trust_domain != self.settings.trust_domain {
            let ours = self.settings.trust_domain.clone();
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
