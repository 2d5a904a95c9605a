//! Limits: what one peer, one workload and the whole process may hold; each is met by refusal or by waiting, told once,
//! and left behind when what was held is let go.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::floods::{Usage, agent};
use crate::frames::{Peer, run_in};
use crate::issued::{Wrong, issue};
use crate::support::lab::agents::Agent;
use crate::support::lab::{Lab, PORT, wait};
use crate::{bookinfo, enrol, meshed, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const GREEDY: &str = "spiffe://cluster.local/ns/default/sa/greedy";

fn limited(settings: &str) -> Result<Lab> {
    let mut lab = bookinfo()?;
    lab.start_agents(&format!("[layer4]\n{settings}"))?;
    enrol(&mut lab)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(lab)
}

/// Waits for a line of an agent's that holds all of these texts.
fn told(lab: &Lab, since: &crate::support::lab::Moment, texts: &[&str]) -> Result<()> {
    wait::until(&format!("a line with {texts:?}"), || {
        let lines = lab.lines_since(since);
        let fits = |line: &str| texts.iter().all(|text| line.contains(text));
        Ok(lines.iter().any(|(_, line)| fits(line)).then_some(()))
    })
}

#[test]
fn one_peer_has_its_share_and_others_are_served() -> Result<()> {
    const STREAMS: u32 = 20;
    let lab = limited("max_connections = 100\nmax_peer_connections = 20\nmax_peer_tunnels = 3\n")?;
    let since = lab.moment()?;
    let to = SocketAddr::new(lab.address("details-v1")?, 15008);
    let authority = format!("{}:{PORT}", to.ip());
    let certificate = issue(&lab, GREEDY, Wrong::Nothing)?;
    run_in(&lab.pod("outsider")?.attachment.namespace, || async {
        let mut peer = Peer::connect(to, &certificate).await?;
        for number in 0..STREAMS {
            ensure!(peer.open(2 * number + 1, &authority).await?, "stream {number}");
        }
        ensure!(!peer.open(2 * STREAMS + 1, &authority).await?, "one too many");
        // A second tunnel is of the same peer.
        let mut second = Peer::connect(to, &certificate).await?;
        ensure!(!second.open(1, &authority).await?, "one too many in another tunnel");
        let third = Peer::connect(to, &certificate).await?;
        let fourth = Peer::connect(to, &certificate).await;
        ensure!(fourth.is_err(), "one tunnel too many");
        drop((second, third));
        Ok(())
    })?;
    told(&lab, &since, &["layer4.max_peer_connections", "workload=", "limit=20"])?;
    told(&lab, &since, &["layer4.max_peer_tunnels", "UO"])?;
    let metrics = lab.metrics()?;
    assert!(metrics.sum("isthmus_limited_connections_total", &[]) >= 3.0);
    let refused = [("response_flags", "UO"), ("reporter", "destination")];
    assert!(metrics.sum("istio_tcp_connections_failed_total", &refused) >= 3.0);
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200, "a neighbour");
    // What was let go may be taken again.
    settle(&lab, "outsider", &[DETAILS], 200).map(drop)
}

#[test]
fn plaintext_of_one_peer_has_its_share_too() -> Result<()> {
    let lab = limited("max_connections = 100\nmax_peer_connections = 5\n")?;
    let to = SocketAddr::new(lab.address("details-v1")?, PORT);
    let namespace = &lab.pod("outsider")?.attachment.namespace;
    let held = namespace.run(|| (0..5).map(|_| TcpStream::connect(to)).collect::<Vec<_>>())?;
    let held = held.into_iter().collect::<Result<Vec<_>, _>>()?;
    wait::until("one more to be refused", || {
        Ok((lab.curl("outsider", &[DETAILS])?.status == 0).then_some(()))
    })?;
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200, "a neighbour");
    drop(held);
    settle(&lab, "outsider", &[DETAILS], 200).map(drop)
}

