//! Certificates and keys, as they are given: in a file, or in an object.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::TlsFault;

/// More than certificates and keys need; keeps a wrong path from filling the memory.
const MAX_FILE: u64 = 1024 * 1024;

/// Where PEM comes from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Material {
    /// Below the directory of the object's namespace.
    File(PathBuf),
    Pem(Pem),
}

/// PEM that an object holds, perhaps with a private key. Neither log nor dump shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The object, for messages.
    from: Arc<str>,
    text: Arc<[u8]>,
}

impl Pem {
    pub fn new(from: impl Into<Arc<str>>, text: &[u8]) -> Self {
        Self { from: from.into(), text: text.into() }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({})", self.from)
    }
}

impl serde::Serialize for Pem {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.from)
    }
}

/// By which a changed file is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    changed: Option<SystemTime>,
    bytes: u64,
}

impl Material {
    /// `None` for what changes only with its object.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Pem(_) => None,
        }
    }

    fn bytes(&self) -> Result<Vec<u8>, TlsFault> {
        match self {
            Self::Pem(pem) => Ok(pem.text.to_vec()),
            Self::File(path) => read(path).map_err(|why| TlsFault::material(path.display(), why)),
        }
    }

    fn named(&self) -> String {
        match self {
            Self::Pem(pem) => pem.from.to_string(),
            Self::File(path) => path.display().to_string(),
        }
    }

    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
        self.all("certificate", CertificateDer::pem_slice_iter(&self.bytes()?))
    }

    pub(super) fn lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsFault> {
        let bytes = self.bytes()?;
        self.all(
            "certificate revocation list",
            CertificateRevocationListDer::pem_slice_iter(&bytes),
        )
    }

    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsFault> {
        // The error of a parser could quote what it read.
        PrivateKeyDer::from_pem_slice(&self.bytes()?)
            .map_err(|_| TlsFault::material(self.named(), "holds no private key in PEM"))
    }

    fn all<T>(
        &self,
        what: &str,
        items: impl Iterator<Item = Result<T, rustls::pki_types::pem::Error>>,
    ) -> Result<Vec<T>, TlsFault> {
        let not_pem = |_| TlsFault::material(self.named(), "is not PEM");
        let items: Vec<T> = items.collect::<Result<_, _>>().map_err(not_pem)?;
        if items.is_empty() {
            return Err(TlsFault::material(self.named(), format!("holds no {what} in PEM")));
        }
        Ok(items)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    if !file.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("is not a regular file".into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("is longer than {MAX_FILE} bytes"));
    }
    Ok(bytes)
}

/// `None` if there is no such file.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some(Stamp { changed: found.modified().ok(), bytes: found.len() })
}
