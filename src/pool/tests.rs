use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::identity::{LocalIssuer, LocalIssuerSettings, StoreSettings, SystemClock, Trust};
use crate::sock::PlainSockets;
use crate::tunnel;

fn id(name: &str) -> Identity {
    Identity::new("cluster.local", "shop", name)
}

fn request() -> ConnectRequest {
    ConnectRequest {
        authority: "10.0.0.1:8080".into(),
        forwarded_for: None,
        forwarded_host: None,
        baggage: None,
    }
}

/// A pool of at most two streams per tunnel, and a real HBONE server that counts its connections.
struct Bench {
    pool: Pool,
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    certificates: Arc<CertificateStore>,
    sockets: Arc<dyn SocketFactory>,
    directory: tempfile::TempDir,
}

async fn bench(idle_timeout: Duration) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let settings = LocalIssuerSettings {
        directory: directory.path().join("ca"),
        trust_domain: "cluster.local".into(),
        lifetime: Duration::from_secs(3600),
    };
    let clock = Arc::new(SystemClock);
    let issuer = Arc::new(LocalIssuer::open(settings, clock.clone()).unwrap());
    let store = StoreSettings { trust: Trust::of("cluster.local"), metrics: Default::default() };
    let certificates = Arc::new(CertificateStore::new(issuer.clone(), store, clock));
    tokio::spawn(async move { issuer.follow(CancellationToken::new()).await });
    let running = certificates.clone();
    tokio::spawn(async move { running.run(CancellationToken::new()).await });
    let accepted = Arc::new(AtomicUsize::new(0));
    let address = serve(certificates.clone(), accepted.clone()).await;
    let connect_timeout = Duration::from_secs(5);
    let settings = PoolSettings {
        tunnels: config::PoolSettings { max_streams: 2, idle_timeout },
        connect_timeout,
        in_process: true,
        rooms: crate::base::Rooms::boundless(),
    };
    let pool = Pool::new(settings, certificates.clone(), Handle::current());
    Bench { pool, address, accepted, certificates, sockets: Arc::new(PlainSockets), directory }
}

/// Accepts every CONNECT and keeps the stream until the client lets go.
async fn serve(certificates: Arc<CertificateStore>, accepted: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            accepted.fetch_add(1, Ordering::Relaxed);
            let certificate = certificates.certificate(&id("server")).await.unwrap();
            tokio::spawn(async move {
                let accepting = TlsAcceptor::from(certificate.server_config()).accept(stream);
                let Ok(tls) = accepting.await else { return };
                let handler = |incoming: tunnel::Incoming| {
                    let stream = incoming.accept(None).unwrap();
                    tokio::spawn(async move {
                        _ = crate::sock::copy_bidirectional(stream, echo(), &Nothing).await;
                    });
                };
                _ = tunnel::serve(
                    tls,
                    CancellationToken::new(),
                    &crate::base::Room::boundless(),
                    handler,
                )
                .await;
            });
        }
    });
    address
}

struct Nothing;

impl crate::sock::Transferred for Nothing {
    fn sent(&self, _: usize) {}
    fn received(&self, _: usize) {}
}

/// The near end of a pipe whose far end sends everything back.
fn echo() -> crate::sock::Split<tokio::io::DuplexStream> {
    let (near, far) = tokio::io::duplex(1024);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(far);
        _ = tokio::io::copy(&mut read, &mut write).await;
        _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
    });
    crate::sock::Split(near)
}

impl Bench {
    fn key(&self, client: &str, server: &str) -> TunnelKey {
        let (client, client_uid) = (id(client), client.into());
        TunnelKey { client, client_uid, server: id(server), address: self.address }
    }

    async fn open(&self, client: &str) -> Carrier {
        self.try_open(&self.key(client, "server")).await.unwrap()
    }

