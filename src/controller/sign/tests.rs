//! The signing port over loopback, with real TLS and HTTP/2, while others do their worst. Of the API server there is
//! only what it would answer.

mod exchange;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::codegen::Service;

use super::Server;
use crate::config::{Overrides, Settings};
use crate::controller::Context;
use crate::controller::ca::Authorities;
use crate::controller::ca::tests::authorities;
use crate::controller::exchange::Exchange;
use crate::controller::lease::Leadership;
use crate::identity::ca_messages::{
    CREATE_CERTIFICATE, CertificateRequest, IMPERSONATED_IDENTITY, Struct, Value,
};
use crate::source::TranslateSettings;
use crate::telemetry::Telemetry;

/// The namespace of the settings below.
const AGENT: &str = "system:serviceaccount:isthmus-system:isthmus";
const SERVER: &str = "isthmus-controller.isthmus-system.svc";
const IDENTITY: &str = "spiffe://cluster.local/ns/shop/sa/web";
/// Longer than anything here takes, with other tests beside it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Knows agents by tokens such as `agent-node1`, and a pod of every account on every node.
#[derive(Clone, Default)]
struct ApiServer {
    /// How long it takes to find pods.
    pause: Duration,
    reviews: Arc<AtomicUsize>,
}

impl Service<http::Request<kube::client::Body>> for ApiServer {
    type Response = http::Response<Full<Bytes>>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, std::io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<kube::client::Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let is_review = request.uri().path().ends_with("/tokenreviews");
            let is_of_slices = request.uri().path().ends_with("/endpointslices");
            let is_web = request.uri().query().is_some_and(|it| it.contains("service-name%3Dweb"));
            let body = request.into_body().collect().await.map_err(std::io::Error::other)?;
            let answer = if is_review {
                server.reviews.fetch_add(1, Ordering::SeqCst);
                let asked: serde_json::Value = serde_json::from_slice(&body.to_bytes())?;
                review(asked["spec"]["token"].as_str().unwrap_or_default())
            } else if is_of_slices {
                slices(if is_web { &["node1", "node2"] } else { &[] })
            } else {
                tokio::time::sleep(server.pause).await;
                serde_json::json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {},
                    "items": [{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                               "metadata": {"name": "web"}}],
                })
            };
            Ok(http::Response::new(Full::new(Bytes::from(answer.to_string()))))
        })
    }
}

/// A Service with a pod on each of these nodes.
fn slices(nodes: &[&str]) -> serde_json::Value {
    let endpoints =
        nodes.iter().map(|node| serde_json::json!({"addresses": ["192.0.2.1"], "nodeName": node}));
    serde_json::json!({
        "kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": {},
        "items": [{"metadata": {"name": "web-1"}, "addressType": "IPv4", "endpoints": endpoints.collect::<Vec<_>>(), "ports": []}],
    })
}

fn review(token: &str) -> serde_json::Value {
    let status = match token.strip_prefix("agent-") {
        Some(node) => serde_json::json!({
            "authenticated": true,
            "audiences": ["istio-ca"],
            "user": {"username": AGENT, "extra": {
                "authentication.kubernetes.io/pod-name": ["isthmus-x"],
                "authentication.kubernetes.io/node-name": [node],
            }},
        }),
        None => serde_json::json!({"authenticated": false, "error": "no such token"}),
    };
    serde_json::json!({
        "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": {"token": ""},
        "status": status,
    })
}

/// A controller that signs.
struct Lab {
    port: u16,
    roots: Arc<RootCertStore>,
    api: ApiServer,
    cancel: CancellationToken,
    running: JoinHandle<()>,
}

impl Lab {
    async fn start(pause: Duration) -> Self {
        Self::begin(pause, true).await
    }

