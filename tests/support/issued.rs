//! Certificates of the lab's authority for peers that are no agents.

#![allow(dead_code, reason = "the suites use different parts")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};

use crate::support::lab::Lab;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A certificate and its key, as PEM.
pub struct Certificate {
    pub chain: String,
    pub key: String,
}

/// How a certificate is to be wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    Nothing,
    Expired,
    SelfSigned,
}

/// A certificate with `name` as its only subject alternative name, as the mesh's own are.
pub fn issue(lab: &Lab, name: &str, wrong: Wrong) -> Result<Certificate> {
    issue_names(lab, &[name], wrong)
}

/// The same with several, as nobody should have it.
pub fn issue_names(lab: &Lab, names: &[&str], wrong: Wrong) -> Result<Certificate> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    for name in names {
        params.subject_alt_names.push(SanType::URI((*name).try_into()?));
    }
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    params.not_before = (now - 2 * HOUR).into();
    params.not_after = match wrong {
        Wrong::Expired => now - HOUR,
        Wrong::Nothing | Wrong::SelfSigned => now + HOUR,
    }
    .into();
    let signed = match wrong {
        Wrong::SelfSigned => params.self_signed(&key)?,
        Wrong::Nothing | Wrong::Expired => {
            let own = fs::read_to_string(lab.ca_directory().join("ca-cert.pem"))?;
            let own_key = fs::read_to_string(lab.ca_directory().join("ca-key.pem"))?;
            let issuer = Issuer::from_ca_cert_pem(&own, KeyPair::from_pem(&own_key)?)?;
            params.signed_by(&key, &issuer)?
        }
    };
    Ok(Certificate { chain: signed.pem(), key: key.serialize_pem() })
}

impl Certificate {
    /// Writes both into the lab's directory, as `<name>-cert.pem` and `<name>-key.pem`.
    pub fn write(&self, name: &str) -> Result<(PathBuf, PathBuf)> {
        let directory = Path::new(crate::support::lab::private::DIRECTORY);
        let chain = directory.join(format!("{name}-cert.pem"));
        let key = directory.join(format!("{name}-key.pem"));
        fs::write(&chain, &self.chain).context("write a certificate")?;
        fs::write(&key, &self.key).context("write a key")?;
        Ok((chain, key))
    }
}
