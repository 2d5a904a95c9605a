//! Revocation lists, in handshakes of both directions and for what is established.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::handshake::meet;
use super::revocation::{Chain, ListsError};
use super::*;
use crate::telemetry::AgentMetrics;

struct Mesh {
    home: TempDir,
    issuer: LocalIssuer,
    clock: Arc<dyn Clock>,
    revocations: Arc<Revocations>,
}

impl Mesh {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (home, issuer) = issuer(clock.clone());
        let file = home.path().join("crl.pem");
        fs::write(&file, list(&home.path().join("ca"), &[])).unwrap();
        let revocations = Revocations::open(file, AgentMetrics::default()).unwrap();
        Self { home, issuer, clock, revocations }
    }

    fn file(&self) -> PathBuf {
        self.home.path().join("crl.pem")
    }

    fn directory(&self) -> PathBuf {
        self.home.path().join("ca")
    }

    async fn certificate(&self, identity: &Identity) -> WorkloadCertificate {
        self.certificate_with_chain(identity).await.0
    }

    async fn certificate_with_chain(
        &self,
        identity: &Identity,
    ) -> (WorkloadCertificate, Vec<CertificateDer<'static>>) {
        let request = KeyRequest::new(identity).unwrap();
        let issued = self.issuer.issue(identity, &request.csr).await.unwrap();
        let trust = Trust { revocations: self.revocations.clone(), ..Trust::of("cluster.local") };
        let (key, clock, chain) = (request.into_key(), self.clock.clone(), issued.chain.clone());
        let certificate = WorkloadCertificate::new(identity, key, issued, 1, &trust, clock);
        (certificate.unwrap(), chain)
    }

    async fn revoke(&self, certificates: &[&WorkloadCertificate]) {
        fs::write(self.file(), list(&self.directory(), certificates)).unwrap();
        self.revocations.reload(&self.file()).await.unwrap();
    }
}

/// A list of the authority in a directory, long expired.
fn list(directory: &Path, revoked: &[&WorkloadCertificate]) -> String {
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    let key = KeyPair::from_pem(&read("ca-key.pem")).unwrap();
    let signer = rcgen::Issuer::from_ca_cert_pem(&read("ca-cert.pem"), key).unwrap();
    signed_list(&signer, revoked)
}

fn signed_list(signer: &rcgen::Issuer<'_, KeyPair>, revoked: &[&WorkloadCertificate]) -> String {
    let serial = |certificate: &&WorkloadCertificate| {
        let text = &certificate.details().serial;
        let bytes: Vec<u8> = (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect();
        RevokedCertParams {
            serial_number: SerialNumber::from_slice(&bytes),
            revocation_time: date_time_ymd(2024, 1, 2),
            reason_code: None,
            invalidity_date: None,
        }
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2024, 2, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(serial).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(signer).unwrap().pem().unwrap()
}

#[tokio::test]
async fn a_revoked_peer_is_refused_in_both_directions() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.certificate(&reviews()).await, mesh.certificate(&ratings()).await);
    let config = || client.client_config(&[ratings()]).unwrap();
    assert!(meet(config(), server.server_config()).await.client.is_ok(), "the list has expired");

    mesh.revoke(&[&client]).await;
    let outcome = meet(config(), server.server_config()).await;
    assert!(outcome.server.unwrap_err().contains("Revoked"));
    assert!(outcome.client.unwrap_err().contains("CertificateRevoked"), "the alert for it");

    mesh.revoke(&[&server]).await;
    let outcome = meet(config(), server.server_config()).await;
    assert!(outcome.client.unwrap_err().contains("Revoked"));

    mesh.revoke(&[]).await;
    assert!(meet(config(), server.server_config()).await.client.is_ok());
}

/// The list of an authority of the same name says nothing; the one of ours beside it does.
#[tokio::test]
async fn a_list_counts_when_our_authority_signed_it() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.certificate(&reviews()).await, mesh.certificate(&ratings()).await);
    let config = || client.client_config(&[ratings()]).unwrap();
    let certificate = fs::read_to_string(mesh.directory().join("ca-cert.pem")).unwrap();
    let namesake =
        rcgen::Issuer::from_ca_cert_pem(&certificate, KeyPair::generate().unwrap()).unwrap();
    let forged = signed_list(&namesake, &[&client]);
    fs::write(mesh.file(), &forged).unwrap();
    mesh.revocations.reload(&mesh.file()).await.unwrap();
    assert!(meet(config(), server.server_config()).await.client.is_ok());

    fs::write(mesh.file(), forged + &list(&mesh.directory(), &[&client])).unwrap();
    mesh.revocations.reload(&mesh.file()).await.unwrap();
    assert!(meet(config(), server.server_config()).await.server.is_err());
}

