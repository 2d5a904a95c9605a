//! The cluster's CA: kept in a Secret, created at the first start or brought by an operator, and rotated with an
//! overlap.
//!
//! Every replica watches the Secret and signs with its current content ([`Authorities`]). Only the leader changes it
//! ([`keep`]): the next step follows from the Secret's content and the time ([`rotation`]), so a new leader continues
//! where the last one stopped. An unusable Secret changes nothing: the last good CA keeps signing, and is written back
//! if the Secret is deleted.

mod error;
mod follow;
mod keep;
mod publish;
mod rotation;
mod secret;
mod state;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::identity::Authority;
pub(super) use error::CaError;
use state::State;

pub(super) use follow::follow;
pub(super) use keep::keep;

/// The Secret with the CA.
pub const SECRET: &str = "isthmus-ca";
/// The ConfigMap with the roots that are trusted, for the agents.
pub const ROOTS_CONFIG_MAP: &str = "isthmus-ca-root";

/// What the Secret held when it was good last.
pub struct Current {
    pub authority: Authority,
    /// Whom certificates' owners trust: more than the authority's own roots while they are being replaced.
    pub trusted: Vec<CertificateDer<'static>>,
    state: State,
}

/// The CA in force, shared by everything that signs.
#[derive(Clone)]
pub struct Authorities(Arc<Shared>);

struct Shared {
    current: ArcSwapOption<Current>,
    /// Changes with each change of the Secret, usable or not.
    changes: watch::Sender<u64>,
}

impl Default for Authorities {
    fn default() -> Self {
        let (current, changes) = (ArcSwapOption::empty(), watch::Sender::new(0));
        Self(Arc::new(Shared { current, changes }))
    }
}

impl Authorities {
    /// `None` until the first good Secret was read.
    pub fn current(&self) -> Option<Arc<Current>> {
        self.0.current.load_full()
    }

    /// Notified when the Secret has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn set(&self, current: Current) {
        self.0.current.store(Some(Arc::new(current)));
    }

    fn changed(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }
}

impl Current {
    fn new(state: State, now: SystemTime) -> Result<Self, CaError> {
        let authority = state.signing.authority(now)?;
        let trusted = state.trusted()?;
        Ok(Self { authority, trusted, state })
    }

    /// For operators: the phase of a rotation, and when the CA expires.
    pub fn status(&self) -> serde_json::Value {
        let (serial, _) = self.authority.description();
        serde_json::json!({
            "serial": serial,
            "notAfter": state::timestamp(self.authority.validity().1),
            "trustedRoots": self.trusted.len(),
            "rotation": self.state.phase(),
        })
    }
}
