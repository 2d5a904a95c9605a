//! One case: its sides in turn, round after round, and what each costs.

use std::io::{BufRead, BufReader, Lines, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::lab::Bench;
use super::load::{BEGIN, Outcome};
use super::options::Options;
use super::record::case::{Case, Load, Side};
use super::record::figures::Measured;
use super::sides::{self, Aim};
use super::usage::{self, Perf, Usage, with_children};

/// Bits in a gigabit, and bytes in units of work of bulk transfers.
const GIGABIT: f64 = 1e9;
const GIBIBYTE: f64 = 1024.0 * 1024.0 * 1024.0;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Figures by metric (`record::figures::Metrics`).
pub type Sample = Vec<(String, f64)>;

/// Measures a case on all its sides that are wanted.
pub fn case(bench: &mut Bench, options: &Options, case: &Case) -> Result<Measured> {
    let mut measured = Measured::default();
    let sides = || case.sides().iter().copied().filter(|side| options.wants_side(*side));
    for round in 0..options.rounds {
        for side in sides() {
            let sample = one(bench, side, case, options.seconds).or_else(|error| {
                // One client that came late on a busy machine is no reason to lose all that was measured.
                eprintln!("round {round}: once more, because {error:#}");
                one(bench, side, case, options.seconds)
            })?;
            eprintln!("round {round}: {:<18} {:<13} {}", case.name, side.name(), brief(&sample));
            measured.add(side.name(), sample);
        }
    }
    for side in sides().filter(|side| side.has_proxies()) {
        if options.calls {
            let calls = calls(bench, side, case, options.seconds)?;
            measured.add(side.name(), [("calls".to_owned(), calls)]);
        }
        if let Some(directory) = &options.profile {
            profile(bench, side, case, options.seconds, directory)?;
        }
    }
    Ok(measured)
}

fn one(bench: &mut Bench, side: Side, case: &Case, seconds: u64) -> Result<Sample> {
    let aim = sides::aim(&bench.lab, side, case)?;
    let processes = with_children(&bench.processes(side))?;
    let mut client = Client::start(bench, side == Side::Rustls, case, &aim, seconds)
        .with_context(|| format!("{} on {}", case.name, side.name()))?;
    let before = Usage::of(&processes)?;
    let outcome = client.outcome().with_context(|| format!("{} on {}", case.name, side.name()))?;
    let used = Usage::of(&processes)?.since(&before);
    bench.sides.must_run(side)?;
    Ok(sample(case, &outcome, side.has_proxies().then_some(&used)))
}

/// The figures of an outcome, and of what the proxies used for it.
pub fn sample(case: &Case, outcome: &Outcome, used: Option<&Usage>) -> Sample {
    let done = outcome.done as f64;
    let (rate, work, count) = match case.load {
        Load::Throughput { .. } => (done * 8.0 / GIGABIT, done / GIBIBYTE, done / MEBIBYTE),
        _ => (done, done / 100_000.0, done),
    };
    let mut sample = vec![("rate".to_owned(), rate / outcome.seconds)];
    for (name, time) in [("p50", outcome.p50), ("p99", outcome.p99)] {
        sample.extend(time.map(|time| (name.to_owned(), time)));
    }
    if let Some(used) = used {
        sample.push(("cpu".to_owned(), used.cpu / work));
        sample.push(("switches".to_owned(), used.switches as f64 / count));
        // What is hardly there is noise.
        let threads = used.threads.iter().filter(|(_, time)| **time > 0.01 * used.cpu);
        sample.extend(threads.map(|(name, time)| (format!("cpu of {name}"), time / work)));
    }
    sample
}

fn brief(sample: &Sample) -> String {
    let short = sample.iter().filter(|(name, _)| !name.starts_with("cpu of "));
    short.map(|(name, figure)| format!("{name} {figure:.2}  ")).collect()
}

/// System calls of all proxies for each request, connection or MiB.
fn calls(bench: &mut Bench, side: Side, case: &Case, seconds: u64) -> Result<f64> {
    let aim = sides::aim(&bench.lab, side, case)?;
    let processes = with_children(&bench.processes(side))?;
    // How long perf takes to attach depends on the machine: the client goes on until it is told to end.
    let mut client = Client::start(bench, side == Side::Rustls, case, &aim, 0)?;
    let calls = usage::calls(&processes, seconds)?;
    client.end();
    let outcome = client.outcome()?;
    let count = if matches!(case.load, Load::Throughput { .. }) { MEBIBYTE } else { 1.0 };
    let done = outcome.done as f64 / outcome.seconds * seconds as f64 / count;
    Ok(calls / done)
}

/// Samples each proxy's stacks under the case's load.
fn profile(
    bench: &mut Bench,
    side: Side,
    case: &Case,
    seconds: u64,
    directory: &Path,
) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let aim = sides::aim(&bench.lab, side, case)?;
    let roots = bench.processes(side);
    let mut client = Client::start(bench, side == Side::Rustls, case, &aim, 0)?;
    let perfs: Vec<Perf> = (roots.iter().zip(1..))
        .map(|(process, number)| {
            let file = directory.join(format!("{}-{}-{number}.data", case.name, side.name()));
            Perf::sample(*process, seconds, &file)
        })
        .collect::<Result<_>>()?;
    perfs.into_iter().try_for_each(Perf::wait)?;
    client.end();
    client.outcome().map(drop)
}

/// A client that is warm; killed when dropped.
pub struct Client {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    /// With zero seconds it goes on until [`Client::end`].
    pub fn start(bench: &Bench, tls: bool, case: &Case, aim: &Aim, seconds: u64) -> Result<Self> {
        let mut command = bench.client(aim.pod)?;
        command.args(["client", case.name, &aim.to.to_string(), &seconds.to_string()]);
        if tls {
            command.arg("--tls").arg(&bench.directory);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start the client")?;
        let lines = BufReader::new(child.stdout.take().context("the client's output")?).lines();
        let mut client = Self { child, lines };
        let line = client.line()?;
        ensure!(line == BEGIN, "the client said {line}");
        Ok(client)
    }

    pub fn end(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits until its time is over.
    pub fn outcome(&mut self) -> Result<Outcome> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("the client said {line}"))
    }

    fn line(&mut self) -> Result<String> {
        if let Some(line) = self.lines.next() {
            return Ok(line?);
        }
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        bail!("the client ended: {said}")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
