//! The roots of the system.

use std::sync::{Arc, LazyLock};

use rustls::RootCertStore;

static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    }
    Arc::new(roots)
});

/// The certificates of the system; an image that has none, as that of Isthmus, gets Mozilla's. The first call reads files.
pub fn of_the_system() -> Arc<RootCertStore> {
    SYSTEM.clone()
}