    /// `leads`: holds the Lease.
    async fn begin(pause: Duration, leads: bool) -> Self {
        let text = "[controller]\nnamespace = \"isthmus-system\"\naddress = \"127.0.0.1:0\"\n";
        let settings = Settings::parse(text, &Overrides::default()).unwrap();
        let api = ApiServer { pause, ..ApiServer::default() };
        let context = Arc::new(Context {
            client: kube::Client::new(api.clone(), "isthmus-system"),
            settings: settings.controller.clone(),
            trust_domain: settings.trust_domain.clone(),
            cluster_domain: settings.cluster_domain.clone(),
            replica: "controller".into(),
            translate: TranslateSettings::default(),
            telemetry: Telemetry::without_log(),
        });
        let authorities: Authorities = authorities();
        let mut roots = RootCertStore::empty();
        for root in &authorities.current().unwrap().trusted {
            roots.add(root.clone()).unwrap();
        }
        let exchange = Exchange::new(&context, Leadership::of(leads));
        let server = Server::bind(context, authorities, exchange).await.unwrap();
        let port = server.address().unwrap().port();
        let (cancel, (is_ready, ready)) =
            (CancellationToken::new(), tokio::sync::watch::channel(false));
        let until = cancel.clone();
        let running =
            tokio::spawn(async move { server.run(move |it| _ = is_ready.send(it), until).await });
        let mut ready = ready;
        timeout(PATIENCE, ready.wait_for(|it| *it)).await.unwrap().unwrap();
        Self { port, roots: Arc::new(roots), api, cancel, running }
    }

    /// A TCP connection from an address of this machine.
    async fn dial(&self, from: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, from));
        socket.bind((source, 0).into()).unwrap();
        socket.connect((Ipv4Addr::LOCALHOST, self.port).into()).await.unwrap()
    }

    async fn tls(&self, from: u8) -> std::io::Result<TlsStream<TcpStream>> {
        over_tls(self.roots.clone(), self.dial(from).await).await
    }

    async fn connect(&self, from: u8) -> std::io::Result<Client> {
        let io = TokioIo::new(self.tls(from).await?);
        let (sender, connection) =
            handshake(TokioExecutor::new(), io).await.map_err(std::io::Error::other)?;
        Ok(Client { sender, connection: tokio::spawn(async move { _ = connection.await }) })
    }

    async fn end(self) {
        self.cancel.cancel();
        timeout(PATIENCE, self.running).await.expect("it ends").unwrap();
    }
}

/// As an agent connects that trusts these roots.
async fn over_tls(
    roots: Arc<RootCertStore>,
    stream: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(SERVER).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// A connection of HTTP/2.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
}

impl Client {
    /// What a request with this token is answered with; `None` when the connection is no more.
    async fn ask(&self, token: &str) -> Option<Code> {
        let request = http::Request::post(format!("https://{SERVER}{CREATE_CERTIFICATE}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {token}"))
            .body(Full::new(MESSAGE.clone()))
            .unwrap();
        let response = self.sender.clone().send_request(request).await.ok()?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.ok()?;
        let status =
            head.headers.get("grpc-status").or_else(|| body.trailers()?.get("grpc-status"));
        Some(Code::from_bytes(status?.as_bytes()))
    }
}

/// A request for [`IDENTITY`], as gRPC frames it.
static MESSAGE: LazyLock<Bytes> = LazyLock::new(message);

fn message() -> Bytes {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = vec![rcgen::SanType::URI(IDENTITY.try_into().unwrap())];
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let value = Value { string_value: Some(IDENTITY.to_owned()) };
    let fields = [(IMPERSONATED_IDENTITY.to_owned(), value)].into();
    let message =
        CertificateRequest { csr, validity_duration: 3600, metadata: Some(Struct { fields }) };
    let encoded = message.encode_to_vec();
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(encoded.len()).unwrap());
    framed.put_slice(&encoded);
    framed.freeze()
}

