//! Certificates as text (RFC 7468).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;

/// Characters in a line of PEM (RFC 7468, 2).
const PEM_LINE: usize = 64;

/// One after the other.
pub fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(pem).collect()
}

pub(super) fn pem(certificate: &CertificateDer<'_>) -> String {
    labelled("CERTIFICATE", certificate)
}

pub(super) fn labelled(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let encoded = STANDARD.encode(der);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(PEM_LINE));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text + &format!("-----END {label}-----\n")
}
