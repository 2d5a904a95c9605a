//! The TLS of HBONE: version 1.3, ALPN `h2`, certificates on both sides, no resumption.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, CommonState, RootCertStore, ServerConfig,
};

use super::Trust;
use super::clock::{Clock, TlsClock};
use super::provider::provider;
use super::verify::{ExpectedServers, MeshClients};
use crate::base::{Identity, Reason};
use crate::telemetry::{Handshake, count_handshake};

/// The only application protocol of a tunnel (Istio, "HBONE").
pub const ALPN_H2: &[u8] = b"h2";

/// Answers only clients that name an application protocol. The TLS library refuses any other than `h2` by
/// itself, with the alert made for it, but would go on with a client that names none.
#[derive(Debug)]
struct NeedsAlpn(Arc<CertifiedKey>);

/// Whether the session agreed on `h2`. Our servers refuse anything else by themselves; a client must ask,
/// since the TLS library lets a server answer without choosing a protocol.
pub fn negotiated_h2(session: &CommonState) -> bool {
    session.alpn_protocol() == Some(ALPN_H2)
}

/// Counts a handshake that is done, by the group that was agreed on.
pub fn count_agreed(handshake: Handshake, session: &CommonState) {
    let group = session.negotiated_key_exchange_group();
    count_handshake(handshake, group.and_then(|group| group.name().as_str()));
}

/// For a server that asks its clients for no certificate: TLS 1.3, ALPN `h2`.
pub fn serving_config(
    certificates: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A certificate's chain with its key, for such a server.
pub fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, rustls::Error> {
    Ok(CertifiedKey::new(chain, provider().key_provider.load_private_key(key)?))
}

/// The peer broke the session off and said why.
pub fn is_alert(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
}

/// Why a handshake failed: the peer's certificate is revoked, or ours (as the peer says), or anything else.
pub fn reason_of(error: &std::io::Error) -> Reason {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(
            rustls::Error::InvalidCertificate(CertificateError::Revoked)
            | rustls::Error::AlertReceived(AlertDescription::CertificateRevoked),
        ) => Reason::CertRevoked,
        _ => Reason::TlsFailure,
    }
}

/// A server that wants a client certificate of its trust domain.
pub(super) fn server_config(
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    trust: Trust,
    clock: Arc<dyn Clock>,
) -> Result<ServerConfig, String> {
    let clients = MeshClients::new(roots, trust).map_err(|error| error.to_string())?;
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(TlsClock(clock)))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(Arc::new(clients))
        .with_cert_resolver(Arc::new(NeedsAlpn(key)));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A client that accepts the expected servers only. Built per tunnel: it copies a few pointers.
pub(super) fn client_config(
    key: Arc<SingleCertAndKey>,
    roots: Arc<RootCertStore>,
    expected: &[Identity],
    trust: Trust,
    clock: Arc<dyn Clock>,
) -> Result<ClientConfig, String> {
    let servers = ExpectedServers {
        roots,
        trust,
        algorithms: provider().signature_verification_algorithms,
        expected: expected.into(),
    };
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(TlsClock(clock)))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers))
        .with_client_cert_resolver(key);
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

impl ResolvesServerCert for NeedsAlpn {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if hello.alpn().is_none() {
            tracing::debug!("refused a TLS client that does not offer h2: not an HBONE client");
            return None;
        }
        Some(self.0.clone())
    }
}
