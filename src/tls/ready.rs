//! What connections are made with: one version of the certificates and keys.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::material::{Stamp, stamp};
use super::name::canonical;
use super::roots::of_the_system;
use super::verify::{self, Verifier};
use super::{Roots, TlsFault, TlsSettings};

/// A stream under TLS.
pub type Stream<S> = tokio_rustls::client::TlsStream<S>;

/// The number of the next version, of whatever object.
static NEXT: AtomicU64 = AtomicU64::new(1);

const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// What is spoken within the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    /// Anything; nothing is offered.
    Bytes,
}

/// One version of an object's certificates and keys.
pub struct Ready {
    number: u64,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    bytes: Arc<ClientConfig>,
    /// The files that it was made from.
    stamps: Vec<(PathBuf, Option<Stamp>)>,
}

impl Ready {
    /// Reads files.
    pub(super) fn make(settings: &TlsSettings) -> Result<Self, TlsFault> {
        let materials = settings.materials();
        let files = materials.iter().filter_map(|material| material.file());
        let stamps = files.map(|file| (file.to_owned(), stamp(file))).collect();
        let config = config(settings)?;
        let speaking = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            http1: speaking(&[HTTP_1_1]),
            http2: speaking(&[H2]),
            bytes: speaking(&[]),
            stamps,
        })
    }

    /// Unlike that of any other version.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn has_files(&self) -> bool {
        !self.stamps.is_empty()
    }

    /// Looks at the files.
    pub(super) fn is_current(&self) -> bool {
        self.stamps.iter().all(|(file, known)| stamp(file) == *known)
    }

    /// Makes the connection that `stream` carries an encrypted one. The server must prove `name`, unless the object says other
    /// names.
    pub async fn connect<S>(
        &self,
        name: &str,
        protocol: Protocol,
        stream: S,
        limit: Duration,
    ) -> Result<Stream<S>, TlsFault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let server = ServerName::try_from(canonical(name).into_owned())
            .map_err(|_| TlsFault::Name(name.to_owned()))?;
        let config = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
            Protocol::Bytes => &self.bytes,
        };
        let connecting = TlsConnector::from(config.clone()).connect(server, stream);
        let connected = tokio::time::timeout(limit, connecting).await;
        let stream = connected.map_err(|_| TlsFault::Late(limit))??;
        let agreed = stream.get_ref().1.alpn_protocol();
        let missed = match protocol {
            Protocol::Http2 if agreed != Some(H2) => Some("HTTP/2"),
            // Without ALPN a server of HTTP speaks HTTP/1.1 (RFC 9113, 3.2).
            Protocol::Http1 if agreed.is_some_and(|agreed| agreed != HTTP_1_1) => Some("HTTP/1.1"),
            Protocol::Http1 | Protocol::Http2 | Protocol::Bytes => None,
        };
        missed.map_or(Ok(stream), |missed| Err(TlsFault::Protocol(missed)))
    }
}

fn config(settings: &TlsSettings) -> Result<ClientConfig, TlsFault> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(verifier(settings, &provider)?);
    let of = |error: rustls::Error| TlsFault::material(&settings.by, error);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(of)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &settings.client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let (chain, key) = (client.chain.certificates()?, client.key.key()?);
            builder.with_client_auth_cert(chain, key).map_err(of)?
        }
    };
    // A ticket would let a connection skip what this version verifies.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn verifier(settings: &TlsSettings, provider: &CryptoProvider) -> Result<Verifier, TlsFault> {
    let roots = match &settings.roots {
        Roots::Unverified => None,
        Roots::System => Some(of_the_system()),
        Roots::Of(material) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in
                material.iter().map(|it| it.certificates()).collect::<Result<Vec<_>, _>>()?.concat()
            {
                roots.add(certificate).map_err(|error| TlsFault::material(&settings.by, error))?;
            }
            Some(Arc::new(roots))
        }
    };
    let mut lists = Vec::new();
    for der in settings.crl.iter().map(|crl| crl.lists()).collect::<Result<Vec<_>, _>>()?.concat() {
        let list = verify::list(&der);
        lists.push(list.map_err(|error| TlsFault::material(&settings.by, error))?);
    }
    let algorithms = provider.signature_verification_algorithms;
    Ok(Verifier { roots, names: settings.names.clone().into(), lists, algorithms })
}
