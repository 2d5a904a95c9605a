//! Endpoints on loopback, outside of the mesh; what is refused by an endpoint in it is tested with the pool's tunnels
//! (`l7/tests/tunnelled.rs`).

use std::io;
use std::net::IpAddr;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket};

use super::*;
use crate::config;
use crate::gate::Way;
use crate::identity::{
    CertificateStore, LocalIssuer, LocalIssuerSettings, StoreSettings, SystemClock, Trust,
};
use crate::model::*;
use crate::pool::PoolSettings;
use crate::sock::{Connecting, PlainSockets};
use crate::traffic::{self, Destination, Limits, OutlierDetection};
use crate::world::World;
use crate::world::fixture::{self, Fixture, bound_to, key, policy, service, waypoint, workload};

mod lent;

const SOON: Duration = Duration::from_secs(5);
/// How long what goes on is watched.
const A_MOMENT: Duration = Duration::from_millis(50);
const VIP: &str = "10.96.0.1:80";

/// Remembers who was dialled, and lends nobody's address.
#[derive(Default)]
struct Recording(Mutex<Vec<(SocketAddr, Option<IpAddr>)>>);

impl Recording {
    fn dialled(&self) -> Vec<SocketAddr> {
        self.0.lock().iter().map(|(to, _)| *to).collect()
    }
}

impl Connecting for Recording {
    fn socket(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpSocket> {
        self.0.lock().push((to, from));
        match from {
            Some(_) => Err(io::ErrorKind::PermissionDenied.into()),
            None => PlainSockets.socket(to, None),
        }
    }
}

struct Bench {
    store: Arc<WorldStore>,
    reach: Reach,
    client: Workload,
    recording: Arc<Recording>,
    sockets: Arc<dyn SocketFactory>,
}

impl Bench {
    fn new(mesh: Fixture) -> Self {
        Self::with_patience(mesh, SOON)
    }

    /// With a timeout for plain connections.
    fn with_patience(mesh: Fixture, connect_timeout: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = LocalIssuerSettings {
            directory: directory.path().join("ca"),
            trust_domain: "cluster.local".into(),
            lifetime: SOON,
        };
        let clock = Arc::new(SystemClock);
        let issuer = Arc::new(LocalIssuer::open(settings, clock.clone()).unwrap());
        let trust = Trust::of("cluster.local");
        let certificates = StoreSettings { trust, metrics: Default::default() };
        let settings = PoolSettings {
            tunnels: config::PoolSettings { max_streams: 1, idle_timeout: SOON },
            connect_timeout: SOON,
            in_process: false,
            rooms: crate::base::Rooms::boundless(),
        };
        let certificates = Arc::new(CertificateStore::new(issuer, certificates, clock));
        let pool = Pool::new(settings, certificates, tokio::runtime::Handle::current());
        let store = fixture::store();
        store.publish(mesh.mesh);
        let resolver = Resolver::new("/etc/resolv.conf".into(), store.clone());
        let settings = ReachSettings { connect_timeout, cluster: "Kubernetes".into() };
        let reach = Reach::new(&store, &pool, &resolver, settings);
        let recording = Arc::new(Recording::default());
        let sockets = recording.clone();
        Self { store, reach, client: workload("client", "10.0.9.1"), recording, sockets }
    }

    fn from(&self) -> Downstream<'_> {
        let address = "10.0.9.1:4000".parse().unwrap();
        Downstream { client: &self.client, address, sockets: &self.sockets, server_name: None }
    }

    fn world(&self) -> Arc<World> {
        self.store.snapshot()
    }

    async fn endpoint(&self, service: Asked<'_>) -> Result<Reached, Unreached> {
        self.reach.endpoint(&self.from(), &ask(service)).await
    }
}