#[test]
fn a_full_workload_is_named_with_its_setting_and_goes_on() -> Result<()> {
    const FULL: u32 = 8;
    let lab = limited("max_connections = 8\nmax_peer_connections = 8\n")?;
    let since = lab.moment()?;
    let to = SocketAddr::new(lab.address("details-v1")?, 15008);
    let authority = format!("{}:{PORT}", to.ip());
    let certificate = issue(&lab, GREEDY, Wrong::Nothing)?;
    run_in(&lab.pod("outsider")?.attachment.namespace, || async {
        let mut peer = Peer::connect(to, &certificate).await?;
        for number in 0..FULL {
            ensure!(peer.open(2 * number + 1, &authority).await?, "stream {number}");
        }
        // Streams in tunnels count: nobody gets in any more, and the client is told.
        let refused = lab.curl("curl", &[DETAILS])?;
        ensure!(refused.status == 0, "{refused:?}");
        Ok(())
    })?;
    told(&lab, &since, &["layer4.max_connections", "workload=", "details-v1", "limit=8"])?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    // Outbound: what the client cannot hold waits, and is served when there is room.
    let service = SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT);
    let namespace = lab.pod("curl")?.attachment.namespace.clone();
    let since = lab.moment()?;
    let held = namespace.run(|| (0..FULL).map(|_| TcpStream::connect(service)).collect::<Vec<_>>());
    let held = held?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let waiting = std::thread::scope(|scope| -> Result<_> {
        let asking =
            scope.spawn(|| crate::support::lab::curl::curl(&namespace, &["-m9", &url(service)]));
        told(&lab, &since, &["layer4.max_connections", "outbound", "curl"])?;
        drop(held);
        asking.join().map_err(|_| anyhow::anyhow!("curl panicked"))?
    })?;
    assert_eq!(waiting.status, 200, "{waiting:?}");
    Ok(())
}

fn url(service: SocketAddr) -> String {
    format!("http://{service}/details/0")
}

fn open_files(process: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count())
}

/// How long the processor's use is measured.
const MEASURED: Duration = Duration::from_secs(2);

#[test]
fn an_agent_without_file_descriptors_waits_for_some() -> Result<()> {
    const SPARE: usize = 30;
    const CONNECTIONS: usize = 200;
    let mut lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let process = agent(&mut lab, "node-a")?;
    let (before, since) = (open_files(process)?, lab.moment()?);
    let limit = Some((before + SPARE) as u64);
    let pid = Pid::from_raw(process.cast_signed()).context("a process")?;
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: limit, maximum: limit })?;
    let service = SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT);
    let client = lab.pod("curl")?.attachment.namespace.clone();
    let held = client.run(|| {
        let connect = |_| TcpStream::connect(service);
        (0..CONNECTIONS).map(connect).collect::<Result<Vec<_>, _>>()
    })??;
    told(&lab, &since, &["cannot accept connections for now", "Too many open files"])?;
    let (used, lines) = (Usage::of(process)?.processor, lab.lines_since(&since).len());
    std::thread::sleep(MEASURED);
    let used = Usage::of(process)?.processor - used;
    let lines = lab.lines_since(&since).len() - lines;
    println!("without descriptors: {used:?} of a processor and {lines} lines in {MEASURED:?}");
    assert!(used < MEASURED / 4, "it spins: {used:?}");
    assert!(lines < 50, "it fills the log: {lines} lines");
    let start = SystemTime::now();
    drop(held);
    settle(&lab, "curl", &["--max-time", "2", DETAILS], 200)?;
    println!("served again {:?} after descriptors were free", start.elapsed()?);
    let metrics = lab.agents().iter().find(|it| it.node == "node-a").map(Agent::metrics);
    let metrics = metrics.context("the agent")??;
    assert!(metrics.sum("isthmus_accept_failures_total", &[]) > 0.0);
    wait::until("its descriptors to be free again", || {
        Ok((open_files(process)? <= before + 12).then_some(()))
    })
}
