//! The cryptography that all TLS, signatures and keys use.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The provider, passed to every configuration explicitly: no process-wide default is installed or needed.
///
/// The suites and their order are ztunnel's: AES-GCM only, which the CPUs of servers do in hardware. Of the groups the
/// hybrid of X25519 and ML-KEM-768 comes first: what is recorded today stays secret from quantum computers. A client
/// sends a share of X25519 beside it, so that a peer that knows no other agrees without another round trip.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ],
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
            aws_lc_rs::kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    })
});

pub(super) fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}
