//! A peer's certificate is a stranger's bytes.

use std::sync::LazyLock;

use proptest::prelude::*;
use rustls::pki_types::CertificateDer;

use super::*;
use crate::identity::verify::spiffe_identity;

/// A certificate that passes, to be mutated.
static GENUINE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(reviews().to_string().try_into().unwrap())];
    params.self_signed(&key).unwrap().der().to_vec()
});

fn names(list: Vec<SanType>) -> Result<Identity, IdentityError> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = list;
    let key = KeyPair::generate().unwrap();
    spiffe_identity(params.self_signed(&key).unwrap().der())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[test]
fn takes_exactly_one_spiffe_name() {
    let ours = reviews().to_string();
    assert_eq!(names(vec![uri(&ours)]).unwrap(), reviews());
    let dns = SanType::DnsName("reviews.example".try_into().unwrap());
    assert_eq!(names(vec![dns.clone(), uri(&ours)]).unwrap(), reviews());
    assert!(names(vec![uri(&ours), uri(&ours)]).is_err());
    assert!(names(vec![uri(&ours), uri("https://example.com")]).is_err());
    assert!(names(vec![uri("spiffe://cluster.local/other/path")]).is_err());
    assert!(names(vec![dns]).is_err());
    assert!(names(vec![]).is_err());
}

#[test]
fn refuses_bytes_after_the_certificate() {
    let mut bytes = GENUINE.clone();
    assert_eq!(spiffe_identity(&CertificateDer::from(bytes.clone())).unwrap(), reviews());
    bytes.push(0);
    assert!(spiffe_identity(&CertificateDer::from(bytes)).is_err());
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(spiffe_identity(&CertificateDer::from(bytes)).is_err());
    }

    #[test]
    fn mutated_certificates_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        length in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = GENUINE.clone();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if cut {
            bytes.truncate(length.index(bytes.len()));
        }
        let _ = spiffe_identity(&CertificateDer::from(bytes));
    }
}
