//! Why there is no certificate, or why a peer's was refused.

use std::fmt;
use std::sync::Arc;

use rustls::{CertificateError, OtherError};

use crate::base::{Identity, Str};

/// The one error of this room. It is `Clone`, because everybody who waits for one certificate gets it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IdentityError {
    /// The last attempt failed; `reason` begins with the issuer's name.
    #[error("no certificate for {identity}: {reason}")]
    Issue { identity: Identity, reason: String },
    /// Only identities of our own trust domain are ever requested.
    #[error(
        "no certificate for {identity}: this agent's trust domain is {ours}; check the setting trust_domain"
    )]
    ForeignTrustDomain { identity: Identity, ours: Str },
    /// The last workload with this identity left while somebody waited.
    #[error("no certificate for {identity}: no workload on this node uses it any more")]
    Forgotten { identity: Identity },
    /// Nothing is issued any more.
    #[error("no certificate for {identity}: the agent is shutting down")]
    Stopped { identity: Identity },
    /// An issuer's own refusal; the store adds the identity and the issuer's name.
    #[error("{0}")]
    Refused(String),
    /// The issuer answered, but not with a certificate that would be accepted by the mesh.
    #[error("the issued certificate cannot be used: {0}")]
    Unusable(String),
    /// The TLS library refused a configuration.
    #[error("TLS cannot be set up for {identity}: {reason}")]
    Tls { identity: Identity, reason: String },
    /// The directory of the local certificate authority.
    #[error("the certificate authority in {directory} cannot be used: {reason}")]
    Authority { directory: String, reason: String },
    /// The file of `identity.crl`.
    #[error("the certificate revocation lists in {file} cannot be used: {reason}")]
    Revocations { file: String, reason: String },
    /// A certificate without exactly one identity of the form that Istio uses.
    #[error("the certificate carries no SPIFFE identity: {0}")]
    NoIdentity(String),
    /// The server is somebody else than the endpoint that was dialled.
    #[error("the server is {presented}, expected {expected}; the address may have been reused")]
    UnexpectedPeer { presented: Identity, expected: String },
    /// The client is of another mesh, though our roots vouch for it.
    #[error("the client is {presented}, which is not of our trust domain {ours} or an alias of it")]
    ForeignPeer { presented: Identity, ours: Str },
}

/// The TLS library prints what a verifier returns as for debugging; so this prints the message then, too.
#[derive(thiserror::Error)]
#[error("{0}")]
struct Readable(IdentityError);

impl IdentityError {
    pub(super) fn tls(identity: &Identity, reason: impl ToString) -> Self {
        Self::Tls { identity: identity.clone(), reason: reason.to_string() }
    }

    /// As the TLS library wants it from a verifier: the text reaches the log, the peer gets an alert.
    pub(super) fn into_tls(self) -> rustls::Error {
        let other = OtherError(Arc::new(Readable(self)));
        rustls::Error::InvalidCertificate(CertificateError::Other(other))
    }
}

impl fmt::Debug for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
