//! What peers and tenants can make an agent hold: never more than the number that follows from its settings, and it is
//! given back.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use isthmus::config::{Overrides, Settings};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::support::lab::netns::Namespace;
use crate::support::lab::{Lab, wait};
use crate::{EVIL, application, captured_in, enrol, settle};

pub const DETAILS: &str = "http://details.bookinfo:9080/details/0";
/// Small, so that what is not bounded by them shows.
const SETTINGS: &str = "\
[layer4]\nmax_bytes = 67108864\nmax_workload_bytes = 33554432\n\
[log]\nmax_queued_bytes = 1048576\n\
[metrics]\nmax_series = 2000\nmax_namespace_series = 400\n";
const CONNECTIONS: usize = 400;
/// Nobody reads: where the bytes go from the attacker to its accomplice, and where the other way.
const SINK: u16 = 9091;
const SOURCE: u16 = 9092;
/// How long nothing must be taken any more until all buffers are full.
const STILL: Duration = Duration::from_secs(2);
/// What an agent may keep of an attack that is over, in KiB: fragments, and what it learnt. Each attack must have taken
/// half as much again, so that giving back is something that can fail.
const KEPT: u64 = 4 * 1024;
/// How long it may take to be given back: connections have to end first, and the allocator waits for 2 s.
const GIVEN_BACK: Duration = Duration::from_secs(20);

/// Resident memory of a process, in KiB.
fn resident(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|it| it.trim().strip_suffix(" kB")?.parse().ok());
    number.context("VmRSS in status")
}

pub fn agents(lab: &mut Lab) -> Vec<u32> {
    lab.agents().iter_mut().map(|agent| agent.process().id()).collect()
}

pub fn all(agents: &[u32]) -> Result<Vec<u64>> {
    agents.iter().map(|agent| resident(*agent)).collect()
}

/// Accepts in `namespace` for the rest of the test; reads nothing, and sends without end where `sends`.
fn listen(namespace: &Namespace, port: u16, sends: bool, over: &Arc<AtomicBool>) -> Result<()> {
    let listener = namespace.run(|| TcpListener::bind(("0.0.0.0", port)))??;
    listener.set_nonblocking(true)?;
    let over = over.clone();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while !over.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => held.push(stream),
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
            if sends {
                held.iter_mut().for_each(|it| _ = push(it));
            }
        }
    });
    Ok(())
}

/// Bytes that were taken at once.
fn push(stream: &mut TcpStream) -> usize {
    let chunk = [7; 64 * 1024];
    let mut taken = 0;
    loop {
        match stream.write(&chunk) {
            Ok(0) => return taken,
            Ok(more) => taken += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return taken,
        }
    }
}

