//! An agent's side of the controller's CA, by hand: so that it can ask for what an agent never would.

#![allow(dead_code, reason = "the tests use different parts")]

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use isthmus::identity::ca_messages::{
    CREATE_CERTIFICATE, CertificateRequest, CertificateResponse, IMPERSONATED_IDENTITY, Struct,
    Value,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType, SignatureAlgorithm};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// The name that the controller's certificate must have.
const SERVER: &str = "isthmus-controller.isthmus-system.svc";

/// One question.
#[derive(Clone)]
pub struct Ask {
    pub token: String,
    pub identity: String,
    /// The name in the signing request.
    pub name: String,
    pub algorithm: &'static SignatureAlgorithm,
    pub seconds: i64,
}

/// A connection to one replica.
#[derive(Clone)]
pub struct CaClient(Grpc<Channel>);

impl Ask {
    /// As an agent asks.
    pub fn new(token: &str, identity: &str) -> Self {
        Self {
            token: token.to_owned(),
            identity: identity.to_owned(),
            name: identity.to_owned(),
            algorithm: &rcgen::PKCS_ECDSA_P256_SHA256,
            seconds: 24 * 60 * 60,
        }
    }

    fn message(&self) -> anyhow::Result<CertificateRequest> {
        let key = KeyPair::generate_for(self.algorithm)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(self.name.as_str().try_into()?)];
        let csr = params.serialize_request(&key)?.pem()?;
        let value = Value { string_value: Some(self.identity.clone()) };
        let fields = [(IMPERSONATED_IDENTITY.to_owned(), value)].into();
        let metadata = Some(Struct { fields });
        Ok(CertificateRequest { csr, validity_duration: self.seconds, metadata })
    }
}

impl CaClient {
    /// Connects at the first question; `roots` is PEM.
    pub fn new(address: SocketAddr, roots: &str) -> anyhow::Result<Self> {
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
            store.add(root?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = Connector { address, tls: TlsConnector::from(Arc::new(config)) };
        let endpoint = Endpoint::from(Uri::from_static("https://controller"));
        Ok(Self(Grpc::new(endpoint.connect_with_connector_lazy(connector))))
    }

    /// The chain and the roots.
    pub async fn ask(&mut self, ask: &Ask) -> Result<Vec<String>, Status> {
        let message = ask.message().map_err(|error| Status::internal(error.to_string()))?;
        self.send(message, Some(&ask.token)).await
    }

    /// Any message, with any token or none.
    pub async fn send(
        &mut self,
        message: CertificateRequest,
        token: Option<&str>,
    ) -> Result<Vec<String>, Status> {
        let mut request = Request::new(message);
        if let Some(token) = token {
            let bearer = format!("Bearer {token}").parse();
            let bearer = bearer.map_err(|_| Status::internal("no header"))?;
            request.metadata_mut().insert("authorization", bearer);
        }
        self.0.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
        let path = PathAndQuery::from_static(CREATE_CERTIFICATE);
        let answer = self.0.unary(request, path, codec).await?;
        Ok(answer.into_inner().cert_chain)
    }
}

#[derive(Clone)]
struct Connector {
    address: SocketAddr,
    tls: TlsConnector,
}

type Connected = TokioIo<TlsStream<TcpStream>>;
type BoxError = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Connected;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Connected, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, tls } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from(SERVER)?;
            Ok(TokioIo::new(tls.connect(name, stream).await?))
        })
    }
}
