//! A tenant's churn: what open connections of others cost while one namespace changes a route ten times a second. The same
//! time is measured with nothing, with changes and no connections, with connections and no changes, and with both; what the
//! connections add to the changes is what their owners pay for somebody else. Then another tenant's requests are timed, without
//! changes and with them.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::time::Instant;

use super::lab::Bench;
use super::measure::Client;
use super::record::case::Case;
use super::sides::{Aim, service};
use super::usage::Usage;

/// Where the connections end.
const PORT: u16 = 9900;
/// Changes a second.
const RATE: u32 = 10;
/// Descriptors that a process needs besides those of connections: both ends of each are in this one.
const SPARE: u64 = 4096;
/// After the last connection is open: certificates, buffers and timers come to rest.
const REST: Duration = Duration::from_secs(3);

/// The namespace that changes something: a service with a waypoint, whose route is another one each time; and a route of its
/// own for the service that the others' connections are addressed to.
const EVIL: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: evil, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: evil}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: evil}
spec: {clusterIP: 10.96.9.9, clusterIPs: [10.96.9.9], ports: [{name: http, port: 80}]}
";

/// Both ends of connections from the client's pod to the server's; all end when dropped.
struct Open {
    _clients: Vec<TcpStream>,
    _servers: Vec<TcpStream>,
}

/// Allows this process, and the agents that it starts, so many descriptors.
pub fn allow(connections: usize) -> Result<()> {
    let wanted = 2 * connections as u64 + SPARE;
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|it| it >= wanted) {
        return Ok(());
    }
    let limit = Some(now.maximum.unwrap_or(wanted).max(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).with_context(|| {
        format!(
            "{connections} connections take {wanted} descriptors: run this as root, or take fewer"
        )
    })
}

/// Settings of agents that carry so many connections of one pod.
pub fn settings(connections: usize) -> String {
    let most = connections + 1024;
    format!("[layer4]\nmax_connections = {most}\nmax_peer_connections = {most}\n")
}

pub fn run(bench: &mut Bench, connections: usize, seconds: u64) -> Result<()> {
    bench.lab.manifests.write("evil.yaml", EVIL)?;
    bench.lab.manifests.write("route.yaml", &route(0))?;
    let nothing = measure(bench, seconds, false)?;
    let changes = measure(bench, seconds, true)?;
    let open = open(bench, connections)?;
    std::thread::sleep(REST);
    let connected = measure(bench, seconds, false)?;
    let both = measure(bench, seconds, true)?;
    let requests = [false, true].map(|change| requests(bench, seconds, change));
    let [still, changing] = requests;
    let (still, changing) = (still?, changing?);
    drop(open);
    let of_changes = changes.processor - nothing.processor;
    let beside = both.processor - connected.processor;
    let report = json!({
        "connections": connections, "changes_per_second": RATE, "seconds": seconds,
        "agents_per_second": {
            "nothing": nothing.per_second(seconds),
            "changes_without_connections": changes.per_second(seconds),
            "connections_without_changes": connected.per_second(seconds),
            "both": both.per_second(seconds),
        },
        // What the connections' owners pay for somebody else's changes.
        "processor_seconds_per_second_added_by_the_connections": (beside - of_changes) / seconds as f64,
        "others_requests_p99_microseconds": { "without_changes": still, "with_changes": changing },
        "others_requests_p99_ratio": changing / still,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

/// What both agents used in a time.
struct Used {
    /// In seconds.
    processor: f64,
    wakes: u64,
}

impl Used {
    fn per_second(&self, seconds: u64) -> serde_json::Value {
        let seconds = seconds as f64;
        json!({ "processor_seconds": self.processor / seconds, "wakes": self.wakes as f64 / seconds })
    }
}

/// What both agents use in that time.
fn measure(bench: &mut Bench, seconds: u64, change: bool) -> Result<Used> {
    let agents = bench.agents();
    let before = Usage::of(&agents)?;
    pass(bench, seconds, change)?;
    let used = Usage::of(&agents)?.since(&before);
    Ok(Used { processor: used.cpu, wakes: used.switches })
}

/// The 99th percentile of requests at a fixed rate through the waypoint of the tenant that changes nothing, in microseconds.
fn requests(bench: &mut Bench, seconds: u64, change: bool) -> Result<f64> {
    let case = Case::named("rate-1k").context("a case")?;
    let aim = Aim { pod: "client", to: service(&bench.lab, "bench", "bare")? };
    let mut client = Client::start(bench, false, case, &aim, seconds)?;
    pass(bench, seconds, change)?;
    client.outcome()?.p99.context("a time")
}

/// Lets the time go by, with or without changes.
fn pass(bench: &mut Bench, seconds: u64, change: bool) -> Result<()> {
    let begun = Instant::now();
    for turn in 1..=u32::try_from(seconds)? * RATE {
        if change {
            bench.lab.manifests.write("route.yaml", &route(turn))?;
        }
        let due = Duration::from_secs(1) * turn / RATE;
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    Ok(())
}

fn route(turn: u32) -> String {
    let of = |name: &str, namespace: &str, backend: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{name: {name}, namespace: evil}}\nspec:\n  \
             parentRefs: [{{group: '', kind: Service, name: {backend}, namespace: {namespace}}}]\n  rules:\n  \
             - matches: [{{path: {{type: PathPrefix, value: /turn-{turn}}}}}]\n    \
             backendRefs: [{{name: {backend}, namespace: {namespace}, port: 9003}}]\n---\n"
        )
    };
    of("own", "evil", "shop") + &of("consumer", "bench", "bare")
}

/// Opens them one after the other; each has carried a byte both ways.
fn open(bench: &Bench, count: usize) -> Result<Open> {
    let client = bench.lab.pod("client")?.attachment.namespace.clone();
    let server = bench.lab.pod("server")?.attachment.namespace.clone();
    let to = SocketAddr::new(bench.lab.address("server")?, PORT);
    for namespace in [&client, &server] {
        namespace.set("ipv4/ip_local_port_range", "1024 65535")?;
        // Not those that the agent listens on.
        namespace.set("ipv4/ip_local_reserved_ports", "9000-9900,15000-15100")?;
    }
    let listener = server.run(|| TcpListener::bind(("0.0.0.0", PORT)))??;
    let accepting = std::thread::spawn(move || accept(&listener, count));
    let clients = client.run(|| (0..count).map(|_| connect(to)).collect::<Result<Vec<_>>>())??;
    let servers = accepting.join().map_err(|_| anyhow!("the server panicked"))??;
    ensure!(servers.len() == count);
    Ok(Open { _clients: clients, _servers: servers })
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

fn accept(listener: &TcpListener, count: usize) -> Result<Vec<TcpStream>> {
    let answered = listener.incoming().take(count).map(|stream| -> Result<TcpStream> {
        let mut stream = stream?;
        stream.read_exact(&mut [0])?;
        stream.write_all(b"x")?;
        Ok(stream)
    });
    answered.collect()
}

/// Whether the machine lets one process have that many descriptors at all.
pub fn check(connections: usize) -> Result<()> {
    let most: u64 = fs::read_to_string("/proc/sys/fs/nr_open")?.trim().parse()?;
    ensure!(2 * connections as u64 + SPARE <= most, "fs.nr_open allows {most} descriptors");
    Ok(())
}
