//! First figures: throughput, connections per second and request latency between two nodes, through the mesh and
//! plainly over the same veths, in turns within one run. Machines are shared and noisy, so only the ratios mean
//! something; both sides of a ratio were measured seconds apart.

#[path = "../../tests/support/support.rs"]
mod support;

mod client;
mod server;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde_json::json;

use client::Load;
use support::lab::manifests::Key;
use support::lab::process::{self, Process};
use support::lab::{Lab, Programs, private, wait};

/// Namespace, service accounts and the two pods, on different nodes.
const MANIFESTS: &str = include_str!("manifests.yaml");

/// Isthmus against plain TCP
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// How often plain and meshed take turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Part {
    /// The server, in its pod (started by the bench itself)
    Server,
    /// One measurement, in the client's pod (started by the bench itself)
    Client { load: Load, server: std::net::IpAddr, seconds: u64 },
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.part {
        None => bench(&options),
        Some(Part::Server) => server::run(),
        Some(Part::Client { load, server, seconds }) => {
            client::run(*load, *server, Duration::from_secs(*seconds)).map(|it| println!("{it}"))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<()> {
    private::enter()?;
    let own = std::env::current_exe()?;
    let isthmus = own.parent().and_then(|it| it.parent()).context("a target directory")?;
    let programs = Programs::beside(&isthmus.join("isthmus"))?;
    let mut lab = Lab::build(&[MANIFESTS.to_owned()], &programs)?;
    free_ports(&lab)?;
    let _server = start_server(&lab, &own)?;
    lab.start_agents("")?;
    for agent in lab.agents() {
        agent.wait_until_ready()?;
    }
    let mut results: BTreeMap<&str, [Vec<f64>; 2]> = BTreeMap::new();
    for round in 0..options.rounds {
        for (side, meshed) in [false, true].into_iter().enumerate() {
            enrol(&mut lab, meshed)?;
            for load in Load::ALL {
                let figure = measure(&lab, &own, load, options.seconds)?;
                eprintln!(
                    "round {round}, {}: {} {figure:.1} {}",
                    if meshed { "mesh" } else { "plain" },
                    load.name(),
                    load.unit()
                );
                results.entry(load.name()).or_default()[side].push(figure);
            }
        }
    }
    report(options, &results);
    Ok(())
}

/// Thousands of connections a second between two addresses leave as many ports in TIME_WAIT; without this, the search
/// for a free one is what would be measured. The range begins above the ports that the agent listens on.
fn free_ports(lab: &Lab) -> Result<()> {
    for pod in ["client", "server"] {
        let namespace = &lab.pod(pod)?.attachment.namespace;
        namespace.set("ipv4/ip_local_port_range", "16000 65000")?;
        namespace.set("ipv4/tcp_tw_reuse", "1")?;
    }
    Ok(())
}

fn start_server(lab: &Lab, own: &Path) -> Result<Process> {
    let namespace = &lab.pod("server")?.attachment.namespace;
    let mut command = process::command(namespace, own);
    command.arg("server");
    let mut server = Process::start("bench-server", namespace, command, lab.logs())?;
    server.wait_for_port(server::ECHO)?;
    Ok(server)
}

/// Labels the namespace, and waits until both nodes have followed.
fn enrol(lab: &mut Lab, meshed: bool) -> Result<()> {
    let label = if meshed { "istio.io/dataplane-mode=ambient" } else { "istio.io/dataplane-mode-" };
    lab.manifests.label(&Key::new("Namespace", "", "bench"), &[label])?;
    for pod in ["client", "server"] {
        wait::until(
            &format!("{pod} to {} the mesh", if meshed { "join" } else { "leave" }),
            || Ok((lab.rules(pod)?.contains("redirect") == meshed).then_some(())),
        )?;
    }
    // Connections that are still drained would share the processor with the measurement.
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}

fn measure(lab: &Lab, own: &Path, load: Load, seconds: u64) -> Result<f64> {
    let namespace = &lab.pod("client")?.attachment.namespace;
    let mut command = process::command(namespace, own);
    command.args([
        "client",
        load.name(),
        &lab.address("server")?.to_string(),
        &seconds.to_string(),
    ]);
    let output = command.output().context("run the client")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().with_context(|| {
        format!("the client said {text:?} and {}", String::from_utf8_lossy(&output.stderr))
    })
}

fn report(options: &Options, results: &BTreeMap<&str, [Vec<f64>; 2]>) {
    let median = |figures: &[f64]| {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let mut all = serde_json::Map::new();
    for load in Load::ALL {
        let [plain, mesh] = &results[load.name()];
        let (plain, mesh) = (median(plain), median(mesh));
        all.insert(
            load.name().into(),
            json!({
                "unit": load.unit(), "plain": plain, "mesh": mesh, "mesh_to_plain": mesh / plain,
            }),
        );
        if !options.json {
            println!(
                "{:<24} plain {plain:>12.1}  mesh {mesh:>12.1} {:<15} mesh/plain {:.3}",
                load.name(),
                load.unit(),
                mesh / plain
            );
        }
    }
    if options.json {
        println!("{}", serde_json::Value::Object(all));
    }
}
