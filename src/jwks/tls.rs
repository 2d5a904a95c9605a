//! Which servers of keys are believed over TLS.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::FetchSettings;
use crate::tls::of_the_system;

/// With the certificates of the system; an image that has none, as that of Isthmus, gets Mozilla's. The setting's come besides.
pub(super) fn connector(settings: &FetchSettings) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::clone(&of_the_system());
    if let Some(file) = &settings.ca_file {
        for certificate in read(file)? {
            let added = roots.add(certificate);
            added.map_err(|error| format!("{}: {error} (jwks.ca_file)", file.display()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err(format!("{} has no certificate (jwks.ca_file)", file.display()))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{}: {error} (jwks.ca_file)", file.display())),
    }
}
