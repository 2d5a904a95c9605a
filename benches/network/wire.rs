//! A connection of the bench: plain, or rustls by itself, which is what the mesh's tunnels are measured against.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

const NAME: &str = "bench";
const CERTIFICATE: &str = "bench-cert.pem";
const KEY: &str = "bench-key.pem";

/// How long a client waits for a silent server. Without a limit, a client whose server has lost its last ACK waits for ever;
/// the longest pause of a loaded machine is far shorter.
pub const SILENCE: Duration = Duration::from_secs(30);

/// One connection of either kind and side.
pub enum Wire {
    Plain(TcpStream),
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

/// Writes a certificate that both sides show and trust.
pub fn prepare(directory: &Path) -> Result<()> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    fs::write(directory.join(CERTIFICATE), made.cert.pem())?;
    fs::write(directory.join(KEY), made.signing_key.serialize_pem())?;
    Ok(())
}

/// TLS 1.3 with the mesh's first suite, mutual, without resumption: what a tunnel does.
pub fn client_config(directory: &Path) -> Result<Arc<ClientConfig>> {
    let (certificate, key, roots) = material(directory)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

pub fn server_config(directory: &Path) -> Result<Arc<ServerConfig>> {
    let (certificate, key, roots) = material(directory)?;
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate], key)?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384],
        ..aws_lc_rs::default_provider()
    })
}

fn material(
    directory: &Path,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>, RootCertStore)> {
    let certificate = CertificateDer::from_pem_file(directory.join(CERTIFICATE))?;
    let key = PrivateKeyDer::from_pem_file(directory.join(KEY))?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    Ok((certificate, key, roots))
}

impl Wire {
    pub fn connect(server: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server, SILENCE)
            .with_context(|| format!("connect to {server}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(match tls {
            None => Wire::Plain(stream),
            Some(config) => {
                let session = ClientConnection::new(config.clone(), ServerName::try_from(NAME)?)?;
                Wire::Client(Box::new(StreamOwned::new(session, stream)))
            }
        })
    }

    pub fn accepted(stream: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(match tls {
            None => Wire::Plain(stream),
            Some(config) => {
                let session = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
                Wire::Server(Box::new(StreamOwned::new(session, stream)))
            }
        })
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.read(buffer),
            Wire::Client(stream) => stream.read(buffer),
            Wire::Server(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.write(buffer),
            Wire::Client(stream) => stream.write(buffer),
            Wire::Server(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(stream) => stream.flush(),
            Wire::Client(stream) => stream.flush(),
            Wire::Server(stream) => stream.flush(),
        }
    }
}
