//! What stands idle: connections, and workloads.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::Bench;
use crate::load::HELD;
use crate::options::Options;
use crate::record::figures::Measured;
use crate::server::ECHO;
use crate::sides::service;
use crate::support::lab::many;
use crate::usage::{Usage, status};

/// Connections that are held.
const IDLE: usize = 5000;
/// Those that were opened and closed before: buffers and pools are made once.
const WARM: usize = 500;
/// Workloads of an idle agent.
const WORKLOADS: usize = 100;
/// What is freed has left, and timers have come to rest.
const REST: Duration = Duration::from_secs(3);

/// Resident bytes of each agent for an idle connection across nodes.
/// Measured once, whatever the rounds: what an allocator was given before, it may give again.
pub fn connections(bench: &mut Bench) -> Result<Measured> {
    let mut measured = Measured::default();
    let kinds = [
        ("layer 4", SocketAddr::new(bench.lab.address("server")?, ECHO), false),
        ("HTTP", service(&bench.lab, "bench", "server")?, true),
    ];
    for (name, to, http) in kinds {
        held(bench, to, WARM, http)?;
        let before = resident(bench)?;
        let with = held(bench, to, IDLE, http)?;
        let each = |at: usize| with[at].saturating_sub(before[at]) as f64 / IDLE as f64;
        eprintln!("idle, {name}: {:.0} and {:.0} bytes each", each(0), each(1));
        let sample = [("client's agent", each(0)), ("server's agent", each(1))];
        measured.add(name, sample.map(|(metric, bytes)| (metric.to_owned(), bytes)));
    }
    Ok(measured)
}

/// Resident bytes and processor time of an agent with workloads that do nothing.
pub fn workloads(bench: &mut Bench, options: &Options) -> Result<Measured> {
    let mut measured = Measured::default();
    many::prepare(WORKLOADS)?;
    for _ in 0..options.rounds {
        for (name, workloads) in [("with none", false), ("with 100", true)] {
            if workloads {
                many::join(&mut bench.lab, WORKLOADS)?;
            }
            std::thread::sleep(REST);
            let agent = bench.agents().first().copied().context("an agent")?;
            let before = Usage::of(&[agent])?;
            std::thread::sleep(Duration::from_secs(options.seconds));
            let used = Usage::of(&[agent])?.since(&before);
            let seconds = options.seconds as f64;
            let resident = status(agent, "VmRSS:")? as f64;
            measured.add(
                name,
                [
                    ("bytes".to_owned(), resident),
                    ("milliseconds a second".to_owned(), used.cpu * 1000.0 / seconds),
                    ("wakes a second".to_owned(), used.switches as f64 / seconds),
                ],
            );
            if workloads {
                many::leave(&mut bench.lab, WORKLOADS)?;
            }
        }
    }
    Ok(measured)
}

/// Resident bytes of both agents while this many connections stand idle.
fn held(bench: &mut Bench, to: SocketAddr, count: usize, http: bool) -> Result<Vec<u64>> {
    let mut command = bench.client("client")?;
    command.args(["hold", &to.to_string(), &count.to_string()]);
    if http {
        command.arg("--http");
    }
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let output = client.stdout.take().context("the client's output")?;
    let mut said = String::new();
    BufReader::new(output).read_line(&mut said)?;
    ensure!(said.trim() == HELD, "the client holds nothing: {said:?}");
    std::thread::sleep(REST);
    let resident = resident(bench);
    drop(client.stdin.take());
    client.wait()?;
    std::thread::sleep(REST);
    resident
}

fn resident(bench: &mut Bench) -> Result<Vec<u64>> {
    bench.agents().iter().map(|agent| status(*agent, "VmRSS:")).collect()
}
