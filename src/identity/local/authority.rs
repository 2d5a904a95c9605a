//! The authority's certificate and key: made, checked, and used to sign.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PublicKey, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::CLOCK_SKEW;
use super::files::{CERTIFICATE, KEY, Pair};
use crate::base::Str;
use crate::identity::Issued;
use crate::identity::certificate::{Details, system_time};
use crate::identity::tls::provider;

/// A new authority's life: ten years, as istiod's own. Roots are distributed with the certificates, so a
/// replacement needs no visit to the workloads.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// From here on each start warns of the authority's end.
const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Random bytes in a serial number: twice what guessing would need (CA/Browser Forum: 64 bits at least).
const SERIAL_BYTES: usize = 16;

/// A usable authority.
pub(super) struct Authority {
    signer: rcgen::Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    not_after: SystemTime,
    /// Sent along with each leaf: the signing certificate and its parents, when it is not a root itself.
    intermediates: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// Checks the pair from the directory. The first certificate is the one that signs; a bundle goes on with
    /// its parents or with further roots to trust. Without a root in it, the first is the trust anchor.
    pub(super) fn new(pair: &Pair, now: SystemTime) -> Result<Self, String> {
        let bundle = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("{CERTIFICATE} is not PEM: {error}"))?;
        let first = bundle.first().ok_or(format!("{CERTIFICATE} holds no certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())
            .map_err(|error| format!("{KEY} holds no private key in PEM: {error}"))?;
        let key = KeyPair::try_from(&key)
            .map_err(|error| format!("the key in {KEY} is of no kind that can sign: {error}"))?;
        let not_after = check(first, &key, now)?;
        let signer = rcgen::Issuer::from_ca_cert_der(first, key)
            .map_err(|error| format!("{CERTIFICATE} cannot be signed with: {error}"))?;
        let (mut roots, mut intermediates) = (Vec::new(), Vec::new());
        for certificate in &bundle {
            let own = is_self_issued(certificate)?;
            if own { &mut roots } else { &mut intermediates }.push(certificate.clone());
        }
        if roots.is_empty() {
            roots.push(first.clone());
            intermediates.clear();
        }
        Ok(Self { signer, certificate: first.clone(), not_after, intermediates, roots })
    }

    /// The end of a certificate that is issued now. The TLS libraries do not look at a root's dates, so that
    /// an authority's end is kept here.
    pub(super) fn limit(&self, now: SystemTime, lifetime: Duration) -> Result<SystemTime, String> {
        if now >= self.not_after {
            return Err(format!(
                "its own certificate has expired; replace {CERTIFICATE} and {KEY}"
            ));
        }
        Ok(now.checked_add(lifetime).map_or(self.not_after, |end| end.min(self.not_after)))
    }

    /// Whether what the other one signs is trusted by the same and trusts the same.
    pub(super) fn issues_the_same(&self, other: &Self) -> bool {
        (&self.certificate, &self.intermediates, &self.roots)
            == (&other.certificate, &other.intermediates, &other.roots)
    }

    /// The signing certificate's serial number, in hexadecimal, and how many roots are trusted: for the log.
    pub(super) fn description(&self) -> (String, usize) {
        let serial = Details::of(&self.certificate).map(|it| it.serial).unwrap_or_default();
        (serial, self.roots.len())
    }

    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        key: &PublicKey,
    ) -> Result<Issued, rcgen::Error> {
        let leaf = params.signed_by(key, &self.signer)?.der().clone();
        let chain = std::iter::once(leaf).chain(self.intermediates.iter().cloned()).collect();
        Ok(Issued { chain, roots: self.roots.clone() })
    }
}

/// A new self-signed authority that may sign leaves only.
pub(super) fn create(trust_domain: &Str, now: SystemTime) -> Result<Pair, String> {
    let failed = |error: rcgen::Error| format!("a new authority cannot be made: {error}");
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let serial = random_serial()?;
    // With names of their own, the certificates of two machines are told apart ("unknown issuer") instead of
    // seeming to be forged.
    let own: String = serial.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, trust_domain.as_str());
    name.push(DnType::CommonName, format!("Isthmus local CA {own}"));
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
pub(super) fn random_serial() -> Result<SerialNumber, String> {
    let mut bytes = [0; SERIAL_BYTES];
    provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| "the system gives no random numbers".to_owned())?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Whether the certificate is the key's, is an authority's, and is valid; returns its end.
fn check(
    certificate: &CertificateDer<'_>,
    key: &KeyPair,
    now: SystemTime,
) -> Result<SystemTime, String> {
    let parsed = parse(certificate)?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(format!(
            "{KEY} does not belong to the first certificate in {CERTIFICATE}; put the pair that was made together"
        ));
    }
    let may_sign = match parsed.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    if !parsed.is_ca() || !may_sign {
        return Err(format!(
            "the first certificate in {CERTIFICATE} is not a certificate authority's (CA:TRUE and keyCertSign)"
        ));
    }
    let not_before = system_time(parsed.validity().not_before);
    let not_after = system_time(parsed.validity().not_after);
    if now >= not_after {
        return Err(format!(
            "{CERTIFICATE} expired at {}; replace it, or remove {CERTIFICATE} and {KEY} for a new authority",
            parsed.validity().not_after
        ));
    }
    if now < not_before {
        return Err(format!(
            "{CERTIFICATE} is not valid before {}; check this machine's clock",
            parsed.validity().not_before
        ));
    }
    if not_after.duration_since(now).is_ok_and(|left| left < EXPIRY_WARNING) {
        let end = parsed.validity().not_after.to_string();
        tracing::warn!(%end, "the local certificate authority ends soon; replace {CERTIFICATE} and {KEY}");
    }
    Ok(not_after)
}

fn is_self_issued(certificate: &CertificateDer<'_>) -> Result<bool, String> {
    let parsed = parse(certificate)?;
    Ok(parsed.subject().as_raw() == parsed.issuer().as_raw())
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => Ok(parsed),
        Err(error) => Err(format!("a certificate in {CERTIFICATE} cannot be read: {error}")),
    }
}
