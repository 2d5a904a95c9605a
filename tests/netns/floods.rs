//! Peers that abuse HTTP/2: each loses its connection, and costs neither memory nor the service of others. What a
//! flood took of the agent is printed.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::frames::{self, Peer, frame, run_in};
use crate::issued::{Certificate, Wrong, issue};
use crate::support::lab::netns::Namespace;
use crate::support::lab::{Lab, PORT, wait};
use crate::{meshed, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const ABUSER: &str = "spiffe://cluster.local/ns/default/sa/abuser";

/// Within this time every flood must have ended.
const END: Duration = Duration::from_secs(20);
/// How much of a processor a flood, and the neighbour meanwhile, may cost.
const PROCESSOR: Duration = Duration::from_secs(3);
/// How much memory a flood may cost the agent for the moment, in KiB.
const MEMORY: u64 = 64 * 1024;
/// Lines that the agents may write meanwhile: two of each of the neighbour's requests, and few of the flood itself.
const LINES: usize = 500;
/// Frames that are written at once.
const BATCH: usize = 500;

/// The processor time that an agent has used so far.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub processor: Duration,
    /// Resident memory, in KiB.
    pub memory: u64,
}

impl Usage {
    pub fn of(process: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let (_, fields) = stat.rsplit_once(')').context("a line of stat")?;
        // utime and stime (proc_pid_stat(5)), in ticks of 10 ms.
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap_or(0))
            .sum();
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory.and_then(|it| it.trim().strip_suffix(" kB")?.parse().ok());
        Ok(Self {
            processor: Duration::from_millis(ticks * 10),
            memory: memory.context("VmRSS in status")?,
        })
    }
}

/// The process of a node's agent.
pub fn agent(lab: &mut Lab, node: &str) -> Result<u32> {
    let mut agents = lab.agents().iter_mut();
    let agent = agents.find(|agent| agent.node == node).context("the agent of the node")?;
    Ok(agent.process().id())
}

/// A stream of frames that is sent until the connection ends.
type Batches = Box<dyn FnMut(u64) -> Vec<u8> + Send>;

/// Lets an abuser in the pod `outsider` flood the workload `details-v1`, while `curl` goes on with its work.
fn flood(lab: &mut Lab, name: &str, open: &[u32], batches: Batches) -> Result<()> {
    let process = agent(lab, "node-b")?;
    let to = SocketAddr::new(lab.address("details-v1")?, 15008);
    let authority = format!("{}:{PORT}", to.ip());
    let certificate = issue(lab, ABUSER, Wrong::Nothing)?;
    let namespace = lab.pod("outsider")?.attachment.namespace.clone();
    let (before, moment) = (Usage::of(process)?, lab.moment()?);
    let ended = AtomicBool::new(false);
    let start = SystemTime::now();
    let (outcome, neighbours) = std::thread::scope(|scope| {
        let abuser = scope.spawn(|| {
            let outcome = run_in(&namespace, || abuse(to, &certificate, &authority, open, batches));
            ended.store(true, Ordering::Relaxed);
            outcome
        });
        let neighbours = serve_meanwhile(lab, process, before, &ended);
        let outcome = abuser.join().map_err(|_| anyhow::anyhow!("the abuser panicked"));
        (outcome.and_then(|it| it), neighbours)
    });
    let (sent, code) = outcome.with_context(|| name.to_owned())?;
    let (slowest, memory) = neighbours.with_context(|| name.to_owned())?;
    let used = Usage::of(process)?.processor - before.processor;
    println!(
        "{name}: ended after {sent} batches and {:?} with GOAWAY {code:?}; the agent used {used:?} of a processor and \
         {memory} KiB more; the slowest of the neighbours' requests took {slowest:?}",
        start.elapsed()?
    );
    // The kernel resets a connection that is closed with bytes unread, and what was said last may be lost with that.
    ensure!(code != Some(0), "{name}: it was told that all is well");
    ensure!(used < PROCESSOR, "{name}: {used:?} of a processor");
    ensure!(memory < MEMORY, "{name}: {memory} KiB more");
    let log = lab.lines_since(&moment).len();
    ensure!(log < LINES, "{name}: it wrote {log} lines into the log");
    settle(lab, "curl", &[DETAILS], 200).map(drop)
}

async fn abuse(
    to: SocketAddr,
    certificate: &Certificate,
    authority: &str,
    open: &[u32],
    batches: Batches,
) -> Result<(u64, Option<u32>)> {
    let mut peer = Peer::connect(to, certificate).await?;
    for stream in open {
        ensure!(peer.open(*stream, authority).await?, "stream {stream} was not opened");
    }
    peer.flood(END, batches).await
}

/// Requests of a neighbour, at least one, until the flood has ended: the slowest, and the most memory that was used.
fn serve_meanwhile(
    lab: &Lab,
    process: u32,
    before: Usage,
    ended: &AtomicBool,
) -> Result<(Duration, u64)> {
    let (mut slowest, mut memory) = (Duration::ZERO, 0);
    loop {
        let answer = lab.curl("curl", &[DETAILS])?;
        ensure!(answer.status == 200, "a neighbour was not served: {answer:?}");
        slowest = slowest.max(answer.time);
        memory = memory.max(Usage::of(process)?.memory.saturating_sub(before.memory));
        if ended.load(Ordering::Relaxed) {
            return Ok((slowest, memory));
        }
    }
}

