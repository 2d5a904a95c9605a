//! Would the mesh accept what this authority signs? A trial before anything depends on it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Authority, AuthorityError};
use crate::base::Identity;
use crate::identity::request::KeyRequest;
use crate::identity::{Clock, IdentityError, Trust, WorkloadCertificate};

/// Names that no cluster has.
const NAME: &str = "probe";
/// Of the certificate that is signed and thrown away.
const LIFETIME: Duration = Duration::from_secs(60);

/// A clock that stands.
#[derive(Debug)]
struct At(SystemTime);

impl Clock for At {
    fn now(&self) -> SystemTime {
        self.0
    }
}

/// Signs a certificate and verifies it as an agent would, against the authority's own roots.
///
/// # Errors
/// An agent's objections: missing parents, constraints that forbid it, foreign roots.
pub fn verify_authority(authority: &Authority, now: SystemTime) -> Result<(), AuthorityError> {
    let identity = Identity::new(NAME, NAME, NAME);
    let failed = |error: IdentityError| AuthorityError::Refused(error.to_string());
    let request = KeyRequest::new(&identity).map_err(failed)?;
    let issued = authority.certify(&identity, request.csr.der(), LIFETIME, now).map_err(failed)?;
    let (trust, clock) = (Trust::of(NAME), Arc::new(At(now)));
    WorkloadCertificate::new(&identity, request.into_key(), issued, 0, &trust, clock)
        .map(drop)
        .map_err(|error| AuthorityError::Untrusted(error.to_string()))
}
