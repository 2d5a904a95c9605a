//! The seam to whoever signs: the local authority, or `IstioCertificateService` over gRPC in a cluster.

use std::future::Future;
use std::pin::Pin;

use rcgen::CertificateSigningRequest;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::IdentityError;
use crate::base::Identity;

/// An issuer's answer in the making; boxed, as it happens twice a day per identity.
pub type IssueFuture<'a> = Pin<Box<dyn Future<Output = Result<Issued, IdentityError>> + Send + 'a>>;

/// Signs certificates for identities. It sees the public key only.
pub trait Issuer: Send + Sync {
    /// Names this issuer in messages, as in "the local CA in /var/lib/isthmus/ca".
    fn name(&self) -> &str;

    /// One attempt: the store repeats, bounds and times out. The request is PEM or DER at will; it holds
    /// `identity` as its only subject alternative name and is signed by the workload's key.
    fn issue<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a CertificateSigningRequest,
    ) -> IssueFuture<'a>;

    /// Moves when certificates that were issued before are not what would be issued now: another authority signs, or
    /// the roots have changed. The store has all of them issued anew then. `None`: the issuer cannot tell.
    fn revisions(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

/// What an issuer returns. The store verifies all of it before anybody uses it.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate first, then the intermediates that a peer needs; no root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whom this certificate's owner trusts: several while roots are being replaced.
    pub roots: Vec<CertificateDer<'static>>,
}
