//! A worker's surroundings: applications, clients and a small mesh around them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::base::Identity;
use crate::config;
use crate::identity::{
    CertificateStore, LocalIssuer, LocalIssuerSettings, StoreSettings, SystemClock,
};
use crate::l7::message::detect;
use crate::l7::version::Version;
use crate::l7::{Dependencies, WorkerSettings, Workers};
use crate::model::*;
use crate::pool::{Pool, PoolSettings};
use crate::sock::{PlainSockets, SocketFactory};
use crate::telemetry::Telemetry;
use crate::tunnel::{Carrier, Cut, GuardedConnection, RoutedConnection, Waypoints};
use crate::world::fixture::{self, Fixture, bound_to, key};
use crate::world::{World, WorldStore};

/// What a client dials; nothing listens there.
pub(super) const VIP: &str = "10.96.0.1:80";

/// The workers and the world that they read.
pub(super) struct Lab {
    pub(super) store: Arc<WorldStore>,
    pub(super) workers: Arc<Workers>,
    pub(super) telemetry: Telemetry,
    pub(super) certificates: Arc<CertificateStore>,
}

/// A response with its whole body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Lab {
    /// Without tunnels, so nobody else knows its authority.
    pub(super) fn new(mesh: Fixture, settings: WorkerSettings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::with_authority(mesh, settings, directory.path())
    }

    pub(super) fn with_authority(
        mesh: Fixture,
        settings: WorkerSettings,
        authority: &Path,
    ) -> Self {
        Self::with_timeout(mesh, settings, authority, Duration::from_secs(2))
    }

    /// Whose agent itself waits for a connection for as long as this.
    pub(super) fn patient(mesh: Fixture, connect_timeout: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = WorkerSettings::for_tests();
        Self::with_timeout(mesh, settings, directory.path(), connect_timeout)
    }

    fn with_timeout(
        mesh: Fixture,
        settings: WorkerSettings,
        authority: &Path,
        connect_timeout: Duration,
    ) -> Self {
        let telemetry = Telemetry::without_log();
        let certificates = certificates(authority);
        let store = fixture::store();
        store.publish(mesh.mesh);
        let workers = Workers::new(Dependencies {
            world: store.clone(),
            pool: pool(certificates.clone()),
            resolver: crate::resolver::Resolver::new("/etc/resolv.conf".into(), store.clone()),
            telemetry: telemetry.clone(),
            cluster: "Kubernetes".into(),
            settings,
            connect_timeout,
        });
        Self { store, workers, telemetry, certificates }
    }

    /// The samples of `istio_requests_total` that have these labels, added up.
    pub(super) fn requests(&self, labels: &[&str]) -> u64 {
        let scraped = self.telemetry.scrape().unwrap();
        let samples = scraped.lines().filter(|line| line.starts_with("istio_requests_total{"));
        samples
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64)
            .sum()
    }

    /// Waits until there are so many of these requests, and no more.
    pub(super) async fn counted(&self, labels: &[&str], count: u64) {
        let enough = async {
            while self.requests(labels) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(5), enough).await;
        assert!(waited.is_ok(), "{labels:?}: {} instead of {count}", self.requests(labels));
        assert_eq!(self.requests(labels), count, "{labels:?}");
    }

    pub(super) fn world(&self) -> Arc<World> {
        self.store.snapshot()
    }

    /// A connection of `client` to the service, as layer 4 hands it over; this is the client's end.
    pub(super) async fn dial(&self, client: &str, service: &str) -> TcpStream {
        self.dial_with(client, service, Arc::new(PlainSockets)).await
    }

    pub(super) async fn dial_with(
        &self,
        client: &str,
        service: &str,
        sockets: Arc<dyn SocketFactory>,
    ) -> TcpStream {
        let (ours, connection) = self.routed(client, service, sockets).await;
        self.workers.route(connection);
        ours
    }

    /// The same, for the test to hand over.
    pub(super) async fn routed(
        &self,
        client: &str,
        service: &str,
        sockets: Arc<dyn SocketFactory>,
    ) -> (TcpStream, RoutedConnection) {
        let (ours, theirs) = pair().await;
        let world = self.world();
        let client = world.workload(&fixture::workload(client, "127.0.0.9").uid).unwrap().clone();
        let connection = RoutedConnection {
            stream: theirs,
            client,
            client_address: ours.local_addr().unwrap(),
            dialled: VIP.parse().unwrap(),
            service: world.service(&key(service)).unwrap().clone(),
            waypoint: Arc::new(fixture::waypoint("waypoint")),
            sockets,
            place: Default::default(),
            cancel: Default::default(),
        };
        (ours, connection)
    }

    /// A connection that arrived for `workload` at the application's address.
    pub(super) async fn arrive(
        &self,
        workload: &str,
        to: SocketAddr,
        client: Option<Identity>,
        host: Option<&str>,
    ) -> TcpStream {
        self.arrive_with((workload, to), client, host, Arc::new(PlainSockets)).await
    }

    pub(super) async fn arrive_with(
        &self,
        (workload, to): (&str, SocketAddr),
        client: Option<Identity>,
        host: Option<&str>,
        sockets: Arc<dyn SocketFactory>,
    ) -> TcpStream {
        let (ours, theirs) = pair().await;
        let uid = fixture::workload(workload, "127.0.0.1").uid;
        self.workers.guard(
            &"shop".into(),
            GuardedConnection {
                stream: Carrier::Tcp(theirs),
                workload: self.world().workload(&uid).unwrap().clone(),
                client,
                client_address: ours.local_addr().unwrap(),
                destination: to,
                forwarded_host: host.map(Into::into),
                baggage: None,
                borrow: None,
                sockets,
                place: Default::default(),
                cut: Cut::with_workload(&CancellationToken::new()),
            },
        );
        ours
    }
}

