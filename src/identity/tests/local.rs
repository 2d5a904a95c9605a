//! The authority in its directory: made once, read strictly, and picky about what it signs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use rcgen::{BasicConstraints, IsCa};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

fn open_at(directory: &Path, time: SystemTime) -> Result<LocalIssuer, IdentityError> {
    LocalIssuer::open(settings(directory, "cluster.local"), Arc::new(Fixed(time)))
}

fn open(directory: &Path) -> Result<LocalIssuer, IdentityError> {
    open_at(directory, SystemTime::now())
}

#[track_caller]
fn refused(directory: &Path, why: &str) {
    let error = open(directory).map(drop).expect_err("the authority was accepted").to_string();
    assert!(error.contains(why), "{error}");
    assert!(error.contains(&directory.display().to_string()), "{error}");
}

fn sign(issuer: &LocalIssuer, identity: &Identity) -> Result<Issued, IdentityError> {
    let request = KeyRequest::new(identity).unwrap();
    futures_util::FutureExt::now_or_never(issuer.issue(identity, &request.csr)).unwrap()
}

fn mode(path: PathBuf) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A self-made authority, as `openssl` would write it.
fn import(directory: &Path, change: impl FnOnce(&mut CertificateParams)) -> KeyPair {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("ca-cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    write_key(directory, &key.serialize_pem());
    key
}

fn write_key(directory: &Path, text: &str) {
    fs::write(directory.join("ca-key.pem"), text).unwrap();
    fs::set_permissions(directory.join("ca-key.pem"), Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn makes_private_files_and_loads_them_again() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("a/b");
    let first = sign(&open(&directory).unwrap(), &reviews()).unwrap();
    let second = sign(&open(&directory).unwrap(), &reviews()).unwrap();
    assert_eq!(first.roots, second.roots);
    assert_eq!(mode(directory.clone()), 0o700);
    assert_eq!(mode(directory.join("ca-key.pem")), 0o600);
    let names: Vec<_> = fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "left behind: {names:?}");
}

#[test]
fn agents_that_start_together_share_one_authority() {
    for _ in 0..10 {
        let home = tempfile::tempdir().unwrap();
        let (directory, start) = (home.path().join("ca"), Barrier::new(8));
        let roots: Vec<_> = std::thread::scope(|scope| {
            let agent = || {
                start.wait();
                let issuer = open(&directory).unwrap();
                // Signed by the key that belongs to the root, or this fails.
                let clock = Arc::new(SystemClock);
                futures_util::FutureExt::now_or_never(certify(&issuer, &reviews(), clock))
                    .unwrap()
                    .unwrap();
                sign(&issuer, &reviews()).unwrap().roots
            };
            let agents: Vec<_> = (0..8).map(|_| scope.spawn(agent)).collect();
            agents.into_iter().map(|agent| agent.join().unwrap()).collect()
        });
        assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[test]
fn a_crash_between_the_renames_is_finished_by_the_next_start() {
    let home = tempfile::tempdir().unwrap();
    let roots = sign(&open(home.path()).unwrap(), &reviews()).unwrap().roots;
    let (done, new) = (home.path().join("ca-cert.pem"), home.path().join(".ca-cert.pem.new"));
    fs::rename(&done, &new).unwrap();
    assert_eq!(sign(&open(home.path()).unwrap(), &reviews()).unwrap().roots, roots);
    assert!(done.exists() && !new.exists());
}

#[test]
fn a_crash_before_the_renames_leaves_nothing_that_matters() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(".ca-key.pem.new"), "half").unwrap();
    fs::write(home.path().join(".ca-cert.pem.new"), "half").unwrap();
    assert!(open(home.path()).is_ok());
    assert_eq!(mode(home.path().join("ca-key.pem")), 0o600);
}

#[test]
fn half_a_pair_is_refused_and_left_alone() {
    for (lost, kept) in [("ca-cert.pem", "ca-key.pem"), ("ca-key.pem", "ca-cert.pem")] {
        let home = tempfile::tempdir().unwrap();
        import(home.path(), |_| {});
        let before = fs::read(home.path().join(kept)).unwrap();
        fs::remove_file(home.path().join(lost)).unwrap();
        refused(home.path(), &format!("{lost} is missing"));
        assert_eq!(fs::read(home.path().join(kept)).unwrap(), before);
    }
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    for bits in [0o640, 0o604, 0o620, 0o777] {
        let home = tempfile::tempdir().unwrap();
        open(home.path()).unwrap();
        let key = home.path().join("ca-key.pem");
        fs::set_permissions(&key, Permissions::from_mode(bits)).unwrap();
        refused(home.path(), "chmod 600");
    }
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o770)).unwrap();
    refused(home.path(), "chmod 700");
}

#[test]
fn what_cannot_be_read_is_refused() {
    let home = tempfile::tempdir().unwrap();
    import(home.path(), |_| {});
    write_key(home.path(), "no key");
    refused(home.path(), "ca-key.pem holds no private key");
    let home = tempfile::tempdir().unwrap();
    import(home.path(), |_| {});
    fs::write(home.path().join("ca-cert.pem"), "no certificate").unwrap();
    refused(home.path(), "ca-cert.pem holds no certificate");
    fs::write(home.path().join("ca-cert.pem"), [0xff, 0xfe]).unwrap();
    refused(home.path(), "ca-cert.pem cannot be read");
    fs::remove_file(home.path().join("ca-key.pem")).unwrap();
    fs::create_dir(home.path().join("ca-key.pem")).unwrap();
    fs::set_permissions(home.path().join("ca-key.pem"), Permissions::from_mode(0o700)).unwrap();
    refused(home.path(), "ca-key.pem cannot be read");
}

