//! The interface to issuers: the local authority, or `IstioCertificateService` over gRPC in a cluster.

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

    /// One attempt: the store retries, limits and times out. The request is available as PEM or DER; it holds
    /// `identity` as its only subject alternative name and is signed by the workload's key.
    fn issue<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a CertificateSigningRequest,
    ) -> IssueFuture<'a>;

    /// Changes when earlier certificates differ from what would be issued now: another authority signs, or the roots
    /// have changed. The store then reissues all certificates. `None`: the issuer cannot tell.
    fn revisions(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

/// An issuer's answer. The store verifies all of it before use.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate first, then the intermediates that a peer needs; no root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The roots that this certificate's owner trusts: several during a root rotation.
    pub roots: Vec<CertificateDer<'static>>,
}