    async fn try_open(&self, key: &TunnelKey) -> Result<Carrier, PoolError> {
        self.pool.open(key, &self.sockets, &request()).await
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_herd_dials_once_and_slots_are_used_again() {
    let bench = bench(Duration::from_secs(60)).await;
    let both = tokio::join!(bench.open("a"), bench.open("a"));
    assert_eq!(bench.accepted(), 1, "one dial for two who ask at once");
    let third = bench.open("a").await;
    assert_eq!(bench.accepted(), 2, "a tunnel holds two streams");
    drop((both, third));
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..10 {
        let _one = bench.open("a").await;
    }
    assert_eq!(bench.accepted(), 2, "slots are free again");
}

/// Roots come with certificates: when they change, nobody stays with what was vouched for by the old ones.
#[tokio::test]
async fn tunnels_of_a_replaced_certificate_end_with_their_last_stream() {
    let bench = bench(Duration::from_secs(60)).await;
    let mut open = bench.open("a").await;
    drop(bench.open("b").await);
    assert_eq!((bench.accepted(), bench.pool.tunnels()), (2, 2));
    let sweeping = tokio::spawn(bench.pool.clone().sweep(CancellationToken::new()));
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let file = bench.directory.path().join("ca/ca-cert.pem");
    let both = std::fs::read_to_string(&file).unwrap() + &params.self_signed(&key).unwrap().pem();
    std::fs::write(&file, both).unwrap();
    let drained = async {
        // Nobody opens a stream, and still they go.
        while bench.pool.tunnels() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), drained).await.expect("not drained");
    open.write_all(b"still here").await.unwrap();
    let mut back = [0; 10];
    open.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"still here");
    let _again = bench.open("a").await;
    assert_eq!(bench.accepted(), 3, "a new stream goes through a new tunnel");
    sweeping.abort();
}

/// Where the server does not trust our root: one dial, and the server's own word for it.
#[tokio::test]
async fn a_server_that_refuses_our_certificate_is_dialled_once() {
    let (bench, other) =
        (bench(Duration::from_secs(60)).await, bench(Duration::from_secs(60)).await);
    // We trust the other's root as well, it does not trust ours.
    let read =
        |of: &Bench| std::fs::read_to_string(of.directory.path().join("ca/ca-cert.pem")).unwrap();
    let mut changes = bench.certificates.subscribe();
    drop(bench.open("a").await);
    std::fs::write(bench.directory.path().join("ca/ca-cert.pem"), read(&bench) + &read(&other))
        .unwrap();
    let generation = bench.certificates.generation(&id("a"));
    let renewed = async {
        while bench.certificates.generation(&id("a")) == generation {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), renewed).await.unwrap();
    let error = bench.try_open(&other.key("a", "server")).await.err().unwrap();
    assert_eq!(error.reason, Reason::TlsFailure, "{error}");
    assert!(error.why.contains("the server broke it off: received fatal alert"), "{error}");
    assert_eq!(other.accepted(), 1);
}

#[tokio::test]
async fn clients_never_share_a_tunnel() {
    let bench = bench(Duration::from_secs(60)).await;
    let _both = tokio::join!(bench.open("a"), bench.open("b"));
    assert_eq!(bench.accepted(), 2);
    bench.pool.drain_workload("a");
    let _again = tokio::join!(bench.open("a"), bench.open("b"));
    assert_eq!(bench.accepted(), 3, "only the drained workload dials anew");
}

#[tokio::test]
async fn a_runtime_has_tunnels_of_its_own_and_the_pool_knows_them_all() {
    let bench = bench(Duration::from_secs(60)).await;
    let worker = bench.pool.on(Handle::current());
    let key = bench.key("a", "server");
    let of_worker = async || worker.open(&key, &bench.sockets, &request()).await.unwrap();
    let (first, second) = (bench.open("a").await, of_worker().await);
    assert_eq!((bench.accepted(), bench.pool.tunnels(), bench.pool.streams()), (2, 2, 2));
    let (third, fourth) = (bench.open("a").await, of_worker().await);
    assert_eq!((bench.accepted(), worker.tunnels(), worker.streams()), (2, 2, 4), "both shared");
    bench.pool.drain_workload("a");
    assert_eq!(bench.pool.tunnels(), 0, "no tunnel of the workload takes a stream");
    let fifth = of_worker().await;
    assert_eq!((bench.accepted(), bench.pool.tunnels()), (3, 1));
    drop((first, second, third, fourth, fifth, worker));
    assert_eq!(bench.pool.tunnels(), 0, "the runtime's tunnels are gone with it");
}

#[tokio::test]
async fn a_server_that_is_somebody_else_is_refused() {
    let bench = bench(Duration::from_secs(60)).await;
    let error = bench.try_open(&bench.key("a", "other")).await.err().unwrap();
    assert_eq!(error.reason, Reason::TlsFailure);
    assert!(error.why.contains("spiffe://cluster.local/ns/shop/sa/other"), "{error}");
}