/// Whether the other side has closed, within a moment.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = timeout(Duration::from_millis(200), stream.read(&mut [0; 1])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_visitors_keep_no_agent_from_its_certificate() {
    let lab = Lab::start(Duration::ZERO).await;
    let early = lab.connect(1).await.unwrap();
    assert_eq!(
        early.ask("agent-node1").await,
        Some(Code::Ok),
        "an agent of the attackers' address"
    );
    let mut silent = Vec::new();
    // More than there are places, from several addresses: a third says nothing, a third half of a handshake, and a third
    // completes it and asks for nothing.
    for number in 0..450 {
        let from = 1 + u8::try_from(number % 5).unwrap();
        match number % 3 {
            0 => silent.push(lab.dial(from).await),
            1 => {
                let mut stream = lab.dial(from).await;
                _ = stream.write_all(&[22, 3, 1, 2, 0, 1]).await;
                silent.push(stream);
            }
            _ => {
                if let Ok(Ok(stream)) = timeout(PATIENCE, lab.tls(from)).await {
                    silent.push(stream.into_inner().0);
                }
            }
        }
    }
    assert!(silent.len() > 300, "they were let in: {}", silent.len());
    for node in 10..30 {
        let agent = lab.connect(node).await.unwrap();
        let asked = timeout(Duration::from_secs(2), agent.ask("agent-node2")).await;
        assert_eq!(asked.expect("at once"), Some(Code::Ok), "from 127.0.0.{node}");
    }
    assert_eq!(early.ask("agent-node1").await, Some(Code::Ok), "it is no visitor");
    assert!(!early.connection.is_finished());
    let mut closed = 0;
    for stream in &mut silent[..100] {
        closed += usize::from(is_closed(stream).await);
    }
    assert!(closed > 50, "the first ones made room: {closed}");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_floods_with_tokens_spends_what_is_their_addresss_alone() {
    let lab = Lab::start(Duration::ZERO).await;
    let agent = lab.connect(1).await.unwrap();
    assert_eq!(agent.ask("agent-node1").await, Some(Code::Ok));
    let attacker = lab.connect(1).await.unwrap();
    let mut answers = Vec::new();
    for number in 0..200 {
        answers.push(attacker.ask(&format!("forged-{number}")).await);
    }
    // However long that took: what was not asked of the API server was refused before.
    let reviews = lab.api.reviews.load(Ordering::SeqCst) - 1;
    let refused = answers.iter().filter(|it| **it == Some(Code::ResourceExhausted)).count();
    assert_eq!(answers[0], Some(Code::Unauthenticated));
    assert!(reviews < 190 && refused > 10, "{reviews} reviews, {refused} refused");
    assert_eq!(agent.ask("agent-node1").await, Some(Code::Ok), "of the same address");
    assert_eq!(agent.ask("agent-node1-renewed").await, Some(Code::Ok), "with another token");
    let other = lab.connect(2).await.unwrap();
    assert_eq!(other.ask("agent-node2").await, Some(Code::Ok));
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_asks_without_end_delays_no_other_node() {
    let lab = Lab::start(Duration::from_millis(300)).await;
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = Arc::new(lab.connect(1).await.unwrap());
        for _ in 0..16 {
            let client = client.clone();
            flood.spawn(async move { client.ask("agent-node1").await });
        }
    }
    let other = lab.connect(2).await.unwrap();
    let asked = timeout(Duration::from_secs(2), other.ask("agent-node2")).await;
    assert_eq!(asked.expect("at once"), Some(Code::Ok));
    let answers = flood.join_all().await;
    let count = |code| answers.iter().filter(|it| **it == Some(code)).count();
    assert!(count(Code::Ok) >= 16 && count(Code::ResourceExhausted) >= 16, "{answers:?}");
    lab.end().await;
}

/// An agent that starts asks for several pods at once, before anybody knows its token.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_requests_of_an_agent_are_reviewed_once() {
    let lab = Lab::start(Duration::ZERO).await;
    let client = Arc::new(lab.connect(1).await.unwrap());
    let asked = (0..8).map(|_| client.ask("agent-node1"));
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(answers, vec![Some(Code::Ok); 8]);
    assert_eq!(lab.api.reviews.load(Ordering::SeqCst), 1);
    lab.end().await;
}

/// New connections of a node's agents are served; the oldest end, without a request lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_so_many_connections() {
    let lab = Lab::start(Duration::ZERO).await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        let client = lab.connect(1).await.unwrap();
        assert_eq!(client.ask("agent-node1").await, Some(Code::Ok));
        clients.push(client);
    }
    let (oldest, newest) = (clients.remove(0), clients.pop().unwrap());
    timeout(PATIENCE, oldest.connection).await.expect("it is ended").unwrap();
    assert_eq!(newest.ask("agent-node1").await, Some(Code::Ok));
    lab.end().await;
}
