//! A certificate authority: creates, validates and uses its certificate and key.
//!
//! The owner of an authority decides who gets which certificate. This module defines only the form of a mesh
//! certificate, and which authorities and requests are valid. Messages use Istio's names for the parts of an authority
//! (`cacerts`), which the local CA's files and the controller's Secret share.

mod error;
mod parts;
mod probe;

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKey, PublicKeyData,
    SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use x509_parser::prelude::{FromDer, X509Certificate};

pub use error::AuthorityError;
pub use parts::{CA_CERTIFICATE, CA_CHAIN, CA_KEY, CA_ROOTS};
pub use probe::verify_authority;

use super::certificate::{Details, system_time};
use super::provider::provider;
use super::request::uri;
use super::{IdentityError, Issued};
use crate::base::{Identity, Str};

/// How far certificates are backdated, so that a peer with a slow clock accepts a new one: two minutes, as istiod.
pub const CLOCK_SKEW: Duration = Duration::from_secs(2 * 60);

/// The length of an uncompressed point on P-256 (SEC 1, 2.3.3).
const P256_POINT: usize = 65;

/// The lifetime of a new authority: ten years, as istiod's own. Roots are distributed with the certificates, so a
/// rotation does not touch the workloads.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Random bytes in a serial number: twice what guessing would need (CA/Browser Forum: 64 bits at least).
const SERIAL_BYTES: usize = 16;

/// An authority's certificate and key, in PEM. The certificate may be a bundle.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// A usable authority.
pub struct Authority {
    signer: rcgen::Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    not_before: SystemTime,
    not_after: SystemTime,
    /// Sent along with each leaf: the signing certificate and its parents, if it is not a root itself.
    intermediates: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// Validates a pair. The first certificate signs; a bundle continues with its parents or with further trusted
    /// roots. Without a root in it, the first is the trust anchor.
    pub fn new(pair: &Pair, now: SystemTime) -> Result<Self, AuthorityError> {
        let bundle = certificates(CA_CERTIFICATE, &pair.certificate)?;
        let mut authority = Self::bare(&bundle, &pair.key, now)?;
        for certificate in bundle {
            let own = is_self_issued(&certificate)?;
            if own { &mut authority.roots } else { &mut authority.intermediates }.push(certificate);
        }
        if authority.roots.is_empty() {
            authority.roots.push(authority.certificate.clone());
            authority.intermediates.clear();
        }
        Ok(authority)
    }

    /// Checks an authority in Istio's four parts (`cacerts`): the first certificate of `pair` signs, the parents up to
    /// the roots follow there or in `chain`, and `roots` alone are trusted.
    pub fn of_parts(
        pair: &Pair,
        chain: &str,
        roots: &str,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let bundle = certificates(CA_CERTIFICATE, &pair.certificate)?;
        let mut authority = Self::bare(&bundle, &pair.key, now)?;
        authority.roots = certificates(CA_ROOTS, roots)?;
        if authority.roots.is_empty() {
            return Err(AuthorityError::NoCertificate(CA_ROOTS));
        }
        for certificate in bundle.into_iter().chain(certificates(CA_CHAIN, chain)?) {
            let known = authority.roots.contains(&certificate)
                || authority.intermediates.contains(&certificate);
            if !known {
                authority.intermediates.push(certificate);
            }
        }
        Ok(authority)
    }

    /// The signing half: the first certificate with its key.
    fn bare(
        bundle: &[CertificateDer<'static>],
        key: &str,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let first = bundle.first().ok_or(AuthorityError::NoCertificate(CA_CERTIFICATE))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| AuthorityError::NoKey(error.to_string()))?;
        let key = KeyPair::try_from(&key)
            .map_err(|error| AuthorityError::KeyCannotSign(error.to_string()))?;
        let (not_before, not_after) = check(first, &key, now)?;
        let signer = rcgen::Issuer::from_ca_cert_der(first, key)
            .map_err(|error| AuthorityError::CannotSignWith(error.to_string()))?;
        let (certificate, intermediates, roots) = (first.clone(), Vec::new(), Vec::new());
        Ok(Self { signer, certificate, not_before, not_after, intermediates, roots })
    }

    /// The expiry of a certificate that is issued now. TLS libraries ignore a root's dates, so this respects the
    /// authority's expiry.
    fn limit(&self, now: SystemTime, lifetime: Duration) -> Result<SystemTime, AuthorityError> {
        if now >= self.not_after {
            return Err(AuthorityError::Ended);
        }
        Ok(now.checked_add(lifetime).map_or(self.not_after, |end| end.min(self.not_after)))
    }

    /// Whether certificates of the other one are trusted by the same peers and trust the same ones.
    pub fn issues_the_same(&self, other: &Self) -> bool {
        (&self.certificate, &self.intermediates, &self.roots)
            == (&other.certificate, &other.intermediates, &other.roots)
    }

    /// The signing certificate's serial number, in hexadecimal, and how many roots are trusted: for the log.
    pub fn description(&self) -> (String, usize) {
        let serial = Details::of(&self.certificate).map(|it| it.serial).unwrap_or_default();
        (serial, self.roots.len())
    }

    /// The validity of the signing certificate.
    pub fn validity(&self) -> (SystemTime, SystemTime) {
        (self.not_before, self.not_after)
    }