fn repeated(bytes: Vec<u8>) -> Batches {
    let batch = bytes.repeat(BATCH);
    Box::new(move |_| batch.clone())
}

#[test]
fn floods_of_frames_end_the_connection_and_nothing_else() -> Result<()> {
    let mut lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let update = 1u32.to_be_bytes();
    for (name, open, batches) in [
        ("PING", &[][..], repeated(frame(frames::PING, 0, 0, &[7; 8]))),
        ("acknowledged PING", &[], repeated(frame(frames::PING, frames::ACK, 0, &[7; 8]))),
        ("SETTINGS", &[], repeated(frame(frames::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]))),
        ("WINDOW_UPDATE", &[], repeated(frame(frames::WINDOW_UPDATE, 0, 0, &update))),
        ("WINDOW_UPDATE of a stream", &[1], repeated(frame(frames::WINDOW_UPDATE, 0, 1, &update))),
        ("PRIORITY", &[], repeated(frame(frames::PRIORITY, 0, 1, &[0, 0, 0, 0, 1]))),
        ("empty DATA", &[1], repeated(frame(frames::DATA, 0, 1, &[]))),
        ("unknown frames", &[], repeated(frame(0xee, 0, 0, &[]))),
    ] {
        flood(&mut lab, name, open, batches)?;
    }
    Ok(())
}

#[test]
fn rapid_reset_ends_the_connection_and_nothing_else() -> Result<()> {
    let mut lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let authority = format!("{}:{PORT}", lab.address("details-v1")?);
    let block = frames::connect(&authority);
    let batches = Box::new(move |batch: u64| {
        let first = batch as u32 * BATCH as u32;
        (first..first + BATCH as u32)
            .flat_map(|number| {
                let stream = 2 * number + 1;
                let head = frame(frames::HEADERS, frames::END_HEADERS, stream, &block);
                [head, frame(frames::RESET, 0, stream, &8u32.to_be_bytes())].concat()
            })
            .collect()
    });
    flood(&mut lab, "rapid reset", &[], batches)
}

/// As a pool of ours does whose clients leave early: however fast, it keeps its tunnel.
#[test]
fn streams_that_are_opened_and_reset_one_by_one_are_no_flood() -> Result<()> {
    const STREAMS: u32 = 3_000;
    let lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let to = SocketAddr::new(lab.address("details-v1")?, 15008);
    let authority = format!("{}:{PORT}", to.ip());
    let certificate = issue(&lab, ABUSER, Wrong::Nothing)?;
    run_in(&lab.pod("outsider")?.attachment.namespace, || async {
        let start = SystemTime::now();
        let mut peer = Peer::connect(to, &certificate).await?;
        for number in 0..STREAMS {
            let stream = 2 * number + 1;
            ensure!(peer.open(stream, &authority).await?, "stream {number}");
            peer.send(&frame(frames::RESET, 0, stream, &8u32.to_be_bytes())).await?;
        }
        println!("{STREAMS} streams opened and reset in {:?}", start.elapsed()?);
        Ok(())
    })
}

#[test]
fn endless_headers_end_the_connection_and_nothing_else() -> Result<()> {
    let mut lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let block = frames::connect(&format!("{}:{PORT}", lab.address("details-v1")?));
    let begun = frame(frames::HEADERS, 0, 1, &block);
    // A header without a name that the static table knows: `x: ` and 100 letters.
    let header = [&[0, 1, b'x', 100][..], &[b'y'; 100]].concat();
    for (name, part) in [("empty CONTINUATION", vec![]), ("CONTINUATION", header.repeat(100))] {
        let continued = frame(frames::CONTINUATION, 0, 1, &part);
        let begun = begun.clone();
        let batches = Box::new(move |batch| match batch {
            0 => begun.clone(),
            _ => continued.clone(),
        });
        flood(&mut lab, name, &[], batches)?;
    }
    // One that fits into few frames and is too large all the same is refused, or ends the connection.
    let certificate = issue(&lab, ABUSER, Wrong::Nothing)?;
    let to = SocketAddr::new(lab.address("details-v1")?, 15008);
    let large = [block, header.repeat(1000)].concat();
    run_in(&lab.pod("outsider")?.attachment.namespace, || async {
        let mut peer = Peer::connect(to, &certificate).await?;
        // It may end before it has read all.
        _ = peer.send(&frame(frames::HEADERS, frames::END_HEADERS, 1, &large)).await;
        let ends = [frames::HEADERS, frames::RESET, frames::GO_AWAY];
        let answer = peer.until(|frame| ends.contains(&frame.kind)).await?;
        let served = answer.is_some_and(|it| it.payload.first() == Some(&0x88));
        ensure!(!served, "100 KiB of headers were taken");
        Ok(())
    })?;
    settle(&lab, "curl", &[DETAILS], 200).map(drop)
}

