//! A workload's new key and the request to certify it.

use rcgen::{CertificateParams, CertificateSigningRequest, DistinguishedName, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::IdentityError;
use crate::base::Identity;

/// A fresh key, never written anywhere, with its signing request.
pub(super) struct KeyRequest {
    key: KeyPair,
    pub(super) csr: CertificateSigningRequest,
}

impl KeyRequest {
    /// ECDSA P-256, an empty subject, and the identity as the only name, as ztunnel asks.
    pub(super) fn new(identity: &Identity) -> Result<Self, IdentityError> {
        let refused = |error: rcgen::Error| IdentityError::Refused(format!("no request: {error}"));
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(refused)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(identity).map_err(refused)?];
        let csr = params.serialize_request(&key).map_err(refused)?;
        Ok(Self { key, csr })
    }

    pub(super) fn into_key(self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

/// The identity as the subject alternative name that SPIFFE prescribes (X.509-SVID, 2).
pub(super) fn uri(identity: &Identity) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(identity.to_string().try_into()?))
}
