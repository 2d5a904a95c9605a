//! The local authority: a certificate authority in a directory, for one machine and for tests.
//!
//! Agents that share the directory share the authority, so it is created once (see `files`) or brought by the
//! user. It signs what its own agent asks for; there is no caller to authenticate, which is why a cluster uses
//! another issuer: there agents never hold the key.
//!
//! The files are followed: another pair, or more or fewer roots, take effect at once, and the store has every
//! certificate issued anew, since roots come with certificates. Files that cannot be used change nothing.

mod authority;
mod files;
mod follow;

use std::future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rcgen::{
    CertificateParams, CertificateSigningRequest, CertificateSigningRequestParams,
    DistinguishedName, ExtendedKeyUsagePurpose, KeyUsagePurpose, PublicKeyData,
};
use tokio::sync::watch;

use self::authority::Authority;
use self::files::Pair;
use super::request::uri;
use super::{Clock, IdentityError, IssueFuture, Issued, Issuer};
use crate::base::{Identity, Str};

/// How long a certificate lives unless the setting says otherwise: a day, as istiod and ztunnel
/// (`SECRET_TTL`). Half of it is the time that an issuer may be away unnoticed.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How far certificates are dated back, so that a peer whose clock is late accepts a new one: two minutes,
/// as istiod.
const CLOCK_SKEW: Duration = Duration::from_secs(2 * 60);

/// The length of an uncompressed point on P-256 (SEC 1, 2.3.3).
const P256_POINT: usize = 65;

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
    fn new(pair: Pair, now: std::time::SystemTime) -> Result<Self, String> {
        Ok(Self { authority: Authority::new(&pair, now)?, pair })
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
            authority::create(&settings.trust_domain, now)
        })
        .and_then(|pair| Current::new(pair, now))
        .map_err(|reason| IdentityError::Authority { directory: directory.clone(), reason })?;
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
        let request = check_request(identity, request)?;
        let now = self.clock.now();
        let authority = &self.current.load().authority;
        let not_after = authority.limit(now, self.lifetime).map_err(IdentityError::Refused)?;
        let mut params = CertificateParams::default();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = not_after.into();
        params.serial_number = Some(authority::random_serial().map_err(IdentityError::Refused)?);
        params.subject_alt_names = request.params.subject_alt_names;
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        authority
            .sign(&params, &request.public_key)
            .map_err(|error| IdentityError::Refused(format!("signing failed: {error}")))
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

/// The request must be signed by its key (parsing verifies that), use P-256, and ask for the identity alone.
fn check_request(
    identity: &Identity,
    request: &CertificateSigningRequest,
) -> Result<CertificateSigningRequestParams, IdentityError> {
    let refused = |why: &str| IdentityError::Refused(format!("refused the request: {why}"));
    let request = CertificateSigningRequestParams::from_der(request.der())
        .map_err(|error| refused(&error.to_string()))?;
    let wanted = uri(identity).map_err(|error| refused(&error.to_string()))?;
    if request.params.subject_alt_names != [wanted] {
        return Err(refused("it does not ask for exactly the identity it is made for"));
    }
    let key = &request.public_key;
    let is_p256 =
        key.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == P256_POINT;
    if is_p256 { Ok(request) } else { Err(refused("its key is not ECDSA P-256")) }
}
