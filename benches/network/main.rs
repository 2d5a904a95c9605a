//! What the mesh costs, beside what it replaces and beside plain proxies: requests, connections, bytes and latencies over the same
//! kind of veths, the sides in turn within one run; the processor time, context switches and system calls of all proxies; memory;
//! many objects against one. Machines are shared and noisy, so only ratios mean something; both sides of a ratio were measured
//! seconds apart.

#[path = "../../tests/support/support.rs"]
mod support;

mod abuse;
mod alone;
mod churn;
mod http;
mod lab;
mod load;
mod measure;
mod options;
#[path = "record/record.rs"]
mod record;
mod server;
mod sides;
#[path = "../../tests/support/siege.rs"]
mod siege;
mod usage;
mod wire;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use lab::Bench;
use load::Target;
use options::{Options, Part};
use record::case::{CASES, Case};
use record::figures::{Figures, Measured, Run};
use record::{page, tables};

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.part {
        None => bench(&options),
        Some(Part::Churn { connections, time }) => churn(*connections, *time),
        Some(Part::Abuse { rounds }) => abuse(*rounds),
        Some(Part::Render { from }) => render(from),
        Some(Part::Server { directory }) => server::run(directory),
        Some(Part::Client { case, server, seconds, tls }) => {
            measure_here(case, *server, *seconds, tls.as_deref())
        }
        Some(Part::Hold { server, count, http }) => load::hold(*server, *count, *http),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One measurement, in the client's pod.
fn measure_here(
    case: &str,
    server: std::net::SocketAddr,
    seconds: u64,
    tls: Option<&Path>,
) -> Result<()> {
    let case = Case::named(case).with_context(|| format!("there is no case {case}"))?;
    let tls = tls.map(wire::client_config).transpose()?;
    let time = (seconds > 0).then(|| Duration::from_secs(seconds));
    load::run(case.load, &Target { server, tls }, time)
}

fn bench(options: &Options) -> Result<()> {
    if options.lists() {
        println!("{}", options::names());
        return Ok(());
    }
    options.check()?;
    let mut bench = Bench::start(options)?;
    let run = Run {
        date: output("date", &["+%F"]),
        commit: output("git", &["describe", "--always", "--dirty"]),
        machine: machine()?,
        seconds: options.seconds,
        rounds: options.rounds,
        note: options.note.clone(),
    };
    // Also what other runs measured: a case is replaced as a whole.
    let mut all = Figures::read(&options.output)?;
    let mut new = Figures::default();
    let compared = CASES.iter().filter(|case| options.wants(case.name));
    let mut done: Vec<(&str, Measured)> = Vec::new();
    for case in compared {
        let measured = measure::case(&mut bench, options, case);
        done.push((case.name, measured.map_err(|error| bench.with_logs(error))?));
        keep(&mut all, &mut new, &mut done, &run, &options.output)?;
    }
    for (name, _) in record::case::ALONE.iter().filter(|(name, _)| options.wants_alone(name)) {
        let measured = alone::case(&mut bench, options, name);
        done.push((name, measured.map_err(|error| bench.with_logs(error))?));
        keep(&mut all, &mut new, &mut done, &run, &options.output)?;
    }
    if options.json {
        print!("{}", new.text()?);
    } else {
        print!("{}", tables::all(&new));
    }
    if options.document { page::write(&all) } else { Ok(()) }
}

/// Writes what was measured so far, so that a run that fails has not been in vain.
fn keep(
    all: &mut Figures,
    new: &mut Figures,
    done: &mut Vec<(&str, Measured)>,
    run: &Run,
    output: &Path,
) -> Result<()> {
    for (name, measured) in done.drain(..) {
        let measured = Measured { run: run.clone(), ..measured };
        all.cases.insert(name.to_owned(), measured.clone());
        new.cases.insert(name.to_owned(), measured);
    }
    all.write(output)
}

/// Puts recorded figures into the documentation.
fn render(from: &Path) -> Result<()> {
    let figures = Figures::read(from)?;
    print!("{}", tables::all(&figures));
    page::write(&figures)
}

/// The first line that a command prints; nothing if it cannot be started.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output();
    let text = output.map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
    text.unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

fn machine() -> Result<String> {
    let processors = std::fs::read_to_string("/proc/cpuinfo")?;
    let lines = || processors.lines().filter_map(|line| line.split_once(':'));
    let count = lines().filter(|(name, _)| name.trim() == "processor").count();
    let model = lines().find(|(name, _)| name.trim() == "model name");
    let model = model.map_or("of an unknown kind", |(_, model)| model.trim());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let version = kernel.split('-').next().unwrap_or_default().trim();
    Ok(format!("{count} processors ({model}), Linux {version}"))
}

fn churn(connections: usize, seconds: u64) -> Result<()> {
    churn::check(connections)?;
    churn::allow(connections)?;
    let mut bench = Bench::of_agents(&churn::settings(connections))?;
    churn::run(&mut bench, connections, seconds)
}

fn abuse(rounds: usize) -> Result<()> {
    let mut bench = Bench::of_agents("")?;
    abuse::run(&mut bench, rounds)
}
