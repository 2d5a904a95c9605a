//! Certificates: issuers, the one certificate store, and the TLS that they are used in.
//!
//! Keys live in memory only. A certificate is an identity's, not a connection's: everything that acts for one
//! service account shares it, and rotation replaces it without touching connections that exist.

use std::sync::Arc;

use crate::base::Identity;

#[derive(Debug, thiserror::Error, Clone)]
pub enum IdentityError {
    #[error("no certificate for {identity}: {reason}")]
    Issue { identity: Identity, reason: String },
}

/// Certificate, key and roots of one identity, ready for TLS.
pub struct WorkloadCertificate;
impl WorkloadCertificate {
    pub fn identity(&self) -> &Identity {
        todo!()
    }
    /// TLS 1.3, ALPN h2, a client certificate of our trust domain is required (shared, cached).
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        todo!()
    }
    /// TLS 1.3, ALPN h2; the server must prove to be exactly one of `expected`.
    pub fn client_config(&self, _expected: &[Identity]) -> Result<Arc<rustls::ClientConfig>, IdentityError> {
        todo!()
    }
    /// Grows with every rotation of this identity: tunnels made with an older one are drained.
    pub fn generation(&self) -> u64 {
        todo!()
    }
}

/// The SPIFFE identity in the certificate that the peer of a TLS session proved to own.
pub fn peer_identity(_session: &rustls::CommonState) -> Option<Identity> {
    todo!()
}

/// The one store. Single flight per identity, rotation at half life with jitter, the old one kept while renewal fails.
pub struct CertificateStore;
impl CertificateStore {
    /// The certificate; waits for the issuer the first time.
    pub async fn certificate(&self, _identity: &Identity) -> Result<Arc<WorkloadCertificate>, IdentityError> {
        todo!()
    }
    /// Fetch in the background, for a workload that has just appeared.
    pub fn prefetch(&self, _identity: &Identity) {
        todo!()
    }
    /// Forget identities that no local workload has any more.
    pub fn retain(&self, _wanted: &dyn Fn(&Identity) -> bool) {
        todo!()
    }
}
