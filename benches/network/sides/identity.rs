//! Certificates of the replaced path: one CA, and an identity of a service account for each proxy.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

/// A CA, and where its certificates are.
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// Makes the CA.
pub fn authority(directory: &Path) -> Result<Authority> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    // Unlike those that it issues: a certificate whose issuer has its own name counts as self-signed.
    params.distinguished_name.push(DnType::CommonName, "CA of the bench");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key)?;
    let authority = Authority { directory: directory.to_owned(), issuer: Issuer::new(params, key) };
    fs::write(authority.roots(), certificate.pem())?;
    Ok(authority)
}

impl Authority {
    /// The file of the CA's certificate.
    pub fn roots(&self) -> PathBuf {
        self.directory.join("path-ca.pem")
    }

    /// Issues an identity; returns the path of its files without `-cert.pem` and `-key.pem`.
    pub fn issue(&self, account: &str) -> Result<PathBuf> {
        let name = format!("spiffe://cluster.local/ns/bench/sa/{account}");
        let mut params = CertificateParams::new(Vec::new())?;
        params.subject_alt_names = vec![SanType::URI(name.try_into()?)];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let files = self.directory.join(format!("path-{account}"));
        fs::write(format!("{}-cert.pem", files.display()), certificate.pem())?;
        fs::write(format!("{}-key.pem", files.display()), key.serialize_pem())?;
        Ok(files)
    }
}
