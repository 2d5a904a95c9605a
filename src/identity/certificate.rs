//! A certificate with its key and roots, verified once when it is created and ready for TLS from then on.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, CommonState, RootCertStore, ServerConfig};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::clock::{Clock, unix_time};
use super::provider::provider;
use super::verify::{ExpectedServers, MeshClients, spiffe_identity};
use super::{IdentityError, Issued, ProvenPeer, Role, Trust, tls};
use crate::base::Identity;

/// Certificate, key and roots of one identity, ready for TLS.
pub struct WorkloadCertificate {
    identity: Identity,
    generation: u64,
    details: Details,
    /// As it was issued, for operators.
    issued: Shown,
    key: Arc<SingleCertAndKey>,
    roots: Arc<RootCertStore>,
    server: Arc<ServerConfig>,
    trust: Trust,
    clock: Arc<dyn Clock>,
}

/// The leaf with its intermediates, and the roots.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
}

/// What the certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Details {
    /// Hexadecimal, as `openssl x509 -serial` prints it but for the colons.
    pub(super) serial: String,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl WorkloadCertificate {
    /// Accepts an issuer's answer, unless a peer in the mesh would reject it: identity, key, dates, and the chain to
    /// the roots for both uses are checked here, so that a bad answer shows as the issuer's failure and not as a puzzle
    /// in every handshake.
    pub(super) fn new(
        identity: &Identity,
        key: PrivateKeyDer<'static>,
        issued: Issued,
        generation: u64,
        trust: &Trust,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, IdentityError> {
        let unusable = |error: rustls::Error| IdentityError::Unusable(error.to_string());
        let leaf = issued.chain.first().ok_or_else(|| reject("the chain is empty"))?;
        let presented = spiffe_identity(leaf)?;
        if presented != *identity {
            return Err(reject(&format!("it is for {presented}")));
        }
        let details = Details::of(leaf)?;
        let roots = root_store(&issued.roots)?;
        let signing = provider().key_provider.load_private_key(key).map_err(unusable)?;
        verify_own(identity, &issued.chain, &roots, clock.now())?;
        let shown = Shown { chain: issued.chain.clone(), roots: issued.roots };
        let key = Arc::new(CertifiedKey::new(issued.chain, signing));
        key.keys_match().map_err(unusable)?;
        let server = tls::server_config(key.clone(), roots.clone(), trust.clone(), clock.clone())
            .map_err(|reason| IdentityError::tls(identity, reason))?;
        Ok(Self {
            identity: identity.clone(),
            generation,
            details,
            issued: shown,
            key: Arc::new(SingleCertAndKey::from(key)),
            roots,
            server: Arc::new(server),
            trust: trust.clone(),
            clock,
        })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// TLS 1.3, ALPN h2, a client certificate of our trust domain is required (shared, cached).
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// TLS 1.3, ALPN h2; the server must prove to be exactly one of `expected`, which must not be empty.
    /// Ask `negotiated_h2` after the handshake. Created for each handshake, which costs less than a microsecond.
    pub fn client_config(&self, expected: &[Identity]) -> Result<Arc<ClientConfig>, IdentityError> {
        if expected.is_empty() {
            return Err(IdentityError::tls(&self.identity, "no server identity is expected"));
        }
        tls::client_config(
            self.key.clone(),
            self.roots.clone(),
            expected,
            self.trust.clone(),
            self.clock.clone(),
        )
        .map(Arc::new)
        .map_err(|reason| IdentityError::tls(&self.identity, reason))
    }

    /// Increases with every rotation of this identity: tunnels with an older one are drained.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// When peers stop accepting it.
    pub fn not_after(&self) -> SystemTime {
        self.details.not_after
    }

    /// Whether it has not expired yet. The start is not looked at: it was checked when this was made, and a
    /// clock that is set back a little must not cut the mesh.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        now < self.details.not_after
    }

    /// The proven identity of an established session's peer, to check later whether it was revoked.
    pub fn proven(&self, session: &CommonState, role: Role) -> ProvenPeer {
        ProvenPeer::of(session, role, unix_time(self.clock.now()), &self.roots, &self.trust)
    }

    /// The leaf comes first.
    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.issued.chain
    }

    pub(super) fn roots(&self) -> &[CertificateDer<'static>] {
        &self.issued.roots
    }

    pub(super) fn details(&self) -> &Details {
        &self.details
    }
}

impl Details {
    /// Reads the certificate's own statements.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|_| reject("it is not an X.509 certificate"))?;
        let serial = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        let validity = parsed.validity();
        Ok(Self {
            serial,
            not_before: system_time(validity.not_before),
            not_after: system_time(validity.not_after),
        })
    }
}

/// A time before 1970 counts as 1970: expired either way.
pub(super) fn system_time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

fn reject(why: &str) -> IdentityError {
    IdentityError::Unusable(why.to_owned())
}

fn root_store(roots: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, IdentityError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store
            .add(root.clone())
            .map_err(|error| reject(&format!("a root certificate cannot be read: {error}")))?;
    }
    if store.is_empty() {
        return Err(reject("it came without a root certificate"));
    }
    Ok(Arc::new(store))
}

/// Verifies our own chain as the peers will, in both roles.
fn verify_own(
    identity: &Identity,
    chain: &[CertificateDer<'static>],
    roots: &Arc<RootCertStore>,
    now: SystemTime,
) -> Result<(), IdentityError> {
    let unusable = |error: rustls::Error| IdentityError::Unusable(error.to_string());
    let (leaf, intermediates) = chain.split_first().ok_or_else(|| reject("the chain is empty"))?;
    let now = unix_time(now).ok_or_else(|| reject("the clock of this machine is before 1970"))?;
    // Whether the peers' lists revoke it is not for us to say.
    let trust = Trust::of(&identity.trust_domain);
    let servers = ExpectedServers {
        roots: roots.clone(),
        trust: trust.clone(),
        algorithms: provider().signature_verification_algorithms,
        expected: Box::new([identity.clone()]),
    };
    // Names play no part in our verification; the library's signature wants one.
    let nobody = ServerName::from(std::net::IpAddr::from(std::net::Ipv4Addr::UNSPECIFIED));
    servers.verify_server_cert(leaf, intermediates, &nobody, &[], now).map_err(unusable)?;
    MeshClients::new(roots.clone(), trust)
        .map_err(|error| reject(&error.to_string()))?
        .verify_client_cert(leaf, intermediates, now)
        .map_err(unusable)?;
    Ok(())
}