/// Certificates of an authority of its own, kept in `directory`.
pub(super) fn certificates(directory: &Path) -> Arc<CertificateStore> {
    let trust_domain: crate::base::Str = "cluster.local".into();
    let settings = LocalIssuerSettings {
        directory: directory.to_owned(),
        trust_domain: trust_domain.clone(),
        lifetime: Duration::from_secs(3600),
    };
    let clock: Arc<SystemClock> = Arc::new(SystemClock);
    let issuer = LocalIssuer::open(settings, clock.clone()).unwrap();
    let settings = StoreSettings {
        trust: crate::identity::Trust::of(&trust_domain),
        metrics: Default::default(),
    };
    let store = Arc::new(CertificateStore::new(Arc::new(issuer), settings, clock));
    let run = store.clone();
    tokio::spawn(async move { run.run(CancellationToken::new()).await });
    store
}

fn pool(certificates: Arc<CertificateStore>) -> Pool {
    let settings = PoolSettings {
        tunnels: config::PoolSettings::default(),
        connect_timeout: Duration::from_secs(2),
        in_process: true,
        rooms: crate::base::Rooms::boundless(),
    };
    Pool::new(settings, certificates, tokio::runtime::Handle::current())
}

/// Both ends of a loopback connection.
pub(super) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (ours, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (ours.unwrap(), accepted.unwrap().0)
}

/// A workload outside of the mesh, so that it is reached plainly.
pub(super) fn outsider(name: &str, at: SocketAddr) -> Workload {
    Workload { enrolled: false, ..fixture::workload(name, &at.ip().to_string()) }
}

/// A service of one application, bound to the waypoint.
pub(super) fn bound(name: &str, vip: &str, workload: &Workload, at: SocketAddr) -> Service {
    let mut service = fixture::service(name, vip, &[workload]);
    service.endpoints[0].ports = vec![PortMapping { port: 80, target: at.port() }];
    service.ports[0].protocol = AppProtocol::Detect;
    service.waypoint = bound_to("waypoint");
    service
}

