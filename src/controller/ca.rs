//! The cluster's CA: kept in a Secret, made at the first start or brought by an operator, and replaced with an overlap.
//!
//! Every replica follows the Secret and signs with what it holds now ([`Authorities`]). The leader alone changes it
//! ([`keep`]): what happens next follows from the Secret's content and the time ([`rotation`]), so that a leader that
//! comes in between goes on where the last one stopped. A Secret that cannot be used changes nothing: the last good one
//! goes on signing, and is written back when somebody deletes the Secret.

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
    /// Moves with each change of the Secret, usable or not.
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

    /// Moves when the Secret has changed.
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

    /// For operators: the phase of a rotation, and until when the CA is valid.
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
