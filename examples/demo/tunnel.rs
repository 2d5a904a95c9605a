//! A small HBONE client of an attacker who has got hold of a workload's certificate, or makes one: HTTP/2
//! CONNECT over mutual TLS to port 15008 of a pod, without any agent. It accepts whatever server answers.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::client::SendRequest;
use rcgen::{CertificateParams, CertifiedIssuer, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::lab::any_server;

/// The port of HBONE.
const HBONE: u16 = 15008;

/// How long an attempt may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A certificate chain and its key.
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// What is sent through the tunnel.
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// The service that the tunnel claims was dialled.
    pub host: Option<&'a str>,
}

/// How far an attempt got.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// TLS or HTTP/2 did not come about.
    Refused(String),
    /// CONNECT was answered with this status, not 200.
    NoTunnel(u16),
    /// The request in the tunnel was answered with this status; 0 means that it was cut off.
    Answered(u16),
}

impl Outcome {
    /// Whether the request reached the application.
    pub fn admitted(&self) -> bool {
        matches!(self, Outcome::Answered(status) if (200..300).contains(status))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Refused(cause) => write!(f, "refused: {cause}"),
            Outcome::NoTunnel(status) => write!(f, "CONNECT answered with {status}"),
            Outcome::Answered(0) => f.write_str("the tunnel was cut without an answer"),
            Outcome::Answered(status) => write!(f, "HTTP/1.1 {status} inside of the tunnel"),
        }
    }
}

impl Credentials {
    /// A certificate for `identity` from the agents' own CA, whose key the lab can read.
    pub fn issued(ca: &Path, identity: &str) -> Result<Self> {
        let certificate = fs::read_to_string(ca.join("ca-cert.pem"))
            .with_context(|| format!("read the CA in {}", ca.display()))?;
        let key = KeyPair::from_pem(&fs::read_to_string(ca.join("ca-key.pem"))?)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)?;
        let root = pem_to_der(&certificate)?;
        Self::signed(identity, &issuer, root)
    }

    /// The same from a CA that nobody trusts.
    pub fn self_made(identity: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let root = issuer.der().clone();
        Self::signed(identity, &issuer, root)
    }

    fn signed<S: rcgen::SigningKey>(
        identity: &str,
        issuer: &Issuer<'_, S>,
        root: CertificateDer<'static>,
    ) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(identity.try_into()?)];
        params.extended_key_usages = vec![
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
            rcgen::ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let leaf = params.signed_by(&key, issuer)?;
        let private = PrivateKeyDer::try_from(key.serialize_der());
        Ok(Self {
            chain: vec![leaf.der().clone(), root],
            key: private.map_err(|error| anyhow::anyhow!("{error}"))?,
        })
    }
}

fn pem_to_der(pem: &str) -> Result<CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes()).context("read the CA's certificate")
}

/// Tries to send `request` to `target` through a tunnel, from the calling thread's network namespace.
pub fn attempt(
    target: SocketAddr,
    credentials: &Credentials,
    request: &Request<'_>,
) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let through = tokio::time::timeout(PATIENCE, through(target, credentials, request));
        Ok(match through.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Refused(format!("{error:#}")),
            Err(_) => Outcome::Refused(format!("no answer within {PATIENCE:?}")),
        })
    })
}

async fn through(
    target: SocketAddr,
    credentials: &Credentials,
    request: &Request<'_>,
) -> Result<Outcome> {
    let stream = TcpStream::connect((target.ip(), HBONE)).await.context("connect")?;
    let name = ServerName::from(target.ip());
    let tls = connector(credentials)?.connect(name, stream).await.context("TLS")?;
    let (sender, connection) = h2::client::handshake(tls).await.context("HTTP/2")?;
    tokio::select! {
        outcome = exchange(sender, target, request) => outcome,
        // TLS 1.3 tells the client that its certificate does not do only after the handshake.
        ended = connection => match ended {
            Ok(()) => Ok(Outcome::Refused("the server closed the connection".to_owned())),
            Err(error) => Err(error).context("after the handshake"),
        },
    }
}

async fn exchange(
    sender: SendRequest<Bytes>,
    target: SocketAddr,
    request: &Request<'_>,
) -> Result<Outcome> {
    let mut connect = http::Request::connect(target.to_string());
    if let Some(host) = request.host {
        connect = connect.header("forwarded", format!("for=\"10.0.0.1:1\";host={host}"));
    }
    let (response, mut body) = sender.ready().await?.send_request(connect.body(())?, false)?;
    let response = response.await?;
    if response.status() != http::StatusCode::OK {
        return Ok(Outcome::NoTunnel(response.status().as_u16()));
    }
    let Request { method, path, .. } = request;
    let text = format!("{method} {path} HTTP/1.1\r\nhost: productpage:9080\r\n\r\n");
    body.send_data(Bytes::from(text), false)?;
    let mut received = Vec::new();
    let mut answer = response.into_body();
    while !received.windows(4).any(|end| end == b"\r\n\r\n") {
        let Some(Ok(data)) = answer.data().await else { break };
        answer.flow_control().release_capacity(data.len())?;
        received.extend_from_slice(&data);
    }
    let head = String::from_utf8_lossy(&received);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Outcome::Answered(status.unwrap_or(0)))
}

fn connector(credentials: &Credentials) -> Result<TlsConnector> {
    let config = any_server::config(credentials.chain.clone(), credentials.key.clone_key())?;
    Ok(TlsConnector::from(Arc::new(config)))
}