/// A client, a waypoint, and one service `echo` with one endpoint outside of the mesh.
pub(super) fn shop(at: SocketAddr) -> Fixture {
    let echo = outsider("echo", at);
    let service = bound("echo", "10.96.0.1", &echo, at);
    Fixture::default()
        .workload(fixture::workload("client", "127.0.0.9"))
        .workload(echo)
        .waypoint(fixture::waypoint("waypoint"))
        .service(service)
}

/// The same with an endpoint for each of these.
pub(super) fn shop_of(applications: &[SocketAddr]) -> Fixture {
    let mut mesh = shop(applications[0]);
    let mut service = mesh.mesh.services[0].as_ref().clone();
    for (number, at) in applications.iter().enumerate().skip(1) {
        let other = outsider(&format!("other-{number}"), *at);
        let mut endpoint = service.endpoints[0].clone();
        endpoint.workload = Some(other.uid.clone());
        endpoint.ports[0].target = at.port();
        service.endpoints.push(endpoint);
        mesh = mesh.workload(other);
    }
    mesh.mesh.services[0] = service.into();
    mesh
}

/// An application that answers with its name and what it was sent, over HTTP/1.1 and HTTP/2.
pub(super) async fn application(name: &'static str) -> SocketAddr {
    application_at(name, "127.0.0.1:0".parse().unwrap()).await
}

pub(super) async fn application_at(name: &'static str, at: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(at).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(name, stream));
        }
    });
    address
}

async fn serve(name: &'static str, stream: TcpStream) {
    let wait = Duration::from_secs(60);
    let (version, stream) = detect::detect(stream, AppProtocol::Http, wait).await.unwrap();
    let io = TokioIo::new(stream);
    let service = service_fn(move |request| echo(name, request));
    _ = match version {
        Some(Version::Http2) => {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(io, service)
                .await
        }
        _ => {
            hyper::server::conn::http1::Builder::new()
                .serve_connection(io, service)
                .with_upgrades()
                .await
        }
    };
}

async fn echo(
    name: &'static str,
    mut request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.headers().contains_key("upgrade") {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgraded.await.unwrap());
            let (mut read, mut write) = tokio::io::split(&mut io);
            _ = tokio::io::copy(&mut read, &mut write).await;
        });
        return Ok(Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .body(Full::default())
            .unwrap());
    }
    let mut text =
        format!("{name} {:?} {} {}\n", request.version(), request.method(), request.uri());
    for (header, value) in request.headers() {
        text.push_str(&format!("{header}: {}\n", value.to_str().unwrap()));
    }
    let head = request.method() == Method::HEAD;
    let cost = request.headers().get("x-will-cost").cloned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    if head {
        return Ok(Response::new(Full::default()));
    }
    text.push_str(&String::from_utf8_lossy(&body));
    let mut response = Response::builder().header("x-from", name).body(Full::from(text)).unwrap();
    cost.map(|cost| response.headers_mut().insert("x-cost", cost));
    Ok(response)
}

/// One client's connection, kept alive between requests.
pub(super) enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub(super) async fn http1(stream: TcpStream) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client::Http1(sender)
    }

    pub(super) async fn http2(stream: TcpStream) -> Self {
        let io = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        Client::Http2(sender)
    }

    pub(super) async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, &[]).await.unwrap()
    }

    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> hyper::Result<Answer> {
        self.exchange(method, path, headers, Bytes::new()).await
    }

    pub(super) async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> hyper::Result<Answer> {
        let uri = match self {
            Client::Http1(_) => path.to_owned(),
            Client::Http2(_) => format!("http://echo{path}"),
        };
        let mut request = Request::builder().method(method).uri(uri);
        if matches!(self, Client::Http1(_)) {
            request = request.header("host", "echo");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body)).unwrap();
        let response = match self {
            Client::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Client::Http2(sender) => sender.send_request(request).await?,
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}
