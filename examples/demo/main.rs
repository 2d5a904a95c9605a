//! The demo: takes the reader through the introduction to Istio's waypoint proxies (`config/bookinfo` has its
//! manifests) on one machine, with real processes, real network namespaces and real mutual TLS. Every step
//! prints what was sent, what came back, and the agents' evidence; a step that fails says why and ends it.

#[path = "../../tests/support/support.rs"]
mod support;

#[path = "../../tests/support/collector.rs"]
mod collector;

mod authentication;
mod authorization;
mod bypass;
mod cleanup;
mod enrolment;
mod explained;
mod layer4;
mod plaintext;
mod publish;
mod report;
mod routing;
mod stage;
mod steps;
mod trace;
mod tunnel;
mod users;
mod waypoints;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use publish::Publisher;
use report::Report;
use stage::Stage;
use support::lab::{Programs, private};

/// Bookinfo on two nodes of this machine, with and without the mesh
#[derive(Parser, Debug)]
struct Options {
    /// Print one JSON object with a field per step instead of the story
    #[arg(long)]
    json: bool,
    /// At the end, mesh Bookinfo again, publish its page on localhost and wait for Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Where on localhost --keep publishes the page
    #[arg(long, default_value_t = 9080)]
    port: u16,
    /// The agent's binary; the one built beside the demo by default
    #[arg(long)]
    isthmus: Option<PathBuf>,
    /// The directory with Bookinfo's manifests
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/config/bookinfo"))]
    manifests: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the demo could not be run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether every step succeeded.
fn run(options: &Options) -> Result<bool> {
    let isthmus = match &options.isthmus {
        Some(path) => path.clone(),
        None => beside_the_demo()?,
    };
    let programs = Programs::beside(&isthmus)?;
    // The page is published on the host, so its listener is made before the host is left.
    let publisher = options.keep.then(|| Publisher::bind(options.port)).transpose()?;
    private::enter()?;

    let report = Report::new(options.json);
    report.title("Bookinfo on two nodes");
    let mut stage = Stage::build(&options.manifests, &programs, report)?;
    let ok = stage.play(steps::STEPS);
    stage.finish(ok);
    if let (true, Some(publisher)) = (ok, publisher) {
        publisher.run(&mut stage)?;
    }
    Ok(ok)
}

/// `target/<profile>/isthmus`, for a demo at `target/<profile>/examples/demo`.
fn beside_the_demo() -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the demo's own path")?;
    let profile = own.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    Ok(profile.join("isthmus"))
}
