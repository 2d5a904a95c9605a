//! The client: one kind of load, one figure.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use rustls::ClientConfig;

use super::http::{self, HTTP};
use super::report::Side;
use super::server::{ECHO, SINK, TLS};
use super::wire::Wire;

/// How many clients connect at the same time.
const CLIENTS: usize = 8;
/// What a request and its answer carry, in bytes.
const MESSAGE: usize = 128;
/// What is written at a time for throughput, in bytes.
const CHUNK: usize = 64 * 1024;
/// Requests a second for the latency at a fixed rate.
const RATE: u32 = 1000;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Load {
    /// One connection that carries bytes one way.
    Throughput,
    /// Connections that each carry one message and its answer.
    Connections,
    /// One connection, one message at a time: the median.
    LatencyP50,
    /// One connection, a message at each thousandth of a second whether or not the last was answered in time: the
    /// median, counted from the moment it was due.
    FixedRateP50,
    /// The same: 99 of 100 are faster.
    FixedRateP99,
    /// HTTP requests on some connections, one after the other on each.
    Requests,
    /// One connection, one HTTP request at a time: the median.
    RequestP50,
    /// One connection, an HTTP request at each thousandth of a second, as above: the median.
    RequestRateP50,
    /// The same: 99 of 100 are faster.
    RequestRateP99,
}

/// Where a load goes, and how. HTTP is never TLS of its own.
pub struct Target {
    pub server: IpAddr,
    /// Speaks TLS itself, with this configuration.
    pub tls: Option<Arc<ClientConfig>>,
}

/// One figure, in the unit of its load.
pub type Measurement = f64;

impl Load {
    pub const ALL: [Load; 9] = [
        Load::Throughput,
        Load::Connections,
        Load::LatencyP50,
        Load::FixedRateP50,
        Load::FixedRateP99,
        Load::Requests,
        Load::RequestP50,
        Load::RequestRateP50,
        Load::RequestRateP99,
    ];

    /// What it is measured on: plainly first, then what the rest is held against.
    pub fn sides(self) -> [Side; 3] {
        match self {
            Load::Requests | Load::RequestP50 | Load::RequestRateP50 | Load::RequestRateP99 => {
                [Side::Plain, Side::Mesh, Side::Waypoint]
            }
            _ => [Side::Plain, Side::Rustls, Side::Mesh],
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Load::Throughput => "throughput",
            Load::Connections => "connections",
            Load::LatencyP50 => "latency-p50",
            Load::FixedRateP50 => "fixed-rate-p50",
            Load::FixedRateP99 => "fixed-rate-p99",
            Load::Requests => "requests",
            Load::RequestP50 => "request-p50",
            Load::RequestRateP50 => "request-rate-p50",
            Load::RequestRateP99 => "request-rate-p99",
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Load::Throughput => "MiB/s",
            Load::Connections => "connections/s",
            Load::Requests => "requests/s",
            _ => "microseconds",
        }
    }
}

pub fn run(load: Load, target: &Target, time: Duration) -> Result<Measurement> {
    match load {
        Load::Throughput => throughput(target, time),
        Load::Connections => connections(target, time),
        Load::LatencyP50 => percentile(latency(target, time, None)?, 50),
        Load::FixedRateP50 => percentile(latency(target, time, Some(RATE))?, 50),
        Load::FixedRateP99 => percentile(latency(target, time, Some(RATE))?, 99),
        Load::Requests => http::requests(target.http(), time),
        Load::RequestP50 => percentile(http::latency(target.http(), time, None)?, 50),
        Load::RequestRateP50 => percentile(http::latency(target.http(), time, Some(RATE))?, 50),
        Load::RequestRateP99 => percentile(http::latency(target.http(), time, Some(RATE))?, 99),
    }
}

/// Opens connections that have carried one message each, says so, and holds them until its input ends.
pub fn hold(target: &Target, count: usize) -> Result<()> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = target.connect(ECHO)?;
        exchange(&mut stream)?;
        held.push(stream);
    }
    println!("held");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

impl Target {
    fn http(&self) -> SocketAddr {
        SocketAddr::new(self.server, HTTP)
    }

    fn connect(&self, port: u16) -> Result<Wire> {
        let port = if self.tls.is_some() { port + TLS } else { port };
        Wire::connect(SocketAddr::new(self.server, port), self.tls.as_ref())
    }
}

/// What has arrived counts, not what was written.
fn throughput(target: &Target, time: Duration) -> Result<Measurement> {
    let mut stream = target.connect(SINK)?;
    let chunk = vec![0x5a; CHUNK];
    let start = SystemTime::now();
    while start.elapsed()? < time {
        stream.write_all(&chunk)?;
    }
    stream.finish()?;
    let mut total = [0; 8];
    stream.read_exact(&mut total).context("the server's count")?;
    Ok(u64::from_be_bytes(total) as f64 / (1024.0 * 1024.0) / start.elapsed()?.as_secs_f64())
}

fn connections(target: &Target, time: Duration) -> Result<Measurement> {
    let start = SystemTime::now();
    let worker = || -> Result<u64> {
        let mut done = 0;
        while start.elapsed()? < time {
            exchange(&mut target.connect(ECHO)?)?;
            done += 1;
        }
        Ok(done)
    };
    let total = thread::scope(|scope| -> Result<u64> {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(worker)).collect();
        let mut total = 0;
        for client in clients {
            total += client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(total)
    })?;
    Ok(total as f64 / start.elapsed()?.as_secs_f64())
}

/// The times of all exchanges; with a rate, each from the moment at which it was due.
fn latency(target: &Target, time: Duration, rate: Option<u32>) -> Result<Vec<Duration>> {
    let mut stream = target.connect(ECHO)?;
    exchange(&mut stream)?;
    let start = SystemTime::now();
    let mut times = Vec::new();
    while start.elapsed()? < time {
        let begin = turn(start, times.len(), rate)?;
        exchange(&mut stream)?;
        times.push(begin.elapsed()?);
    }
    Ok(times)
}

/// Waits until it is the turn of the next message after so many, and says since when it is; without a rate, at once.
pub fn turn(start: SystemTime, sent: usize, rate: Option<u32>) -> Result<SystemTime> {
    let Some(rate) = rate else { return Ok(SystemTime::now()) };
    let due = Duration::from_secs(1) * u32::try_from(sent)? / rate;
    thread::sleep(due.saturating_sub(start.elapsed()?));
    Ok(start + due)
}

fn percentile(mut times: Vec<Duration>, percentile: usize) -> Result<Measurement> {
    ensure!(!times.is_empty(), "no request was answered");
    times.sort();
    Ok(times[times.len() * percentile / 100].as_secs_f64() * 1_000_000.0)
}

fn exchange(stream: &mut Wire) -> Result<()> {
    let mut message = [0x2a; MESSAGE];
    stream.write_all(&message)?;
    stream.read_exact(&mut message).context("read the answer")
}
