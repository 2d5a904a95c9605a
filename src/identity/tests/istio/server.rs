//! A CA as istiod is one: gRPC over TLS, a root with an intermediate that signs, and failures at will.
//!
//! The tests with namespaces include this file too, and run it beside real agents; what it takes from this room comes
//! through `wire`, which each of both has of its own.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::wire::{ALPN_H2, CREATE_CERTIFICATE, CertificateRequest, CertificateResponse, provider};

/// How the server treats the next requests.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Sign,
    /// Signs, and sends this many roots in the last element.
    SignWithRoots(usize),
    Refuse(Status),
    Hang,
    /// Signs the requester's key for another name.
    OtherName(&'static str),
    /// Signs the right name for a key that the server made.
    OtherKey,
    /// Signs with the intermediate but leaves it out.
    NoParent,
    /// Sends the roots of another authority.
    OtherRoots,
    /// Sends these texts.
    Texts(&'static [&'static str]),
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) message: CertificateRequest,
    pub(super) authorization: String,
    pub(super) cluster: String,
}

/// An authority's certificate in PEM, and what signs with it.
pub(super) struct Authority {
    pub(super) pem: String,
    signer: Issuer<'static, KeyPair>,
}

pub(super) struct State {
    pub(super) answer: Mutex<Answer>,
    pub(super) seen: Mutex<Vec<Seen>>,
    pub(super) connections: AtomicUsize,
    root: Authority,
    parent: Authority,
}

/// A server; it ends with this value, and its connections too.
pub(super) struct Istiod {
    pub(super) state: Arc<State>,
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Authority {
    pub(super) fn new(name: &str, parent: Option<&Self>) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = match parent {
            Some(parent) => params.signed_by(&key, &parent.signer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        Self { pem: certificate.pem(), signer: Issuer::new(params, key) }
    }

    /// A server certificate for an address or name.
    pub(super) fn serving(&self, name: &str) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.signer).unwrap().der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf], key)
            .unwrap();
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config
    }
}

impl State {
    pub(super) fn new() -> Arc<Self> {
        let root = Authority::new("mesh root", None);
        let parent = Authority::new("istiod", Some(&root));
        Arc::new(Self {
            answer: Mutex::new(Answer::Sign),
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            root,
            parent,
        })
    }

    async fn create(&self, request: Request<CertificateRequest>) -> Result<Vec<String>, Status> {
        let header = |name| match request.metadata().get(name) {
            Some(value) => value.to_str().unwrap().to_owned(),
            None => String::new(),
        };
        let (authorization, cluster) = (header("authorization"), header("clusterid"));
        let message = request.get_ref().clone();
        self.seen.lock().push(Seen { message, authorization, cluster });
        let answer = self.answer.lock().clone();
        let other = || Authority::new("other root", None).pem;
        let (name, own_key) = match answer {
            Answer::OtherName(name) => (Some(name), None),
            Answer::OtherKey => (None, Some(KeyPair::generate().unwrap())),
            _ => (None, None),
        };
        let leaf = self.sign(request.get_ref(), name, own_key.as_ref());
        let (parent, root) = (self.parent.pem.clone(), self.root.pem.clone());
        Ok(match answer {
            Answer::Sign | Answer::OtherName(_) | Answer::OtherKey => vec![leaf, parent, root],
            Answer::SignWithRoots(count) => {
                let more: String = (1..count).map(|_| other()).collect();
                vec![leaf, parent, more + &root]
            }
            Answer::NoParent => vec![leaf, root],
            Answer::OtherRoots => vec![leaf, parent, other()],
            Answer::Texts(texts) => texts.iter().map(|&text| text.to_owned()).collect(),
            Answer::Refuse(status) => return Err(status),
            Answer::Hang => std::future::pending().await,
        })
    }

    fn sign(
        &self,
        request: &CertificateRequest,
        name: Option<&str>,
        own_key: Option<&KeyPair>,
    ) -> String {
        let mut csr = CertificateSigningRequestParams::from_pem(&request.csr).unwrap();
        let now = SystemTime::now();
        let lifetime = Duration::from_secs(request.validity_duration.try_into().unwrap());
        csr.params.not_before = (now - Duration::from_secs(60)).into();
        csr.params.not_after = (now + lifetime).into();
        if let Some(name) = name {
            csr.params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        }
        let signed = match own_key {
            Some(key) => csr.params.signed_by(key, &self.parent.signer),
            None => csr.signed_by(&self.parent.signer),
        };
        signed.unwrap().pem()
    }
}

/// The service as the gRPC library calls it.
struct Create(Arc<State>);

impl tonic::server::UnaryService<CertificateRequest> for Create {
    type Response = CertificateResponse;
    type Future = BoxFuture<'static, Result<Response<CertificateResponse>, Status>>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move {
            let cert_chain = state.create(request).await?;
            Ok(Response::new(CertificateResponse { cert_chain }))
        })
    }
}

impl Istiod {
    /// Serves on a port of this machine, or on a free one; in plain text without `tls`.
    pub(super) async fn start(state: Arc<State>, tls: Option<ServerConfig>, port: u16) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, port).into(), state, tls).await
    }

    pub(super) async fn start_at(
        address: SocketAddr,
        state: Arc<State>,
        tls: Option<ServerConfig>,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let task = tokio::spawn(accept(listener, tls, state.clone()));
        Self { state, address, task }
    }

    /// Ends with all its connections; returns when the port is free.
    pub(super) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        state.connections.fetch_add(1, Ordering::Relaxed);
        let (tls, state) = (tls.clone(), state.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| serve(state.clone(), request));
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // The client reports failures.
            match tls {
                None => drop(server.serve_connection(TokioIo::new(stream), service).await),
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        drop(server.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            }
        });
    }
}

async fn serve(
    state: Arc<State>,
    request: http::Request<Incoming>,
) -> Result<http::Response<tonic::body::Body>, Infallible> {
    if request.uri().path() != CREATE_CERTIFICATE {
        return Ok(Status::unimplemented("no such method").into_http());
    }
    let codec = ProstCodec::<CertificateResponse, CertificateRequest>::default();
    Ok(tonic::server::Grpc::new(codec).unary(Create(state), request).await)
}

/// Writes a file as Kubernetes replaces one: at once.
pub(super) fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}