    /// Whether it is the root by itself.
    pub fn is_root(&self) -> bool {
        self.roots == [self.certificate.clone()]
    }

    /// The name in the signing certificate's subject.
    pub fn common_name(&self) -> Option<String> {
        let (_, parsed) = X509Certificate::from_der(&self.certificate).ok()?;
        let name = parsed.subject().iter_common_name().next()?;
        name.as_str().ok().map(str::to_owned)
    }

    /// The trusted roots of this authority.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// A certificate for the workload that made the request. Only its key is taken over; it must ask for this identity
    /// and nothing else. Valid for `lifetime`, but not beyond the authority's own end.
    ///
    /// # Errors
    /// The request is not acceptable, or the authority has come to its end.
    pub fn certify(
        &self,
        identity: &Identity,
        request: &CertificateSigningRequestDer<'_>,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, IdentityError> {
        let request = check_request(identity, request)?;
        let names = request.params.subject_alt_names;
        let signed = self.sign(names, &request.public_key, lifetime, now);
        signed.map_err(|error| IdentityError::Refused(error.to_string()))
    }

    /// A certificate, with its key, for a server of these DNS names.
    pub fn certify_server(
        &self,
        names: &[String],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<(Issued, PrivateKeyDer<'static>), AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|error| AuthorityError::NoNewKey(error.to_string()))?;
        let names = names.iter().map(|name| name.as_str().try_into().map(SanType::DnsName));
        let names = names
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| AuthorityError::ServerName(error.to_string()))?;
        let issued = self.sign(names, &key, lifetime, now)?;
        Ok((issued, PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
    }

    fn sign(
        &self,
        names: Vec<SanType>,
        key: &impl PublicKeyData,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, AuthorityError> {
        let mut params = CertificateParams::default();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = self.limit(now, lifetime)?.into();
        params.serial_number = Some(random_serial()?);
        params.subject_alt_names = names;
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params
            .signed_by(key, &self.signer)
            .map_err(|error| AuthorityError::Signing(error.to_string()))?;
        let parents = self.intermediates.iter().cloned();
        let chain = std::iter::once(leaf.der().clone()).chain(parents).collect();
        Ok(Issued { chain, roots: self.roots.clone() })
    }
}

/// The request must be signed by its key (parsing verifies that), use P-256, and ask for the identity alone.
fn check_request(
    identity: &Identity,
    request: &CertificateSigningRequestDer<'_>,
) -> Result<CertificateSigningRequestParams, IdentityError> {
    let refused = |why: &str| IdentityError::Refused(format!("refused the request: {why}"));
    let request = CertificateSigningRequestParams::from_der(request)
        .map_err(|error| refused(&error.to_string()))?;
    let wanted = uri(identity).map_err(|error| refused(&error.to_string()))?;
    if request.params.subject_alt_names != [wanted] {
        return Err(refused("it does not ask for exactly the identity it is made for"));
    }
    let key: &PublicKey = &request.public_key;
    let is_p256 =
        key.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == P256_POINT;
    if is_p256 { Ok(request) } else { Err(refused("its key is not ECDSA P-256")) }
}

/// The certificates of a part, in its order.
pub fn certificates(part: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| AuthorityError::NotPem { part: part.to_owned(), cause: error.to_string() })
}

/// A new self-signed authority that may sign leaves only. `kind` is the beginning of its name.
pub fn create(kind: &str, trust_domain: &Str, now: SystemTime) -> Result<Pair, AuthorityError> {
    let failed = |error: rcgen::Error| AuthorityError::NotCreated(error.to_string());
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let serial = random_serial()?;
    // Distinct names tell the certificates of two machines apart ("unknown issuer") instead of
    // seeming to be forged.
    let own: String = serial.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, trust_domain.as_str());
    name.push(DnType::CommonName, format!("{kind} {own}"));
    let mut params = CertificateParams::default();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + AUTHORITY_LIFETIME).into();
    params.serial_number = Some(serial);
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Positive and of full length: the first byte's upper bits are fixed.
fn random_serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; SERIAL_BYTES];
    provider().secure_random.fill(&mut bytes).map_err(|_| AuthorityError::NoRandomness)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Whether the certificate is the key's, is an authority's, and is valid; returns its dates.
fn check(
    certificate: &CertificateDer<'_>,
    key: &KeyPair,
    now: SystemTime,
) -> Result<(SystemTime, SystemTime), AuthorityError> {
    let parsed = parse(certificate)?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(AuthorityError::OtherKey);
    }
    let may_sign = match parsed.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    if !parsed.is_ca() || !may_sign {
        return Err(AuthorityError::NotAnAuthority);
    }
    let not_before = system_time(parsed.validity().not_before);
    let not_after = system_time(parsed.validity().not_after);
    if now >= not_after {
        return Err(AuthorityError::Expired(parsed.validity().not_after.to_string()));
    }
    if now < not_before {
        return Err(AuthorityError::NotYetValid(parsed.validity().not_before.to_string()));
    }
    Ok((not_before, not_after))
}

fn is_self_issued(certificate: &CertificateDer<'_>) -> Result<bool, AuthorityError> {
    let parsed = parse(certificate)?;
    Ok(parsed.subject().as_raw() == parsed.issuer().as_raw())
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, AuthorityError> {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => Ok(parsed),
        Err(error) => Err(AuthorityError::Unreadable(error.to_string())),
    }
}