#[tokio::test]
async fn a_chain_with_a_revoked_authority_is_refused() {
    let root_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "root");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&root_key).unwrap();
    let root_signer = rcgen::Issuer::new(params, root_key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "intermediate");
    params.serial_number = Some(SerialNumber::from_slice(&[0x42]));
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let intermediate = params.signed_by(&key, &root_signer).unwrap();
    let signer = rcgen::Issuer::new(params, key);
    let leaf =
        CertificateParams::default().signed_by(&KeyPair::generate().unwrap(), &signer).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let chain = [intermediate.der().clone()];
    let revocations = |text: String| {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("crl.pem");
        fs::write(&file, text).unwrap();
        Revocations::open(file, AgentMetrics::default()).unwrap()
    };
    let judged = |revocations: &Revocations| {
        revocations.revoke(&Chain {
            leaf: leaf.der(),
            intermediates: &chain,
            roots: &roots,
            role: Role::Client,
            at: UnixTime::now(),
        })
    };
    assert!(!judged(&revocations(signed_list(&root_signer, &[]))));
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2024, 2, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[0x42]),
            revocation_time: date_time_ymd(2024, 1, 2),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = params.signed_by(&root_signer).unwrap().pem().unwrap();
    assert!(judged(&revocations(list)));
}

#[tokio::test]
async fn an_established_peer_is_told_of_when_it_is_revoked() {
    let mesh = Mesh::new();
    let (certificate, chain) = mesh.certificate_with_chain(&reviews()).await;
    let roots = root_of(&mesh.directory());
    let trust = Trust { revocations: mesh.revocations.clone(), ..Trust::of("cluster.local") };
    let proven = ProvenPeer::from_chain(&chain, Role::Client, UnixTime::now(), &roots, &trust);
    let follower = mesh.revocations.clone();
    let _following = AbortOnDropHandle::new(tokio::spawn(async move {
        follower.follow(CancellationToken::new()).await;
    }));
    let mut waiting = tokio::spawn(proven.revoked());
    // Somebody else, first.
    let other = mesh.certificate(&ratings()).await;
    let mut changes = mesh.revocations.subscribe();
    fs::write(mesh.file(), list(&mesh.directory(), &[&other])).unwrap();
    timeout(Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
    assert!(timeout(Duration::from_millis(200), &mut waiting).await.is_err());
    fs::write(mesh.file(), list(&mesh.directory(), &[&other, &certificate])).unwrap();
    timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
}

fn root_of(directory: &Path) -> Arc<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    let pem = fs::read(directory.join("ca-cert.pem")).unwrap();
    roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    Arc::new(roots)
}

#[tokio::test]
async fn a_file_that_cannot_be_used_leaves_the_last_lists_in_force() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.certificate(&reviews()).await, mesh.certificate(&ratings()).await);
    mesh.revoke(&[&client]).await;
    let good = fs::read_to_string(mesh.file()).unwrap();
    for (text, why) in [
        ("", "holds no certificate revocation list"),
        ("nonsense", "holds no certificate revocation list"),
        (&good[..good.len() / 2], "PEM"),
        ("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "list 1"),
    ] {
        fs::write(mesh.file(), text).unwrap();
        let error = mesh.revocations.reload(&mesh.file()).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        let outcome =
            meet(client.client_config(&[ratings()]).unwrap(), server.server_config()).await;
        assert!(outcome.server.is_err(), "the last list is not in force any more: {text:?}");
        // An agent that starts with it says so, and does not start.
        let error = Revocations::open(mesh.file(), AgentMetrics::default()).unwrap_err();
        assert!(error.to_string().contains("crl.pem"), "{error}");
    }
    fs::remove_file(mesh.file()).unwrap();
    let error = mesh.revocations.reload(&mesh.file()).await.unwrap_err();
    assert!(matches!(error, ListsError::Unreadable(_)), "{error}");
}
