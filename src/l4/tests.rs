//! One workload's proxy on loopback, reached through a real pool.

use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::runtime::Handle;

use super::*;
use crate::base::{Identity, Reason, TrustDomains};
use crate::config;
use crate::filter::{PolicySpec, RuleContext};
use crate::identity::{LocalIssuer, LocalIssuerSettings, StoreSettings, SystemClock, Trust};
use crate::model::{Mesh, PortMapping};
use crate::pool::{PoolSettings, TunnelKey};
use crate::resolver::Resolver;
use crate::sock::PlainSockets;
use crate::tunnel::{ConnectRequest, GuardedConnection, Home, RoutedConnection};
use crate::world::{MeshNames, fixture};

const SOON: Duration = Duration::from_secs(10);

/// Sockets on loopback, at ports of the kernel's choice; panics instead of connecting for the first time.
struct Fragile(AtomicBool);

impl SocketFactory for Fragile {
    fn listen(&self, _: SocketAddr) -> io::Result<TcpListener> {
        PlainSockets.listen(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn listen_shared(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.listen(address)
    }

    fn datagrams(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        PlainSockets.datagrams(address)
    }

    fn socket(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpSocket> {
        assert!(!self.0.swap(false, Ordering::Relaxed), "provoked");
        PlainSockets.socket(to, from)
    }
}

struct NoWaypoints;

impl Waypoints for NoWaypoints {
    fn route(&self, _: RoutedConnection) {}
    fn guard(&self, _: &Str, _: GuardedConnection) {}

    fn home(&self, _: &Str) -> Option<Home> {
        None
    }
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn certificates(directory: &tempfile::TempDir) -> Arc<CertificateStore> {
    let settings = LocalIssuerSettings {
        directory: directory.path().join("ca"),
        trust_domain: "cluster.local".into(),
        lifetime: Duration::from_secs(3600),
    };
    let clock = Arc::new(SystemClock);
    let issuer = Arc::new(LocalIssuer::open(settings, clock.clone()).unwrap());
    let store = StoreSettings { trust: Trust::of("cluster.local"), metrics: Default::default() };
    let certificates = Arc::new(CertificateStore::new(issuer, store, clock));
    let running = certificates.clone();
    tokio::spawn(async move { running.run(CancellationToken::new()).await });
    certificates
}

fn layer4(directory: &tempfile::TempDir, workload: &Workload) -> Arc<Layer4> {
    let certificates = certificates(directory);
    let world = WorldStore::new(MeshNames {
        trust_domains: TrustDomains::new("cluster.local".into(), &[]),
        root_namespace: "istio-system".into(),
    });
    world.publish(Mesh { workloads: vec![Arc::new(workload.clone())], ..Mesh::default() });
    let pool = PoolSettings {
        tunnels: config::PoolSettings::default(),
        connect_timeout: SOON,
        in_process: false,
        rooms: crate::base::Rooms::boundless(),
    };
    let pool = Pool::new(pool, certificates.clone(), Handle::current());
    Arc::new(Layer4 {
        settings: Layer4Settings {
            max_connections: 100,
            max_peer_connections: 100,
            max_peer_tunnels: 10,
            connect_timeout: SOON,
            ..Layer4Settings::default()
        },
        cluster: "Kubernetes".into(),
        world: world.clone(),
        threads: Threads::new(&pool, Handle::current(), &[]),
        pool,
        certificates,
        resolver: Resolver::new("/etc/resolv.conf".into(), world.clone()),
        telemetry: Telemetry::without_log(),
        waypoints: Arc::new(NoWaypoints),
        peers: Arc::default(),
        limit_peers: crate::quota::peers::Peers::new(world.clone(), Handle::current()),
        rooms: crate::base::Rooms::boundless(),
    })
}

/// Where a proxy takes tunnels.
fn hbone(proxy: &Proxy) -> SocketAddr {
    let listening = proxy.listening.lock();
    let (_, listener) = listening.iter().find(|(port, _)| *port == ports::HBONE).unwrap();
    listener.upgrade().unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_panic_ends_one_stream_and_says_whose() {
    let written = Written::default();
    let writer = written.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _log = tracing::subscriber::set_default(subscriber);
    let directory = tempfile::tempdir().unwrap();
    let server = fixture::workload("server", "127.0.0.1");
    let layer4 = layer4(&directory, &server);
    let fragile = Arc::new(Fragile(AtomicBool::new(true)));
    let proxy = Proxy::start(&layer4, &server, fragile, Vec::new()).unwrap();
    let application = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let key = TunnelKey {
        client: Identity::new("cluster.local", "shop", "client"),
        client_uid: "client".into(),
        server: server.identity.clone(),
        address: hbone(&proxy),
    };
    let request = ConnectRequest {
        authority: application.local_addr().unwrap().to_string(),
        forwarded_for: None,
        forwarded_host: None,
        baggage: None,
    };
    let sockets: Arc<dyn SocketFactory> = Arc::new(PlainSockets);
    let open = || tokio::time::timeout(SOON, layer4.pool.open(&key, &sockets, &request));
    assert!(open().await.unwrap().is_err(), "the panic ended this one");
    let stream = open().await.unwrap().unwrap();
    assert_eq!(layer4.pool.tunnels(), 1, "the tunnel lives on, and so do its other streams");
    application.accept().await.unwrap();
    drop(stream);
    proxy.stop(Duration::ZERO).await;
    assert_eq!(proxy.tasks(), 0);
    let text = String::from_utf8(written.0.lock().clone()).unwrap();
    let line = text.lines().find(|line| line.contains("provoked")).expect(&text);
    for part in ["a connection was ended by a panic", "Pod/shop/server", "peer=127.0.0.1:"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

/// The server behind a Service without a waypoint, with this limit.
fn limited(layer4: &Layer4, server: &Workload, target: u16, limit: serde_json::Value) {
    struct Policy;
    impl RuleContext for Policy {}
    let to = serde_json::json!({"kind": "Service", "name": "server"});
    let spec = serde_json::json!({"targetRefs": [to], "tcpRateLimit": limit});
    let spec: PolicySpec = serde_json::from_value(spec).unwrap();
    let mut service = fixture::service("server", "10.96.0.1", &[server]);
    service.endpoints[0].ports = vec![PortMapping { port: 80, target }];
    service.filters = spec.filters(&Policy).into_iter().map(|it| it.unwrap()).collect();
    let (workloads, services) = (vec![Arc::new(server.clone())], vec![Arc::new(service)]);
    layer4.world.publish(Mesh { workloads, services, ..Mesh::default() });
}

#[tokio::test]
async fn connections_beyond_a_limit_are_refused_and_bytes_beyond_one_wait() {
    let directory = tempfile::tempdir().unwrap();
    let server = fixture::workload("server", "127.0.0.1");
    let layer4 = layer4(&directory, &server);
    let sturdy = Arc::new(Fragile(AtomicBool::new(false)));
    let proxy = Proxy::start(&layer4, &server, sturdy, Vec::new()).unwrap();
    let application = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = application.local_addr().unwrap();
    let keys = serde_json::json!([{"type": "Identity"}]);
    let connections = serde_json::json!({"limit": 2, "interval": "1h", "keys": keys});
    let bytes = serde_json::json!({"limit": 100_000, "interval": "1s", "burst": 1000});
    let limit = serde_json::json!({"connections": connections, "bytes": bytes});
    limited(&layer4, &server, target.port(), limit);
    let request = ConnectRequest {
        authority: target.to_string(),
        forwarded_for: None,
        forwarded_host: None,
        baggage: None,
    };
    let sockets: Arc<dyn SocketFactory> = Arc::new(PlainSockets);
    let (layer4, sockets, request, address) = (&layer4, &sockets, &request, hbone(&proxy));
    let open = async |client: &str| {
        let key = TunnelKey {
            client: Identity::new("cluster.local", "shop", client),
            client_uid: client.into(),
            server: server.identity.clone(),
            address,
        };
        let opened = layer4.pool.open(&key, sockets, request);
        tokio::time::timeout(SOON, opened).await.unwrap().map_err(|error| error.reason)
    };
    let mut stream = open("client").await.expect("the first");
    let (mut taken, _) = application.accept().await.unwrap();
    assert!(open("client").await.is_ok(), "the second");
    // One too many; which says nothing of the workload.
    assert_eq!(open("client").await.err(), Some(Reason::Overflow));
    assert!(open("other").await.is_ok(), "of another client");
    let begun = tokio::time::Instant::now();
    let sending = tokio::spawn(async move {
        stream.write_all(&[1; 100_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        stream
    });
    let mut read = Vec::new();
    taken.read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len(), 100_000, "nothing is lost");
    // The burst and a chunk are there at once.
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    drop((sending.await.unwrap(), taken));
    proxy.stop(Duration::ZERO).await;
}

/// A pod with CAP_NET_ADMIN gives itself any address.
#[test]
fn a_workload_connects_from_its_own_addresses_only() {
    let mut client = fixture::workload("client", "10.0.0.1");
    client.addresses.push("fd00::1".parse().unwrap());
    for (claimed, counts) in [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fd00::1", "fd00::1"),
        ("10.99.0.1", "10.0.0.1"),
        ("::ffff:10.99.0.1", "10.0.0.1"),
        ("fd00::9", "fd00::1"),
        ("127.0.0.1", "10.0.0.1"),
    ] {
        let address = client.own_address(claimed.parse().unwrap());
        assert_eq!(address, counts.parse::<IpAddr>().unwrap(), "{claimed}");
    }
    client.addresses.clear();
    let unknown: IpAddr = "10.99.0.1".parse().unwrap();
    assert_eq!(client.own_address(unknown), unknown, "its addresses are not known yet");
}

#[tokio::test]
async fn a_connection_goes_to_the_thread_that_has_the_least_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let layer4 = layer4(&directory, &fixture::workload("web", "127.0.0.1"));
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let other = builder.worker_threads(1).thread_name("other").enable_all().build().unwrap();
    let threads = Threads::new(&layer4.pool, Handle::current(), &[other.handle().clone()]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = threads.accepting(0);
    assert_ne!(here, threads.accepting(1));
    let (mut client, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let waits = [0; 3].map(|_| tokio::spawn(std::future::pending::<()>()));
    let (mut stream, thread) = threads.place(accepted.unwrap().0, here).unwrap();
    assert_eq!(thread, threads.accepting(1));
    let read = threads.get(thread).runtime.spawn(async move {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        (byte, std::thread::current().name().map(str::to_owned))
    });
    client.as_mut().unwrap().write_all(b"x").await.unwrap();
    assert_eq!(read.await.unwrap(), (*b"x", Some("other".to_owned())));
    waits.iter().for_each(|it| it.abort());
    other.shutdown_background();
}
