//! Certificates in the words of `istioctl ztunnel-config certificate`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::status::{CertificateState, CertificateStatus, timestamp};
use crate::base::Identity;
use crate::identity::WorkloadCertificate;
use crate::identity::certificate::system_time;
use crate::identity::pem::pem;

/// One identity with all of its certificates.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateDump {
    pub identity: Identity,
    /// `Available`, `Initializing`, or `Unavailable` with the last error after a colon.
    pub state: String,
    /// The leaf comes first; empty while there is none.
    pub cert_chain: Vec<ShownCertificate>,
    pub root_certs: Vec<ShownCertificate>,
}

/// One certificate. What cannot be read of it is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownCertificate {
    /// PEM, and that in base64, as ztunnel writes it.
    pub pem: String,
    /// Decimal.
    pub serial_number: String,
    /// RFC 3339 in UTC, as is the other.
    pub valid_from: String,
    pub expiration_time: String,
}

impl CertificateDump {
    pub(super) fn new(status: CertificateStatus, held: Option<&WorkloadCertificate>) -> Self {
        let shown = |list: &[CertificateDer<'_>]| list.iter().map(ShownCertificate::of).collect();
        let state = match (status.state, status.last_error) {
            (CertificateState::Unavailable, Some(error)) => format!("Unavailable: {error}"),
            (state, _) => format!("{state:?}"),
        };
        Self {
            identity: status.identity,
            state,
            cert_chain: held.map(|held| shown(held.chain())).unwrap_or_default(),
            root_certs: held.map(|held| shown(held.roots())).unwrap_or_default(),
        }
    }
}

impl ShownCertificate {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let pem = STANDARD.encode(pem(certificate));
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return Self { pem, ..Self::default() };
        };
        let validity = parsed.validity();
        Self {
            pem,
            serial_number: parsed.serial.to_string(),
            valid_from: timestamp(system_time(validity.not_before)),
            expiration_time: timestamp(system_time(validity.not_after)),
        }
    }
}
