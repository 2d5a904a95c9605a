//! The connection to the CA: TCP and TLS 1.3, with the roots read from their file each time.

use std::error::Error;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::codegen::Service;

use super::files;
use crate::identity::clock::{Clock, TlsClock};
use crate::identity::provider::provider;
use crate::identity::tls::{ALPN_H2, count_agreed, negotiated_h2};
use crate::telemetry::Handshake;

type BoxError = Box<dyn Error + Send + Sync>;
type Connecting = Pin<Box<dyn Future<Output = Result<TokioIo<Box<dyn Stream>>, BoxError>> + Send>>;

/// A connection, as its user sees it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Where the CA is.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) uri: Uri,
    host: String,
    port: u16,
    /// `None` in plain text, which only an address of this machine may be.
    server_name: Option<ServerName<'static>>,
}

/// Makes connections to a CA, one for each call.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) target: Target,
    pub(super) ca_root: PathBuf,
    pub(super) limit: Duration,
    pub(super) clock: Arc<dyn Clock>,
}

impl Target {
    /// `https://host:port`, or `http://` with a loopback address: the token must not cross a network in plain text.
    pub(super) fn parse(address: &str) -> Result<Self, String> {
        let uri: Uri = address.parse().map_err(|error| format!("it is not a URI: {error}"))?;
        let host = uri.host().ok_or("it names no host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().ok_or("it names no port; istiod's is 15012")?;
        let server_name = match uri.scheme_str() {
            Some("https") => Some(
                ServerName::try_from(host.clone())
                    .map_err(|_| format!("{host:?} is neither a DNS name nor an IP address"))?,
            ),
            Some("http") if is_loopback(&host) => None,
            Some("http") => {
                return Err("http:// would send the token in plain text; use https://".to_owned());
            }
            _ => return Err("it does not begin with https://".to_owned()),
        };
        Ok(Self { uri, host, port, server_name })
    }
}

impl Connector {
    async fn connect(self) -> Result<TokioIo<Box<dyn Stream>>, BoxError> {
        let limit = self.limit;
        match timeout(limit, self.dial()).await {
            Ok(connected) => connected.map(TokioIo::new).map_err(BoxError::from),
            Err(_) => Err(format!("no connection within {limit:?}").into()),
        }
    }

    async fn dial(self) -> Result<Box<dyn Stream>, String> {
        let Target { host, port, server_name, .. } = self.target;
        let tcp = TcpStream::connect((host.as_str(), port))
            .await
            .map_err(|error| format!("no TCP connection to {host} port {port}: {error}"))?;
        tcp.set_nodelay(true).map_err(|error| format!("the socket fails: {error}"))?;
        let Some(name) = server_name else { return Ok(Box::new(tcp)) };
        let config = client_config(&self.ca_root, self.clock).await?;
        let tls =
            TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| {
                let root = self.ca_root.display();
                format!("the TLS handshake failed: {error}; the roots trusted are those in {root}")
            })?;
        if !negotiated_h2(tls.get_ref().1) {
            return Err("the server does not speak HTTP/2 there".to_owned());
        }
        count_agreed(Handshake::IssuerClient, tls.get_ref().1);
        Ok(Box::new(tls))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Connecting {
        Box::pin(self.clone().connect())
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Trusts what the file holds now: the roots are replaced while agents run.
async fn client_config(path: &Path, clock: Arc<dyn Clock>) -> Result<ClientConfig, String> {
    let unusable = |why: String| format!("the roots in {} cannot be used: {why}", path.display());
    let text = files::read(path).await.map_err(unusable)?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&text) {
        let root = root.map_err(|error| unusable(format!("it is not PEM: {error}")))?;
        roots.add(root).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(TlsClock(clock)))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}