/// Opens connections and sends into them, if it `sends`, until nothing is taken for a while. They stay open as long as
/// they are held.
fn crowd(namespace: &Namespace, to: IpAddr, port: u16, sends: bool) -> Result<Vec<TcpStream>> {
    let address = SocketAddr::new(to, port);
    let mut streams = namespace.run(|| {
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(10));
        (0..CONNECTIONS / 2).map(|_| connect()).collect::<Result<Vec<_>, _>>()
    })??;
    for stream in &streams {
        stream.set_nonblocking(true)?;
    }
    let (mut total, mut last) = (0, Instant::now());
    while last.elapsed() < STILL {
        let taken: usize = if sends { streams.iter_mut().map(push).sum() } else { 0 };
        if taken > 0 {
            (total, last) = (total + taken, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{} connections to port {port}: {} KiB sent", streams.len(), total / 1024);
    ensure!(!sends || total > 1024 * 1024, "the attack has come through: {total} bytes");
    Ok(streams)
}

/// Connections whose readers stand still, in both directions, and scrapers that do not read.
#[test]
fn readers_that_stand_still_cost_no_more_than_the_settings_say() -> Result<()> {
    let mut lab = application(&[EVIL])?;
    lab.start_agents(SETTINGS)?;
    enrol(&mut lab)?;
    captured_in(&lab, "evil")?;
    settle(&lab, "attacker", &[DETAILS], 200)?;
    let bound = Settings::parse(SETTINGS, &Overrides::default())?.memory_bound();
    let bound = u64::try_from(bound.total(0))? / 1024;
    let processes = agents(&mut lab);
    let rest = all(&processes)?;

    let over = Arc::new(AtomicBool::new(false));
    let accomplice = lab.pod("accomplice")?.attachment.namespace.clone();
    listen(&accomplice, SINK, false, &over)?;
    listen(&accomplice, SOURCE, true, &over)?;
    let address = lab.address("accomplice")?;
    let attacker = lab.pod("attacker")?.attachment.namespace.clone();
    let peak = Arc::new(Mutex::new(rest.clone()));
    let watching = watch(processes.clone(), peak.clone(), over.clone());
    let held = (
        crowd(&attacker, address, SINK, true)?,
        crowd(&attacker, address, SOURCE, false)?,
        scrapers(&lab)?,
    );
    // Who uses the mesh as it is meant is served meanwhile.
    settle(&lab, "attacker", &[DETAILS], 200)?;
    ensure!(lab.metrics()?.sum("isthmus_metrics_series", &[]) > 0.0, "metrics are there meanwhile");
    drop(held);
    over.store(true, Ordering::Relaxed);
    watching.join().map_err(|_| anyhow::anyhow!("the watch panicked"))??;

    let peak = peak.lock().clone();
    println!("at rest {rest:?} KiB, at most {peak:?}, bound {bound}");
    for (rest, peak) in rest.iter().zip(&peak) {
        ensure!(*peak < bound, "{peak} KiB are more than the {bound} that the settings allow");
        // A workload's part of layer 4, and the allocator's.
        ensure!(
            more(*peak, *rest) < 32 * 1024 * 5 / 4,
            "layer 4 holds {} KiB more",
            more(*peak, *rest)
        );
    }
    returned(&processes, &rest, &peak)
}

/// How much more an agent held than at rest, when it may have held less.
pub fn more(peak: u64, rest: u64) -> u64 {
    peak.saturating_sub(rest)
}

/// Waits until agents that held as much as `peak` hold about what they did at rest.
pub fn returned(processes: &[u32], rest: &[u64], peak: &[u64]) -> Result<()> {
    let grown =
        rest.iter().zip(peak).map(|(rest, peak)| more(*peak, *rest)).max().unwrap_or_default();
    ensure!(2 * grown > 3 * KEPT, "there was little to give back: {grown} KiB");
    // Tables keep their size, connections to applications rest for a while, and how much was taken differs with the
    // machine: half of it is far from what a leak would keep.
    let kept = KEPT.max(grown / 2);
    let mut last = Vec::new();
    let given_back = wait::within(GIVEN_BACK, "memory to be given back", || {
        last = all(processes)?;
        let near = last.iter().zip(rest).all(|(now, rest)| *now < rest + kept);
        Ok(near.then_some(()))
    });
    println!("at rest {rest:?} KiB, at most {peak:?}, afterwards {last:?}");
    given_back
}

/// The attacker's own.
pub const WAYPOINT: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: evil}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
";
/// A service of the attacker's own behind it, where nobody answers.
const SILENT: &str = "
apiVersion: v1
kind: Service
metadata: {name: silent, namespace: evil, labels: {istio.io/use-waypoint: waypoint}}
spec:
  selector: {app: accomplice}
  ports: [{name: http2, port: 9091, targetPort: 9091}]
";
/// Fields of one head, three bytes of name and nothing else: about as many as a head may have.
const FIELDS: usize = 250;
/// Little, so that what is not bounded by it shows; heads may have as many fields as can be set.
pub const WORKER: &str = "\
[log]\nlevel = \"info,access=off\"\n\
[layer4]\nmax_bytes = 67108864\nmax_workload_bytes = 33554432\n\
[layer7]\nmax_buffered_bytes = 33554432\nmax_connections = 200\nmax_requests = 1000\n\
max_headers = 256\n";

/// The most that an agent with these settings may grow by for one worker and one workload, in KiB: their parts of the
/// bound, and the allocator's.
pub fn most() -> Result<u64> {
    let settings = Settings::parse(WORKER, &Overrides::default())?;
    let worker: usize = settings.memory_bound().worker.iter().map(|part| part.bytes).sum();
    let most = (worker + settings.layer4.max_workload_bytes) / 4 * 5;
    Ok(u64::try_from(most)? / 1024)
}

/// A hundred requests over HTTP/2 without an end, each with a head of many short fields.
fn many_fields() -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x84, 0x01, 1, b'a'];
    for number in 0..FIELDS {
        let [a, b] = [number / 36, number % 36].map(|digit| {
            char::from_digit(u32::try_from(digit).unwrap_or(0), 36).unwrap_or('0') as u8
        });
        block.extend([0, 3, b'k', a, b, 0]);
    }
    let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for number in 0..100u32 {
        let [_, a, b, c] = u32::try_from(block.len()).unwrap_or(0).to_be_bytes();
        // HEADERS with END_HEADERS.
        all.extend([a, b, c, 1, 4]);
        all.extend((2 * number + 1).to_be_bytes());
        all.extend(&block);
    }
    all
}

