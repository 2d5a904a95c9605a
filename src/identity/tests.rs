//! The room as its callers use it; the helpers make authorities and certificates that nobody should trust, too.

mod handshake;
mod istio;
mod local;
mod parsing;
mod reload;
mod revoked;
mod rotation;
mod waiting;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use tempfile::TempDir;
use tokio::time::Instant;

use super::request::KeyRequest;
use super::*;
use crate::base::Identity;

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Wall-clock time that follows tokio's paused time, with an offset.
#[derive(Debug)]
pub(super) struct PausedClock {
    start: Mutex<SystemTime>,
    since: Instant,
}

impl PausedClock {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { start: Mutex::new(SystemTime::now()), since: Instant::now() })
    }

    /// Somebody sets the clock.
    pub(super) fn forward(&self, by: Duration) {
        *self.start.lock() += by;
    }

    pub(super) fn back(&self, by: Duration) {
        *self.start.lock() -= by;
    }
}

impl Clock for PausedClock {
    fn now(&self) -> SystemTime {
        *self.start.lock() + self.since.elapsed()
    }
}

/// A clock that stands still.
#[derive(Debug)]
pub(super) struct Fixed(pub(super) SystemTime);

impl Clock for Fixed {
    fn now(&self) -> SystemTime {
        self.0
    }
}

pub(super) fn reviews() -> Identity {
    Identity::new("cluster.local", "bookinfo", "reviews")
}

pub(super) fn ratings() -> Identity {
    Identity::new("cluster.local", "bookinfo", "ratings")
}

pub(super) fn settings(directory: &std::path::Path, trust_domain: &str) -> LocalIssuerSettings {
    LocalIssuerSettings {
        directory: directory.to_owned(),
        trust_domain: trust_domain.into(),
        lifetime: DEFAULT_LIFETIME,
    }
}

/// A separate authority, with its directory.
pub(super) fn issuer(clock: Arc<dyn Clock>) -> (TempDir, LocalIssuer) {
    let home = tempfile::tempdir().unwrap();
    let issuer = LocalIssuer::open(settings(&home.path().join("ca"), "cluster.local"), clock);
    (home, issuer.unwrap())
}

/// The store's actions for one identity.
pub(super) async fn certify(
    issuer: &dyn Issuer,
    identity: &Identity,
    clock: Arc<dyn Clock>,
) -> Result<WorkloadCertificate, IdentityError> {
    let request = KeyRequest::new(identity)?;
    let issued = issuer.issue(identity, &request.csr).await?;
    let trust = Trust::of("cluster.local");
    WorkloadCertificate::new(identity, request.into_key(), issued, 1, &trust, clock)
}

/// A leaf with any names, signed by the authority in a directory, as a careless issuer would.
pub(super) fn careless_leaf(directory: &std::path::Path, names: &[&str]) -> (Issued, KeyPair) {
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let authority = read("ca-cert.pem");
    let signer = KeyPair::from_pem(&read("ca-key.pem")).unwrap();
    let signer = rcgen::Issuer::from_ca_cert_pem(&authority, signer).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names =
        names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
    let leaf = params.signed_by(&key, &signer).unwrap().der().clone();
    let root = rustls::pki_types::pem::PemObject::from_pem_slice(authority.as_bytes()).unwrap();
    (Issued { chain: vec![leaf], roots: vec![root] }, key)
}