fn ask(service: Asked<'_>) -> Ask<'_> {
    let dialled = VIP.parse().unwrap();
    Ask { service, dialled, routed: None, subset: None, claim: None, lent: None }
}

/// A service with endpoints outside of the mesh, at this port.
fn outside(addresses: &[&str], port: u16) -> Service {
    let pods: Vec<_> = addresses.iter().map(|address| workload("pod", address)).collect();
    let mut echo = service("echo", "10.96.0.1", &pods.iter().collect::<Vec<_>>());
    for endpoint in &mut echo.endpoints {
        endpoint.workload = None;
        endpoint.ports = vec![PortMapping { port: 80, target: port }];
    }
    echo
}

/// The same behind a waypoint.
fn guarded(addresses: &[&str], port: u16) -> Fixture {
    let echo = Service { waypoint: bound_to("wp"), ..outside(addresses, port) };
    Fixture::default().service(echo).waypoint(waypoint("wp"))
}

/// Refuses all connections to the service.
fn denying(mesh: Fixture) -> Fixture {
    let scope = Scope::Targets(vec![PolicyTarget::Service("echo".into())]);
    mesh.policy(policy("nobody", Action::Deny, scope, vec![Rule::default()]))
}

/// A port that 127.0.0.1 listens on, and no other address.
async fn listening() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn another_endpoint_is_tried_until_one_takes_the_connection() {
    let (_listener, port) = listening().await;
    for _ in 0..8 {
        let mesh = Fixture::default().service(outside(&["127.0.0.1", "127.0.0.2"], port));
        let bench = Bench::new(mesh);
        let echo = bench.world().service(&key("echo")).unwrap().clone();
        let reached = bench.endpoint(Asked::Decided(&echo)).await.unwrap();
        assert_eq!(reached.picked.address, SocketAddr::from(([127, 0, 0, 1], port)));
        assert!(reached.permit.is_none(), "nothing guards it");
        let busy = |address: &str| {
            let world = bench.world();
            world.load_of(None, address.parse().unwrap()).unwrap().in_flight()
        };
        assert_eq!((busy("127.0.0.1"), busy("127.0.0.2")), (1, 0));
        drop(reached);
        assert_eq!(busy("127.0.0.1"), 0);
    }
}

#[tokio::test]
async fn three_endpoints_are_tried_and_no_more() {
    let (_listener, port) = listening().await;
    let all = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"];
    for (addresses, tried) in [(&all[..], 3), (&all[..2], 2), (&all[..0], 0)] {
        let bench = Bench::new(Fixture::default().service(outside(addresses, port)));
        let unreached = bench.endpoint(Asked::Present(&key("echo"))).await.err().unwrap();
        let mut dialled = bench.recording.dialled();
        let last = dialled.last().copied();
        dialled.sort();
        dialled.dedup();
        assert_eq!(dialled.len(), tried, "each was another one");
        assert_eq!(unreached.picked.map(|picked| picked.address), last);
        let reason = if tried > 0 { Reason::ConnectFailure } else { Reason::NoHealthyUpstream };
        assert_eq!(unreached.failure.reason, reason, "{}", unreached.failure);
    }
}

fn racing(addresses: &[&str], port: u16) -> Service {
    let echo = outside(addresses, port);
    Service { balancing: Balancing { races: true, ..echo.balancing }, ..echo }
}

/// An address that answers no SYN: its queue of connections is full.
async fn silent(address: SocketAddr) -> (TcpListener, Vec<tokio::net::TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(address).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut filling = Vec::new();
    let answered = Duration::from_millis(500);
    while let Ok(Ok(stream)) =
        tokio::time::timeout(answered, tokio::net::TcpStream::connect(address)).await
    {
        filling.push(stream);
    }
    (listener, filling)
}

/// Without a race the client waits as long as one address is silent, which is longer than the test.
#[tokio::test]
async fn a_silent_address_delays_no_client_where_addresses_race() {
    let (_listener, port) = listening().await;
    let _silent = silent(SocketAddr::from(([127, 0, 0, 2], port))).await;
    for _ in 0..6 {
        let mesh = Fixture::default().service(racing(&["127.0.0.1", "127.0.0.2"], port));
        let bench = Bench::with_patience(mesh, Duration::from_secs(3600));
        let echo = bench.world().service(&key("echo")).unwrap().clone();
        let racing = bench.endpoint(Asked::Decided(&echo));
        let reached = tokio::time::timeout(Duration::from_secs(60), racing).await;
        let reached = reached.expect("the other address answers").unwrap();
        assert_eq!(reached.picked.address, SocketAddr::from(([127, 0, 0, 1], port)));
        // The other connection is closed, and nothing of it is left.
        let busy = bench.world().load_of(None, "127.0.0.2".parse().unwrap()).unwrap().in_flight();
        assert_eq!(busy, 0);
    }
}

#[tokio::test]
async fn a_race_tries_six_addresses_and_no_more() {
    let (_listener, port) = listening().await;
    let all: Vec<String> = (2..12).map(|last| format!("127.0.0.{last}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let with_one: Vec<&str> = all[..5].iter().copied().chain(["127.0.0.1"]).collect();
    let bench = Bench::new(Fixture::default().service(racing(&with_one, port)));
    let reached = bench.endpoint(Asked::Present(&key("echo"))).await.unwrap();
    assert_eq!(reached.picked.address, SocketAddr::from(([127, 0, 0, 1], port)));
    let bench = Bench::new(Fixture::default().service(racing(&all, port)));
    let unreached = bench.endpoint(Asked::Present(&key("echo"))).await.err().unwrap();
    assert_eq!(unreached.failure.reason, Reason::ConnectFailure);
    let mut dialled = bench.recording.dialled();
    dialled.sort();
    dialled.dedup();
    assert_eq!(dialled.len(), 6);
}

#[tokio::test]
async fn nobody_is_dialled_in_a_race_who_is_denied() {
    let (_listener, port) = listening().await;
    let echo = Service { waypoint: bound_to("wp"), ..racing(&["127.0.0.1", "127.0.0.2"], port) };
    let mesh = denying(Fixture::default().service(echo).waypoint(waypoint("wp")));
    let bench = Bench::new(mesh);
    let unreached = bench.endpoint(Asked::Present(&key("echo"))).await.err().unwrap();
    assert_eq!(unreached.failure.reason, Reason::Denied);
    assert_eq!(bench.recording.dialled(), []);
}

/// Connections of layer 4 are heard of, too.
#[tokio::test]
async fn an_endpoint_that_refuses_connections_is_ejected() {
    let (_listener, port) = listening().await;
    let mut echo = outside(&["127.0.0.1", "127.0.0.2"], port);
    let outliers = OutlierDetection { consecutive_errors: 2, ..OutlierDetection::default() };
    let policy = traffic::Policy { outliers: Some(outliers), ..traffic::Policy::default() };
    let destination = Arc::new(Destination::new("Service shop/echo, port 80".into(), policy));
    echo.traffic.set(None, [(80, destination.clone())].into());
    let bench = Bench::new(Fixture::default().service(echo));
    let asked = key("echo");
    let down = SocketAddr::from(([127, 0, 0, 2], port));
    // Whichever is selected first, the client is connected.
    while destination.ejected().is_none() {
        bench.endpoint(Asked::Present(&asked)).await.unwrap();
    }
    let dials = |bench: &Bench| bench.recording.dialled().iter().filter(|to| **to == down).count();
    assert_eq!(dials(&bench), 2);
    for _ in 0..20 {
        bench.endpoint(Asked::Present(&asked)).await.unwrap();
    }
    assert_eq!(dials(&bench), 2, "it gets no connection any more");
}

/// So that its queue does not fill up.
fn accept_all(listener: TcpListener) {
    tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
}

/// The same endpoint is probed by one connection when its time has come, and gets more when that is accepted.
#[tokio::test]
async fn one_connection_probes_an_endpoint_that_was_ejected() {
    let (listener, port) = listening().await;
    accept_all(listener);
    let mut echo = outside(&["127.0.0.1", "127.0.0.2"], port);
    let outliers = OutlierDetection {
        consecutive_errors: 2,
        interval: Duration::from_millis(10),
        base_ejection_time: Duration::from_millis(500),
        ..OutlierDetection::default()
    };
    let balancer = Some(traffic::Balancer::RoundRobin);
    let policy =
        traffic::Policy { outliers: Some(outliers), balancer, ..traffic::Policy::default() };
    let destination = Arc::new(Destination::new("Service shop/echo, port 80".into(), policy));
    echo.traffic.set(None, [(80, destination.clone())].into());
    let bench = Bench::new(Fixture::default().service(echo));
    let asked = key("echo");
    let down = SocketAddr::from(([127, 0, 0, 2], port));
    let dials = || bench.recording.dialled().iter().filter(|to| **to == down).count();
    let until = async |done: &dyn Fn() -> bool| {
        let connections = async {
            while !done() {
                bench.endpoint(Asked::Present(&asked)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), connections).await.unwrap();
    };
    let is_ejected = || destination.ejected().is_some();
    until(&is_ejected).await;
    assert_eq!(dials(), 2);
    // The one that probes it goes to the other endpoint when that fails.
    until(&|| dials() > 2).await;
    assert!(is_ejected());
    assert_eq!(dials(), 3);
    accept_all(TcpListener::bind(down).await.unwrap());
    until(&|| dials() >= 10).await;
    assert!(!destination.are_some_out());
}

#[tokio::test]
async fn no_more_connections_are_open_than_the_policy_says() {
    let (_listener, port) = listening().await;
    let mut echo = outside(&["127.0.0.1"], port);
    let limits = Some(Box::new(Limits { max_connections: Some(1), ..Limits::default() }));
    let policy = traffic::Policy { limits, ..traffic::Policy::default() };
    let destination = Arc::new(Destination::new("Service shop/echo, port 80".into(), policy));
    echo.traffic.set(None, [(80, destination)].into());
    let bench = Bench::new(Fixture::default().service(echo));
    let asked = key("echo");
    let held = bench.endpoint(Asked::Present(&asked)).await.unwrap();
    let refused = bench.endpoint(Asked::Present(&asked)).await.err().unwrap();
    assert_eq!(refused.failure.reason, Reason::Overflow);
    assert_eq!(bench.recording.dialled().len(), 1);
    drop(held);
    assert!(bench.endpoint(Asked::Present(&asked)).await.is_ok());
}

#[test]
fn what_follows_a_failure_depends_on_how_the_attempt_ended() {
    let four = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"];
    for (how, of_four, of_one) in [
        (Ended::Unreached, 3, 1),
        // It tells nothing about the endpoint, but is an attempt.
        (Ended::Stale, 3, 3),
        (Ended::Denied, 1, 1),
        (Ended::Broken, 1, 1),
        (Ended::TimedOut, 1, 1),
    ] {
        for (addresses, expected) in [(&four[..], of_four), (&four[..1], of_one)] {
            let world = Fixture::default().service(outside(addresses, 80)).build();
            assert_eq!(attempts_that_end(&world, how), expected, "{how:?} {addresses:?}");
        }
    }
}

/// How many attempts at the service are made, when all of them end like this.
fn attempts_that_end(world: &World, how: Ended) -> usize {
    let echo = world.service(&key("echo")).unwrap();
    let (client, address) = (workload("client", "10.0.9.1"), "10.0.9.1:4000".parse().unwrap());
    let sockets: Arc<dyn SocketFactory> = Arc::new(PlainSockets);
    let from = Downstream { client: &client, address, sockets: &sockets, server_name: None };
    let (mut attempts, mut made) = (Attempts::default(), 0);
    while let Some(mut picked) =
        attempts.next(world, from.caller(), (echo, 80), VIP.parse().unwrap())
    {
        made += 1;
        let goes_on = attempts.failed(&mut picked, how);
        assert!(picked.in_flight.is_none(), "it is not busy any more");
        if !goes_on {
            break;
        }
    }
    made
}

#[tokio::test]
async fn where_nobody_judges_at_the_other_end_this_half_does() {
    let (_listener, port) = listening().await;
    for (mesh, permitted) in
        [(guarded(&["127.0.0.1"], port), true), (denying(guarded(&["127.0.0.1"], port)), false)]
    {
        let bench = Bench::new(mesh);
        match bench.endpoint(Asked::Present(&key("echo"))).await {
            Ok(reached) => assert!(permitted && reached.permit.is_some()),
            Err(unreached) => {
                assert!(!permitted, "{}", unreached.failure);
                assert_eq!(unreached.failure.reason, Reason::Denied);
                assert!(unreached.picked.is_some() && bench.recording.dialled().is_empty());
            }
        }
    }
    let bench = Bench::new(denying(guarded(&["127.0.0.1"], port)));
    let world = bench.world();
    let echo = world.service(&key("echo")).unwrap();
    let pod = workload("pod", "127.0.0.1");
    let way = |workload| Way {
        addressed: echo,
        port: 80,
        route: None,
        delegate: None,
        backend: (echo, 80),
        workload,
        destination: SocketAddr::from(([127, 0, 0, 1], port)),
    };
    assert!(judge(&world, &bench.from(), &way(None), None).is_err());
    let captured = judge(&world, &bench.from(), &way(Some(&pod)), None);
    assert!(captured.unwrap().is_none(), "its own agent judges");
}

#[tokio::test]
async fn live_connections_are_judged_again_after_a_change() {
    let (_listener, port) = listening().await;
    let open = || guarded(&["127.0.0.1"], port);
    let echo = key("echo");
    for (changed, reason) in [
        (denying(open()), Reason::Denied),
        (Fixture::default(), Reason::NoHealthyUpstream),
        (Fixture { mesh: Mesh { waypoints: Vec::new(), ..open().mesh } }, Reason::Denied),
    ] {
        let bench = Bench::new(open());
        let asked = Asked::Present(&echo);
        let reached = bench.endpoint(asked).await.unwrap();
        let (from, ask) = (bench.from(), ask(asked));
        let mut until =
            std::pin::pin!(bench.reach.until_denied(&from, &ask, (&reached.picked, None)));
        tokio::select! {
            biased;
            denied = &mut until => panic!("{denied}"),
            () = tokio::task::yield_now() => {}
        }
        bench.store.publish(changed.mesh);
        let denied = tokio::time::timeout(SOON, until).await.unwrap();
        assert_eq!(denied.reason, reason, "{denied}");
    }
}

/// A wish that traffic to the service be encrypted comes while a connection is open: to where no agent judges, and through
/// a tunnel.
#[tokio::test]
async fn live_connections_end_that_are_wanted_encrypted() {
    use Demand::{Impossible, Mesh, Nothing};
    let refused = || Impossible("x".into());
    let destination: SocketAddr = "10.0.0.7:8080".parse().unwrap();
    let captured = Some(Arc::new(Workload { enrolled: true, ..workload("pod", "10.0.0.7") }));
    for (clients, demand, workload, ends) in [
        (None, refused(), None, true),
        (None, refused(), captured.clone(), true),
        (None, Mesh, None, true),
        (None, Mesh, captured.clone(), false),
        (None, Nothing, None, false),
        // Another namespace's object is a matter of that namespace's clients.
        (Some("evil"), refused(), None, false),
    ] {
        let bench = Bench::new(Fixture::default().service(outside(&["127.0.0.1"], 80)));
        let echo = bench.world().service(&key("echo")).unwrap().clone();
        let (from, ask) = (bench.from(), ask(Asked::Decided(&echo)));
        let to = Picked::dialled(destination, workload.clone());
        let mut until = std::pin::pin!(bench.reach.until_denied(&from, &ask, (&to, None)));
        let open = tokio::time::timeout(A_MOMENT, until.as_mut()).await;
        assert!(open.is_err(), "nothing is wanted yet");
        let mut wanted = (*echo).clone();
        let wish = Wish {
            by: "DestinationRule echo".into(),
            rest: demand.clone(),
            ports: [].into(),
            subsets: [].into(),
        };
        wanted.encryption.add(clients.map(Str::from).as_ref(), wish.into());
        bench.store.publish(Fixture::default().service(wanted).mesh);
        let patience = if ends { SOON } else { A_MOMENT };
        let ended = tokio::time::timeout(patience, until).await.ok();
        let ended = ended.map(|failure| failure.reason);
        let expected = ends.then_some(Reason::Unencrypted);
        assert_eq!(ended, expected, "{clients:?} {demand:?} {}", workload.is_some());
    }
}

/// A ServiceEntry for all addresses of a network, on port 80.
fn entry(name: &str, network: &str) -> Service {
    let mut entry = service(name, "10.96.0.1", &[]);
    (entry.entry, entry.resolution) = (Some(name.into()), Resolution::Dialled);
    entry.hostname = format!("{name}.example").into();
    entry.vips.clear();
    entry.networks = vec![network.parse().unwrap()];
    entry
}

/// Whatever takes a destination out of the registry, or the client under REGISTRY_ONLY, and in whichever order.
#[tokio::test]
async fn no_connection_outlives_its_place_in_the_registry() {
    let mesh = |services: &[&Service], registry_only: bool| {
        let client = Workload { registry_only, ..workload("client", "10.0.9.1") };
        let all = services.iter().map(|service| (*service).clone());
        all.fold(Fixture::default().workload(client), Fixture::service).mesh
    };
    let (here, there) = (&entry("ext", "198.51.100.0/24"), &entry("ext", "203.0.113.0/24"));
    let hidden =
        &Service { visibility: Visibility::Namespaces(vec!["else".into()]), ..here.clone() };
    let front = &entry("front", "192.0.2.0/24");
    let mut echo = outside(&["127.0.0.1"], 80);
    echo.ports[0].port = 8080;
    let (dialled, other_port) = ("198.51.100.7:80", "198.51.100.7:81");
    // The service, what was dialled, whether a route led on from there to port 8080; the states, with the last of which it ends.
    for (what, service, dialled, routed, states) in [
        ("the policy", here, other_port, false, vec![mesh(&[here], false), mesh(&[here], true)]),
        (
            "the entry, then the policy",
            here,
            dialled,
            false,
            vec![mesh(&[here], false), mesh(&[], false), mesh(&[], true)],
        ),
        ("the entry", here, dialled, false, vec![mesh(&[here], true), mesh(&[], true)]),
        ("its network", here, dialled, false, vec![mesh(&[here], true), mesh(&[there], true)]),
        ("its visibility", here, dialled, false, vec![mesh(&[here], true), mesh(&[hidden], true)]),
        (
            "the entry that a route leads on from",
            &echo,
            "192.0.2.7:80",
            true,
            vec![mesh(&[front, &echo], true), mesh(&[&echo], true)],
        ),
    ] {
        let mut states = states.into_iter().peekable();
        let bench = Bench::new(Fixture { mesh: states.next().unwrap() });
        let service = Arc::new(service.clone());
        let dialled: SocketAddr = dialled.parse().unwrap();
        let (from, to) = (bench.from(), Picked::dialled(dialled, None));
        let port = if routed { 8080 } else { dialled.port() };
        let ask = Ask {
            service: Asked::Decided(&service),
            dialled: SocketAddr::new(dialled.ip(), port),
            routed: routed.then_some(dialled.port()),
            subset: None,
            claim: None,
            lent: None,
        };
        let mut until = std::pin::pin!(bench.reach.until_denied(&from, &ask, (&to, None)));
        loop {
            let open = tokio::time::timeout(A_MOMENT, until.as_mut()).await;
            assert!(open.is_err(), "{what}: cut too early, {open:?}");
            bench.store.publish(states.next().unwrap());
            if states.peek().is_none() {
                break;
            }
        }
        let cut = tokio::time::timeout(SOON, until).await;
        let cut = cut.unwrap_or_else(|_| panic!("{what}: still open"));
        assert_eq!(cut.reason, Reason::NotRegistered, "{what}: {cut}");
    }
}

#[tokio::test]
async fn an_application_is_reached_without_the_clients_address_where_that_may_not_be_borrowed() {
    let (_listener, port) = listening().await;
    let (recording, to) = (Recording::default(), SocketAddr::from(([127, 0, 0, 1], port)));
    let client = Some("10.0.9.1".parse().unwrap());
    connect_application(&recording, to, client, SOON).await.unwrap();
    assert_eq!(*recording.0.lock(), [(to, client), (to, None)]);
    let closed = SocketAddr::from(([127, 0, 0, 2], port));
    let error = connect_application(&recording, closed, None, SOON).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(recording.0.lock().len(), 3, "what fails otherwise is not tried twice");
}