/// What HPACK makes small on the wire is as large in memory as ever, and counted so.
#[test]
fn heads_of_many_short_fields_take_no_more_than_a_worker_may() -> Result<()> {
    let mut lab = application(&[EVIL, WAYPOINT, SILENT])?;
    lab.start_agents(WORKER)?;
    enrol(&mut lab)?;
    captured_in(&lab, "evil")?;
    settle(&lab, "attacker", &[DETAILS], 200)?;
    let processes = agents(&mut lab);
    let rest = all(&processes)?;
    let over = Arc::new(AtomicBool::new(false));
    let accomplice = lab.pod("accomplice")?.attachment.namespace.clone();
    listen(&accomplice, SINK, false, &over)?;
    let peak = Arc::new(Mutex::new(rest.clone()));
    let watching = watch(processes.clone(), peak.clone(), over.clone());
    let to = SocketAddr::new(lab.service("evil", "silent")?[0], SINK);
    let attack = many_fields();
    let attacker = lab.pod("attacker")?.attachment.namespace.clone();
    let held = attacker.run(|| -> Result<Vec<TcpStream>> {
        let mut held = Vec::new();
        for _ in 0..10 {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
            stream.set_write_timeout(Some(Duration::from_secs(5)))?;
            _ = stream.write_all(&attack);
            held.push(stream);
        }
        Ok(held)
    })??;
    std::thread::sleep(STILL);
    let requests = lab.metrics()?.sum("isthmus_worker_requests", &[("namespace", "evil")]);
    ensure!(requests > 10.0, "the attack has come through: {requests} requests in flight");
    settle(&lab, "attacker", &[DETAILS], 200)?;
    drop(held);
    over.store(true, Ordering::Relaxed);
    watching.join().map_err(|_| anyhow::anyhow!("the watch panicked"))??;
    let peak = peak.lock().clone();
    println!("at rest {rest:?} KiB, at most {peak:?}, {requests} requests in flight");
    let most = most()?;
    for (rest, peak) in rest.iter().zip(&peak) {
        ensure!(more(*peak, *rest) < most, "the worker holds {} KiB more", more(*peak, *rest));
    }
    returned(&processes, &rest, &peak)
}

/// The most that each process holds until it is over.
pub fn watch(
    processes: Vec<u32>,
    peak: Arc<Mutex<Vec<u64>>>,
    over: Arc<AtomicBool>,
) -> std::thread::JoinHandle<Result<()>> {
    std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            let now = all(&processes)?;
            let mut peak = peak.lock();
            peak.iter_mut().zip(now).for_each(|(peak, now)| *peak = (*peak).max(now));
            drop(peak);
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    })
}

/// Scrapes that nobody reads the answers of, on the node of the attacker.
fn scrapers(lab: &Lab) -> Result<Vec<TcpStream>> {
    let node = lab.node("node-a")?.namespace.clone();
    node.run(|| {
        let scrape = || {
            let mut stream = TcpStream::connect(("127.0.0.1", 15020))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")?;
            // It has begun.
            stream.read_exact(&mut [0; 16])?;
            Ok(stream)
        };
        (0..20).map(|_| scrape()).collect()
    })?
}