#[test]
fn a_wrong_pair_and_no_authority_are_refused() {
    let home = tempfile::tempdir().unwrap();
    import(home.path(), |_| {});
    write_key(home.path(), &KeyPair::generate().unwrap().serialize_pem());
    refused(home.path(), "does not belong");
    let home = tempfile::tempdir().unwrap();
    import(home.path(), |params| params.is_ca = IsCa::ExplicitNoCa);
    refused(home.path(), "not a certificate authority");
    let home = tempfile::tempdir().unwrap();
    import(home.path(), |params| {
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    });
    refused(home.path(), "not a certificate authority");
}

#[test]
fn an_expired_authority_neither_opens_nor_signs() {
    let home = tempfile::tempdir().unwrap();
    let end = SystemTime::now() - DAY;
    import(home.path(), |params| params.not_after = end.into());
    refused(home.path(), "expired at");
    // Certificates end with their authority; once it has ended there are none.
    let late = open_at(home.path(), end - Duration::from_secs(3600)).unwrap();
    let leaf = sign(&late, &reviews()).unwrap().chain.remove(0);
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    let ends = leaf.validity().not_after.timestamp();
    assert_eq!(ends, end.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64);
}

#[tokio::test]
async fn an_imported_authority_with_a_bundle_signs() {
    let home = tempfile::tempdir().unwrap();
    import(home.path(), |_| {});
    let other = tempfile::tempdir().unwrap();
    import(other.path(), |_| {});
    let read = |from: &TempDir| fs::read_to_string(from.path().join("ca-cert.pem")).unwrap();
    fs::write(home.path().join("ca-cert.pem"), read(&home) + &read(&other)).unwrap();
    let issuer = open(home.path()).unwrap();
    let issued = sign(&issuer, &reviews()).unwrap();
    assert_eq!((issued.chain.len(), issued.roots.len()), (1, 2));
    certify(&issuer, &reviews(), Arc::new(SystemClock)).await.unwrap();
}

#[tokio::test]
async fn an_intermediate_authority_sends_itself_along() {
    let (home, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root_key = import(root.path(), |_| {});
    let root_pem = fs::read_to_string(root.path().join("ca-cert.pem")).unwrap();
    let signer = rcgen::Issuer::from_ca_cert_pem(&root_pem, root_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "intermediate");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let bundle = params.signed_by(&key, &signer).unwrap().pem() + &root_pem;
    fs::write(home.path().join("ca-cert.pem"), bundle).unwrap();
    write_key(home.path(), &key.serialize_pem());
    let issuer = open(home.path()).unwrap();
    let issued = sign(&issuer, &reviews()).unwrap();
    assert_eq!((issued.chain.len(), issued.roots.len()), (2, 1));
    certify(&issuer, &reviews(), Arc::new(SystemClock)).await.unwrap();
}

#[test]
fn the_leaf_is_what_istio_expects() {
    let home = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let issued = sign(&open_at(home.path(), now).unwrap(), &reviews()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    assert_eq!(leaf.subject().iter().count(), 0);
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical && names.value.general_names.len() == 1);
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any);
    assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());
    assert!(!leaf.is_ca());
    let lifetime = (leaf.validity().not_after - leaf.validity().not_before).unwrap();
    assert_eq!(lifetime.whole_seconds(), 24 * 3600 + 120);
    let again = sign(&open_at(home.path(), now).unwrap(), &reviews()).unwrap();
    let (_, again) = X509Certificate::from_der(&again.chain[0]).unwrap();
    assert_eq!(leaf.raw_serial().len(), 16);
    assert_ne!(leaf.raw_serial(), again.raw_serial());
}

#[test]
fn signs_only_what_was_asked_for_and_only_at_home() {
    let home = tempfile::tempdir().unwrap();
    let issuer = open(home.path()).unwrap();
    let foreign = Identity::new("elsewhere.local", "bookinfo", "reviews");
    assert!(matches!(sign(&issuer, &foreign), Err(IdentityError::ForeignTrustDomain { .. })));
    let request = KeyRequest::new(&ratings()).unwrap();
    let answer = futures_util::FutureExt::now_or_never(issuer.issue(&reviews(), &request.csr));
    assert!(matches!(answer, Some(Err(IdentityError::Refused(_)))));
    // The right name, and one more.
    let mut params = CertificateParams::default();
    let name = |identity: Identity| SanType::URI(identity.to_string().try_into().unwrap());
    params.subject_alt_names = vec![name(reviews()), name(ratings())];
    let csr = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let answer = futures_util::FutureExt::now_or_never(issuer.issue(&reviews(), &csr));
    assert!(matches!(answer, Some(Err(IdentityError::Refused(_)))));
    // Another kind of key.
    params.subject_alt_names = vec![name(reviews())];
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let csr = params.serialize_request(&key).unwrap();
    let answer = futures_util::FutureExt::now_or_never(issuer.issue(&reviews(), &csr));
    assert!(matches!(answer, Some(Err(IdentityError::Refused(_)))));
}
