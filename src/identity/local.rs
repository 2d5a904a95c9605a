//! The local authority: a certificate authority in a directory, for one machine and for tests.
//!
//! Agents that share the directory share the authority, so it is created once (see `files`) or brought by the user. It
//! signs its own agent's requests; there is no caller to authenticate. A cluster therefore uses another issuer, where
//! agents never hold the key.
//!
//! The files are watched: another pair, or other roots, take effect at once, and the store reissues every certificate,
//! because roots come with certificates. Unusable files change nothing.

mod files;
mod follow;

use std::future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rcgen::CertificateSigningRequest;
use tokio::sync::watch;

use super::authority::{self, Authority, AuthorityError, CA_CERTIFICATE, CA_KEY, Pair};
use super::{Clock, IdentityError, IssueFuture, Issued, Issuer};
use crate::base::{Identity, Str};

/// The default lifetime of a certificate: a day, as istiod and ztunnel (`SECRET_TTL`). An issuer may be down for half
/// of it unnoticed.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// From here on each start, and each change, warns of the authority's end.
const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How the certificates of authorities that are made here are named.
const NAME: &str = "Isthmus local CA";

/// Where the authority is and what it signs.
#[derive(Debug, Clone)]
pub struct LocalIssuerSettings {
    /// Holds `ca-cert.pem` and `ca-key.pem`; created when missing.
    pub directory: PathBuf,
    /// Identities of other trust domains are refused.
    pub trust_domain: Str,
    /// Of the certificates that are issued; never beyond the authority's own end.
    pub lifetime: Duration,
}

/// Signs with the authority of a directory.
pub struct LocalIssuer {
    name: String,
    trust_domain: Str,
    lifetime: Duration,
    directory: PathBuf,
    current: ArcSwap<Current>,
    revisions: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
}

/// The authority in force and the files that it was read from.
struct Current {
    authority: Authority,
    pair: Pair,
}

impl Current {
    fn new(pair: Pair, now: std::time::SystemTime) -> Result<Self, AuthorityError> {
        let authority = Authority::new(&pair, now)?;
        let (_, end) = authority.validity();
        if end.duration_since(now).is_ok_and(|left| left < EXPIRY_WARNING) {
            tracing::warn!(
                left = ?end.duration_since(now).unwrap_or_default(),
                "the local certificate authority ends soon; replace {CA_CERTIFICATE} and {CA_KEY}"
            );
        }
        Ok(Self { authority, pair })
    }
}

impl LocalIssuer {
    /// Loads the authority, or creates it at the first start. Blocks on files: call it while starting.
    pub fn open(
        settings: LocalIssuerSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, IdentityError> {
        let directory = settings.directory.display().to_string();
        let now = clock.now();
        let current = files::load_or_create(&settings.directory, &|| {
            authority::create(NAME, &settings.trust_domain, now)
        })
        .and_then(|pair| Ok(Current::new(pair, now)?))
        .map_err(|error| {
            let (directory, reason) = (directory.clone(), error.to_string());
            IdentityError::Authority { directory, reason }
        })?;
        Ok(Self {
            name: format!("the local CA in {directory}"),
            trust_domain: settings.trust_domain,
            lifetime: settings.lifetime,
            directory: settings.directory,
            current: ArcSwap::from_pointee(current),
            revisions: watch::Sender::new(0),
            clock,
        })
    }

    fn sign(
        &self,
        identity: &Identity,
        request: &CertificateSigningRequest,
    ) -> Result<Issued, IdentityError> {
        if identity.trust_domain != self.trust_domain {
            let ours = self.trust_domain.clone();
            return Err(IdentityError::ForeignTrustDomain { identity: identity.clone(), ours });
        }
        let authority = &self.current.load().authority;
        authority.certify(identity, request.der(), self.lifetime, self.clock.now())
    }
}

impl Issuer for LocalIssuer {
    fn name(&self) -> &str {
        &self.name
    }

    /// Ready at once: one signature takes some tens of microseconds.
    fn issue<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a CertificateSigningRequest,
    ) -> IssueFuture<'a> {
        Box::pin(future::ready(self.sign(identity, request)))
    }

    fn revisions(&self) -> Option<watch::Receiver<u64>> {
        Some(self.revisions.subscribe())
    }
}
