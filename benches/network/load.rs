//! The client, a process of its own in the client's pod: runs one case's load, says `begin` when it is warm, and what came of it
//! at the end, as one line of JSON.

mod http1;
mod http2;
mod idle;
mod paced;
mod tcp;

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail, ensure};
use parking_lot::Mutex;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};

use super::record::case::Load;
use super::wire::SILENCE;

pub use idle::{HELD, hold};

/// From the first answer of every connection to the first that counts.
const WARM: Duration = Duration::from_millis(400);
/// The line with which a measurement begins.
pub const BEGIN: &str = "begin";

/// Where a load goes.
#[derive(Clone)]
pub struct Target {
    pub server: SocketAddr,
    /// Speaks TLS itself, with this configuration.
    pub tls: Option<Arc<ClientConfig>>,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Requests, messages, connections, or bytes.
    pub done: u64,
    pub seconds: f64,
    /// In microseconds; none where nothing is timed.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

/// What the clients of a load have done so far.
#[derive(Default)]
pub struct Progress {
    ready: AtomicUsize,
    done: AtomicU64,
    /// In nanoseconds.
    times: Mutex<Vec<u32>>,
}

/// A thread of a load: goes on until the process ends.
type Client = Box<dyn FnOnce(&Progress) -> Result<()> + Send>;

impl Progress {
    /// A connection has its first answer.
    fn ready(&self) {
        self.ready.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, done: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
    }

    /// One more, which began then.
    fn timed(&self, begun: SystemTime) -> Result<()> {
        let nanoseconds = u32::try_from(begun.elapsed()?.as_nanos()).unwrap_or(u32::MAX);
        self.times.lock().push(nanoseconds);
        self.count(1);
        Ok(())
    }
}

/// Runs a load for so long, or until its input ends, and prints what came of it.
pub fn run(load: Load, target: &Target, time: Option<Duration>) -> Result<()> {
    let (expected, clients): (usize, Vec<Client>) = match load {
        Load::Http1 { connections, path } => {
            (connections, http1::clients(target, connections, path))
        }
        Load::Http2 { connections, streams, post } => {
            (connections * streams, http2::clients(target, connections, streams, post))
        }
        Load::Paced { rate, http } => (paced::CLIENTS, paced::clients(target, rate, http)),
        Load::Throughput { connections } => (connections, tcp::streams(target, connections)),
        Load::Connections { at_once } => (at_once, tcp::connections(target, at_once)),
    };
    let progress = Arc::new(Progress::default());
    let (failed, failures) = channel();
    for client in clients {
        let (progress, failed) = (progress.clone(), failed.clone());
        thread::spawn(move || {
            let ended = client(&progress);
            // Nobody listens any more when the time is over.
            let _ = failed.send(ended.err().unwrap_or_else(|| anyhow::anyhow!("a client ended")));
        });
    }
    let outcome = observe(&progress, expected, time, &failures)?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

fn observe(
    progress: &Progress,
    expected: usize,
    time: Option<Duration>,
    failures: &Receiver<anyhow::Error>,
) -> Result<Outcome> {
    let started = SystemTime::now();
    while progress.ready.load(Ordering::Relaxed) < expected {
        ensure!(started.elapsed()? < SILENCE, "not all connections have an answer");
        pass(Duration::from_millis(5), failures)?;
    }
    pass(WARM, failures)?;
    progress.times.lock().clear();
    let (before, begun) = (progress.done.load(Ordering::Relaxed), SystemTime::now());
    println!("{BEGIN}");
    if time.is_none() {
        std::io::stdin().read_to_end(&mut Vec::new())?;
    }
    pass(time.unwrap_or_default(), failures)?;
    let done = progress.done.load(Ordering::Relaxed) - before;
    let seconds = begun.elapsed()?.as_secs_f64();
    let mut times = std::mem::take(&mut *progress.times.lock());
    times.sort_unstable();
    let percentile = |percent: usize| {
        times.get(times.len().saturating_sub(1) * percent / 100).map(|it| f64::from(*it) / 1000.0)
    };
    ensure!(done > 0, "nothing was answered");
    Ok(Outcome { done, seconds, p50: percentile(50), p99: percentile(99) })
}

/// Lets the time go by, unless a client fails.
fn pass(time: Duration, failures: &Receiver<anyhow::Error>) -> Result<()> {
    match failures.recv_timeout(time) {
        Err(RecvTimeoutError::Timeout) => Ok(()),
        Err(RecvTimeoutError::Disconnected) => bail!("all clients have ended"),
        Ok(error) => Err(error),
    }
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}