/// Closed within this time after the agent's own (`layer4.connect_timeout`, and the one for the preface).
const SLACK: Duration = Duration::from_secs(5);

#[test]
fn slow_handshakes_and_prefaces_are_given_up() -> Result<()> {
    let mut lab = crate::bookinfo()?;
    lab.start_agents("[layer4]\nconnect_timeout = \"1s\"\n")?;
    crate::enrol(&mut lab)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let to = SocketAddr::new(lab.address("details-v1")?, 15008);
    let certificate = issue(&lab, ABUSER, Wrong::Nothing)?;
    let namespace = &lab.pod("outsider")?.attachment.namespace;
    // A record of a handshake that says it has 512 bytes and brings them one by one.
    for (name, first) in [("says nothing", &[][..]), ("says it slowly", &[22, 3, 1, 2, 0, 1])] {
        let took = namespace.run(|| -> Result<Duration> {
            let start = SystemTime::now();
            let mut stream = std::net::TcpStream::connect(to)?;
            stream.write_all(first)?;
            stream.set_read_timeout(Some(Duration::from_millis(100)))?;
            loop {
                match stream.read(&mut [0; 64]) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        ensure!(start.elapsed()? < 2 * SLACK, "{name}: it is still waited for");
                        if !first.is_empty() && stream.write_all(&[0]).is_err() {
                            break;
                        }
                    }
                    Err(_) => break,
                }
            }
            Ok(start.elapsed()?)
        })??;
        println!("{name}: closed after {took:?}");
    }
    run_in(namespace, || async {
        let start = SystemTime::now();
        let mut peer = Peer::silent(to, &certificate).await?;
        // The preface, but for its end.
        peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n").await?;
        peer.ended(Duration::from_secs(10) + SLACK).await?;
        println!("a preface without an end: closed after {:?}", start.elapsed()?);
        Ok(())
    })?;
    settle(&lab, "curl", &[DETAILS], 200).map(drop)
}

/// What an application sends without end on this port.
const SOURCE: u16 = 9_092;
/// Windows as large as can be, of streams and of the connection.
const LARGEST: u32 = 0x7fff_ffff;

/// Sends into every connection until it breaks.
fn send_without_end(namespace: &Namespace) -> Result<()> {
    let listener = namespace.run(|| std::net::TcpListener::bind(("0.0.0.0", SOURCE)))??;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                while stream.write_all(&[7; 64 * 1024]).is_ok() {}
            });
        }
    });
    Ok(())
}

/// A peer that is no agent opens all streams it may, grants the largest windows, and reads nothing.
#[test]
fn a_peer_that_grants_much_and_reads_nothing_holds_a_workloads_part() -> Result<()> {
    const PART: u64 = 32 * 1024;
    let mut lab = crate::bookinfo()?;
    lab.start_agents("[layer4]\nmax_bytes = 134217728\nmax_workload_bytes = 33554432\n")?;
    crate::enrol(&mut lab)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let process = agent(&mut lab, "node-b")?;
    let address = lab.address("details-v1")?;
    let (to, authority) = (SocketAddr::new(address, 15008), format!("{address}:{SOURCE}"));
    let certificate = issue(&lab, ABUSER, Wrong::Nothing)?;
    send_without_end(&lab.pod("details-v1")?.attachment.namespace)?;
    let namespace = lab.pod("outsider")?.attachment.namespace.clone();
    let rest = Usage::of(process)?.memory;
    let peak = run_in(&namespace, || async {
        let mut peers = Vec::new();
        for _ in 0..2 {
            let mut peer = Peer::connect(to, &certificate).await?;
            let window = [&[0, 4][..], &LARGEST.to_be_bytes()].concat();
            let more = (LARGEST - 65_535).to_be_bytes();
            let opened = (0..200).flat_map(|number| {
                let block = frames::connect(&authority);
                frame(frames::HEADERS, frames::END_HEADERS, 2 * number + 1, &block)
            });
            let grants =
                [frame(frames::SETTINGS, 0, 0, &window), frame(frames::WINDOW_UPDATE, 0, 0, &more)];
            peer.send(&grants.concat().into_iter().chain(opened).collect::<Vec<_>>()).await?;
            peers.push(peer);
        }
        // On the thread that would read.
        let mut peak = 0;
        for _ in 0..30 {
            std::thread::sleep(Duration::from_millis(100));
            peak = Usage::of(process)?.memory.max(peak);
        }
        Ok(peak)
    })?;
    println!("at rest {rest} KiB, at most {peak}");
    ensure!(peak - rest > PART / 4, "the attack came through: {} KiB more", peak - rest);
    ensure!(peak - rest < PART * 5 / 4, "{} KiB more than at rest", peak - rest);
    settle(&lab, "curl", &[DETAILS], 200)?;
    let mut last = peak;
    let given_back = wait::within(Duration::from_secs(20), "memory to be given back", || {
        last = Usage::of(process)?.memory;
        Ok((last < rest + (peak - rest) / 2).then_some(()))
    });
    println!("afterwards {last}");
    given_back
}