#[tokio::test]
async fn whoever_waited_for_a_dial_gets_its_failure() {
    let bench = bench(Duration::from_secs(60)).await;
    let mut key = bench.key("a", "server");
    key.address = "127.0.0.1:1".parse().unwrap();
    let started = std::time::SystemTime::now();
    let all = futures_util::future::join_all((0..50).map(|_| bench.try_open(&key))).await;
    assert!(all.iter().all(|one| {
        one.as_ref().err().is_some_and(|error| error.reason == Reason::ConnectFailure)
    }));
    assert!(started.elapsed().unwrap() < Duration::from_secs(5));
}

#[tokio::test]
async fn idle_tunnels_are_swept_and_busy_ones_are_not() {
    let bench = bench(Duration::from_millis(200)).await;
    tokio::spawn(bench.pool.clone().sweep(CancellationToken::new()));
    let _held = bench.open("a").await;
    drop(bench.open("b").await);
    assert_eq!(bench.pool.tunnels(), 2);
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(bench.pool.tunnels(), 1);
}

/// A workload of this node that answers every connection with one text, or refuses it.
struct Local {
    identity: Identity,
    answer: Result<&'static str, http::StatusCode>,
    seen: parking_lot::Mutex<Vec<(Identity, SocketAddr)>>,
}

impl LocalServer for Local {
    fn proves(&self, identity: &Identity) -> bool {
        self.identity == *identity
    }

    fn connect_local(
        self: Arc<Self>,
        incoming: tunnel::Incoming,
        client: Identity,
        peer: SocketAddr,
    ) {
        self.seen.lock().push((client, peer));
        match self.answer {
            Ok(text) => {
                let mut stream = incoming.accept(None).unwrap();
                tokio::spawn(async move {
                    stream.write_all(text.as_bytes()).await.unwrap();
                    stream.shutdown().await.unwrap();
                });
            }
            Err(status) => incoming.refuse(status),
        }
    }
}

impl Bench {
    fn local(
        &self,
        address: SocketAddr,
        answer: Result<&'static str, http::StatusCode>,
    ) -> Arc<Local> {
        let local = Arc::new(Local { identity: id("server"), answer, seen: Default::default() });
        let weak: Weak<Local> = Arc::downgrade(&local);
        self.pool.add_local(address, weak);
        local
    }
}

#[tokio::test]
async fn a_workload_of_this_node_is_reached_without_a_tunnel() {
    let bench = bench(Duration::from_secs(60)).await;
    let local = bench.local(bench.address, Ok("hello"));
    for _ in 0..3 {
        let mut stream = bench.open("a").await;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }
    assert_eq!(bench.pool.tunnels(), 0);
    assert_eq!(bench.accepted(), 1, "one real connection shows that the network permits it");
    let (client, peer) = local.seen.lock()[0].clone();
    assert_eq!((client, peer.ip()), (id("a"), "127.0.0.1".parse().unwrap()));
    let other = bench.try_open(&bench.key("a", "other")).await.err().unwrap();
    assert_eq!(other.reason, Reason::TlsFailure, "another identity takes the tunnel's way");
    let weak: Weak<Local> = Arc::downgrade(&local);
    let weak: Weak<dyn LocalServer> = weak;
    bench.pool.remove_local(bench.address, &weak);
    let _tunnelled = bench.open("a").await;
    assert_eq!((bench.pool.tunnels(), local.seen.lock().len()), (1, 3));
}

#[tokio::test]
async fn what_the_network_forbids_is_forbidden_within_the_process_too() {
    let bench = bench(Duration::from_secs(60)).await;
    let closed: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let local = bench.local(closed, Ok("hello"));
    let key = TunnelKey { address: closed, ..bench.key("a", "server") };
    let error = bench.try_open(&key).await.err().unwrap();
    assert_eq!(error.reason, Reason::ConnectFailure, "{error}");
    assert!(local.seen.lock().is_empty());
}

#[tokio::test]
async fn a_refusal_within_the_process_is_a_tunnels_refusal() {
    use http::StatusCode;
    for (status, expected) in [
        (StatusCode::UNAUTHORIZED, Reason::Denied),
        (StatusCode::BAD_REQUEST, Reason::BadRequest),
        (StatusCode::SERVICE_UNAVAILABLE, Reason::ConnectFailure),
        // What a client has used up is no failure of the endpoint, which would be ejected for others.
        (StatusCode::TOO_MANY_REQUESTS, Reason::Overflow),
    ] {
        let bench = bench(Duration::from_secs(60)).await;
        let _local = bench.local(bench.address, Err(status));
        let error = bench.try_open(&bench.key("a", "server")).await.err().unwrap();
        assert_eq!(error.reason, expected, "{error}");
    }
}
