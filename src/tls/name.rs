//! Names in a server's certificate.

use std::borrow::Cow;
use std::net::IpAddr;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::base::Str;

/// A name that a certificate may have.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SubjectName {
    /// Of any type (Istio, `subjectAltNames`).
    Any(Str),
    /// A DNS name; a wildcard of the certificate covers it.
    Dns(Str),
    Uri(Str),
}

impl SubjectName {
    /// Whether the certificate has the name.
    pub(super) fn is_in(&self, parsed: &ParsedCertificate<'_>, der: &CertificateDer<'_>) -> bool {
        match self {
            Self::Dns(name) => has_host(parsed, name),
            Self::Uri(name) => has_text(der, name),
            Self::Any(name) => has_host(parsed, name) || has_text(der, name) || has_dns(der, name),
        }
    }
}

/// A DNS name or an address, by the rules of servers' names.
fn has_host(parsed: &ParsedCertificate<'_>, name: &str) -> bool {
    let name = ServerName::try_from(name);
    name.is_ok_and(|name| rustls::client::verify_server_name(parsed, &name).is_ok())
}

/// Exactly so: a URI or a mail address.
fn has_text(der: &CertificateDer<'_>, wanted: &str) -> bool {
    any(der, |name| match name {
        GeneralName::URI(text) | GeneralName::RFC822Name(text) => *text == wanted,
        _ => false,
    })
}

/// Exactly so: a DNS name that is a wildcard itself.
fn has_dns(der: &CertificateDer<'_>, wanted: &str) -> bool {
    any(der, |name| match name {
        GeneralName::DNSName(text) => text.eq_ignore_ascii_case(wanted),
        _ => false,
    })
}

fn any(der: &CertificateDer<'_>, is_meant: impl Fn(&GeneralName<'_>) -> bool) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(der) else { return false };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(is_meant)
}

/// The server's name for TLS: without the brackets of an address and the dot at the end of a name.
pub(super) fn canonical(name: &str) -> Cow<'_, str> {
    let bare = name.trim_end_matches('.');
    let address = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(bare);
    match address.parse::<IpAddr>() {
        Ok(address) => Cow::Owned(address.to_canonical().to_string()),
        Err(_) => Cow::Borrowed(bare),
    }
}
