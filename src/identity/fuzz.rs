//! What fuzzers try on what certificates and their authorities say: a peer's certificate, an answer of the CA, lists of
//! what was revoked, and requests to sign.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use prost::Message;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, UnixTime};

use super::authority::{self, Authority};
use super::ca_messages::CertificateResponse;
use super::certificate::Details;
use super::request::KeyRequest;
use super::revocation::{Chain, Lists, Role};
use super::verify::spiffe_identity;
use super::{istio, to_pem};
use crate::base::Identity;

/// What certificates are made with that no fuzzer makes.
struct Own {
    authority: Authority,
    identity: Identity,
    leaf: CertificateDer<'static>,
    roots: RootCertStore,
}

/// A peer's certificate in DER. What it says cannot count, since nobody signed it; but it is read before that is known.
pub fn certificate(bytes: &[u8]) {
    let leaf = CertificateDer::from(bytes);
    let identity = spiffe_identity(&leaf);
    if let Ok(identity) = &identity {
        assert_eq!(identity.to_string().parse().as_ref(), Ok(identity));
        assert!(!identity.to_string().contains(['\n', '"', '%', '*']), "{identity}");
    }
    _ = Details::of(&leaf);
    let pem = to_pem(std::slice::from_ref(&leaf));
    assert_eq!(authority::certificates("", &pem), Ok(vec![leaf]), "PEM is read as it is written");
}

/// An identity as text.
pub fn spiffe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(identity) = text.parse::<Identity>() {
        assert_eq!(identity.to_string(), text);
        assert_eq!(identity.principal().matches('/').count(), 4, "{identity}");
    }
}

/// The answer of a CA, as protobuf or else as the PEM of one part.
pub fn issued(bytes: &[u8]) {
    if let Ok(response) = CertificateResponse::decode(bytes) {
        assert_eq!(CertificateResponse::decode(&*response.encode_to_vec()), Ok(response.clone()));
        _ = istio::read(&response);
    }
    let text = String::from_utf8_lossy(bytes).into_owned();
    let parts = vec![text.clone(), text.clone(), text];
    if let Ok(issued) = istio::read(&CertificateResponse { cert_chain: parts }) {
        assert!(!issued.chain.is_empty());
        let written = to_pem(&issued.roots);
        assert_eq!(authority::certificates("", &written), Ok(issued.roots));
    }
}

/// Lists of what was revoked, in PEM or else in DER. Whatever they say: signed by nobody, they revoke nothing.
pub fn revocations(bytes: &[u8]) {
    let pem = super::pem::labelled("X509 CRL", bytes);
    for text in [bytes.to_vec(), pem.into_bytes()] {
        let Ok(lists) = Lists::parse(text) else { continue };
        let Some(own) = own() else { return };
        for role in [Role::Client, Role::Server] {
            let at = UnixTime::now();
            let chain = Chain { leaf: &own.leaf, intermediates: &[], roots: &own.roots, role, at };
            assert!(!lists.revoke(&chain), "a list of a stranger counts");
        }
    }
}

/// A signing request in DER: what is signed is for the identity that was asked for, and for nothing else.
pub fn signing_request(bytes: &[u8]) {
    let Some(own) = own() else { return };
    let request = CertificateSigningRequestDer::from(bytes);
    let hour = Duration::from_secs(3600);
    let signed = own.authority.certify(&own.identity, &request, hour, SystemTime::now());
    if let Ok(issued) = signed {
        assert_eq!(spiffe_identity(&issued.chain[0]).ok().as_ref(), Some(&own.identity));
    }
}

fn own() -> Option<Arc<Own>> {
    static OWN: OnceLock<Option<Arc<Own>>> = OnceLock::new();
    OWN.get_or_init(|| {
        let own = make_own();
        assert!(own.is_some(), "a certificate authority can be made");
        own.map(Arc::new)
    })
    .clone()
}

fn make_own() -> Option<Own> {
    let now = SystemTime::now();
    let pair = authority::create("fuzz", &"cluster.local".into(), now).ok()?;
    let authority = Authority::new(&pair, now).ok()?;
    let identity = Identity::new("cluster.local", "shop", "web");
    let request = KeyRequest::new(&identity).ok()?;
    let hour = Duration::from_secs(3600);
    let issued = authority.certify(&identity, request.csr.der(), hour, now).ok()?;
    let mut roots = RootCertStore::empty();
    roots.add(issued.roots.first()?.clone()).ok()?;
    Some(Own { authority, identity, leaf: issued.chain.first()?.clone(), roots })
}
