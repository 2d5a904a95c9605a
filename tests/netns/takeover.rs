//! Upgrades under load: a successor takes the sockets over, and nobody notices.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};

use crate::support::lab::{Lab, PORT};
use crate::{meshed, settle};

/// New connections a second: ten thousand a minute.
const RATE: u32 = 167;
/// Connections that live through everything.
const LONG: usize = 100;
/// Between two upgrades.
const BETWEEN: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// One request on a connection that stays open.
fn ask(mut stream: &TcpStream, path: &str) -> Result<()> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: application\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while !is_whole(&answer) {
        let length = stream.read(&mut part)?;
        ensure!(length > 0, "cut after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&part[..length]);
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| body.len() >= length)
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Clients on new connections at a fixed rate until told; counts them, or tells the first failure.
fn short_ones(
    lab: &Lab,
    targets: [(SocketAddr, &'static str); 2],
    stop: &Arc<AtomicBool>,
) -> Result<std::thread::JoinHandle<Result<u32>>> {
    let (namespace, stop) = (lab.pod("curl")?.attachment.namespace.clone(), stop.clone());
    Ok(std::thread::spawn(move || {
        namespace.enter()?;
        let started = SystemTime::now();
        let mut done = 0;
        while !stop.load(Ordering::Relaxed) {
            for (to, path) in targets {
                let stream = connect(to).with_context(|| format!("connection {done} to {to}"))?;
                ask(&stream, path).with_context(|| format!("connection {done} to {to}"))?;
                done += 1;
            }
            let due = Duration::from_secs(1) * done / RATE;
            std::thread::sleep(due.saturating_sub(started.elapsed()?));
        }
        Ok(done)
    }))
}

/// A mesh that serves, and what its clients ask for: one service on the other node, one on the client's.
fn prepared() -> Result<(Lab, [(SocketAddr, &'static str); 2])> {
    let lab = meshed()?;
    settle(&lab, "curl", &["http://details.bookinfo:9080/details/0"], 200)?;
    settle(&lab, "curl", &["http://ratings.bookinfo:9080/ratings/0"], 200)?;
    let target = |name, path| -> Result<_> {
        Ok((SocketAddr::new(lab.service("bookinfo", name)?[0], PORT), path))
    };
    let targets = [target("details", "/details/0")?, target("ratings", "/ratings/0")?];
    Ok((lab, targets))
}

#[test]
fn three_upgrades_refuse_and_cut_nothing() -> Result<()> {
    let (mut lab, targets) = prepared()?;
    let rules = rules(&lab)?;

    let long: Vec<(TcpStream, &str)> = lab.pod("curl")?.attachment.namespace.run(|| {
        let open = |at: usize| connect(targets[at % 2].0).map(|stream| (stream, targets[at % 2].1));
        (0..LONG).map(open).collect::<Result<_>>()
    })??;
    let all_answer = |when: &str| -> Result<()> {
        for (at, (stream, path)) in long.iter().enumerate() {
            ask(stream, path).with_context(|| format!("long connection {at}, {when}"))?;
        }
        Ok(())
    };
    all_answer("before")?;
    let stop = Arc::new(AtomicBool::new(false));
    let short = short_ones(&lab, targets, &stop)?;
    let mut predecessors = Vec::new();
    for round in 1..=3 {
        for node in ["node-a", "node-b"] {
            let started = SystemTime::now();
            predecessors.push(lab.upgrade_agent(node)?);
            println!("upgrade {round} of {node}: took over after {:?}", started.elapsed()?);
            all_answer(&format!("after upgrade {round} of {node}"))?;
            // New connections meet every agent, and the time between upgrades too.
            std::thread::sleep(BETWEEN);
        }
        ensure!(!short.is_finished(), "{:?}", short.join());
    }
    stop.store(true, Ordering::Relaxed);
    let done = short.join().map_err(|_| anyhow!("the clients panicked"))??;
    println!("{done} short connections, {LONG} long ones, none refused, none cut");
    ensure!(self::rules(&lab)? == rules, "the rules changed");

    drop(long);
    for predecessor in &mut predecessors {
        let code = predecessor.process().wait_for_end()?;
        ensure!(code == Some(0), "an agent that had handed over ended with {code:?}");
    }
    settle(&lab, "curl", &["http://details.bookinfo:9080/details/0"], 200)?;
    Ok(())
}

/// Successors that come before the one before them serves: each takes over from another one, and none is refused its ports.
#[test]
fn upgrades_in_quick_succession_refuse_nothing() -> Result<()> {
    let (mut lab, targets) = prepared()?;
    let stop = Arc::new(AtomicBool::new(false));
    let short = short_ones(&lab, targets, &stop)?;
    for times in [2, 3] {
        for node in ["node-a", "node-b"] {
            for predecessor in &mut lab.upgrade_agent_often(node, times)? {
                let code = predecessor.process().wait_for_end()?;
                ensure!(code == Some(0), "an agent that had handed over ended with {code:?}");
            }
        }
        ensure!(!short.is_finished(), "{:?}", short.join());
    }
    stop.store(true, Ordering::Relaxed);
    let done = short.join().map_err(|_| anyhow!("the clients panicked"))??;
    println!("{done} connections, none refused");
    Ok(())
}

/// One that is told to end before it serves changes nothing, in whatever state it is, and the next one takes over.
#[test]
fn an_upgrade_that_is_given_up_changes_nothing() -> Result<()> {
    const STEP: Duration = Duration::from_millis(15);
    let (mut lab, targets) = prepared()?;
    let stop = Arc::new(AtomicBool::new(false));
    let short = short_ones(&lab, targets, &stop)?;
    let mut given_up = 0;
    // Until one is told too late: it has taken over, and nobody serves after it.
    while !lab
        .upgrade_agent_and_give_up("node-b", STEP * given_up)
        .with_context(|| format!("after {:?}", STEP * given_up))?
    {
        ensure!(!short.is_finished(), "after {:?}: {:?}", STEP * given_up, short.join());
        given_up += 1;
    }
    println!("{given_up} upgrades were given up, one each {STEP:?} after its start");
    ensure!(given_up > 2, "none of them had asked for the sockets");
    stop.store(true, Ordering::Relaxed);
    Ok(())
}

/// The capture's rules of two pods without what counts packets.
fn rules(lab: &Lab) -> Result<String> {
    let of = |pod| -> Result<String> {
        Ok(lab.rules(pod)?.lines().filter(|line| !line.contains("counter")).collect())
    };
    Ok(of("curl")? + &of("details-v1")?)
}
