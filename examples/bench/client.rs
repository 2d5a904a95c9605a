//! The client: one kind of load, one figure.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use super::server::{ECHO, SINK};

/// How many clients connect at the same time.
const CLIENTS: usize = 8;
/// What a request and its answer carry, in bytes.
const MESSAGE: usize = 128;
/// What is written at a time for throughput, in bytes.
const CHUNK: usize = 64 * 1024;

/// What is measured.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Load {
    /// One connection that carries bytes one way.
    Throughput,
    /// Connections that each carry one message and its answer.
    Connections,
    /// One connection, one message at a time: the median.
    LatencyP50,
    /// The same: 99 of 100 are faster.
    LatencyP99,
}

/// One figure, in the unit of its load.
pub type Measurement = f64;

impl Load {
    pub const ALL: [Load; 4] =
        [Load::Throughput, Load::Connections, Load::LatencyP50, Load::LatencyP99];

    pub fn name(self) -> &'static str {
        match self {
            Load::Throughput => "throughput",
            Load::Connections => "connections",
            Load::LatencyP50 => "latency-p50",
            Load::LatencyP99 => "latency-p99",
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Load::Throughput => "MiB/s",
            Load::Connections => "connections/s",
            Load::LatencyP50 | Load::LatencyP99 => "microseconds",
        }
    }
}

pub fn run(load: Load, server: IpAddr, time: Duration) -> Result<Measurement> {
    match load {
        Load::Throughput => throughput(SocketAddr::new(server, SINK), time),
        Load::Connections => connections(SocketAddr::new(server, ECHO), time),
        Load::LatencyP50 => latency(SocketAddr::new(server, ECHO), time, 50),
        Load::LatencyP99 => latency(SocketAddr::new(server, ECHO), time, 99),
    }
}

/// What has arrived counts, not what was written.
fn throughput(server: SocketAddr, time: Duration) -> Result<Measurement> {
    let mut stream = connect(server)?;
    let chunk = vec![0x5a; CHUNK];
    let start = SystemTime::now();
    while start.elapsed()? < time {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total).context("the server's count")?;
    Ok(u64::from_be_bytes(total) as f64 / (1024.0 * 1024.0) / start.elapsed()?.as_secs_f64())
}

fn connections(server: SocketAddr, time: Duration) -> Result<Measurement> {
    let start = SystemTime::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            thread::spawn(move || -> Result<u64> {
                let mut done = 0;
                while start.elapsed()? < time {
                    exchange(&mut connect(server)?)?;
                    done += 1;
                }
                Ok(done)
            })
        })
        .collect();
    let mut total = 0;
    for client in clients {
        total += client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
    }
    Ok(total as f64 / start.elapsed()?.as_secs_f64())
}

fn latency(server: SocketAddr, time: Duration, percentile: usize) -> Result<Measurement> {
    let mut stream = connect(server)?;
    exchange(&mut stream)?;
    let start = SystemTime::now();
    let mut times = Vec::new();
    while start.elapsed()? < time {
        let begin = SystemTime::now();
        exchange(&mut stream)?;
        times.push(begin.elapsed()?);
    }
    ensure!(!times.is_empty(), "no request was answered in {time:?}");
    times.sort();
    Ok(times[times.len() * percentile / 100].as_secs_f64() * 1_000_000.0)
}

fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(server).with_context(|| format!("connect to {server}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream) -> Result<()> {
    let mut message = [0x2a; MESSAGE];
    stream.write_all(&message)?;
    stream.read_exact(&mut message).context("read the answer")
}
