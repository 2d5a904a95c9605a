//! What the mesh costs: throughput, connections and latency across nodes and on one node, plainly, with rustls by
//! itself and through the mesh, over the same veths and in turns within one run; HTTP requests plainly, through layer 4
//! and through a waypoint; then the agents' processor time and memory, and a thousand policies against one. Machines are shared and noisy, so only the ratios mean something;
//! both sides of a ratio were measured seconds apart.

#[path = "../../tests/support/support.rs"]
mod support;

mod abuse;
mod agents;
mod churn;
mod client;
mod http;
mod report;
mod server;
#[path = "../../tests/support/siege.rs"]
mod siege;
mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use client::{Load, Target};
use report::{Place, Report, Side};
use support::lab::manifests::Key;
use support::lab::process::{self, Process};
use support::lab::{Lab, Programs, private, wait};

/// Namespace, service accounts and the pods: two on one node, one on another.
const MANIFESTS: &str = include_str!("manifests.yaml");

/// Isthmus against plain TCP and against rustls
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// How often the sides take turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections that are held for the memory of an idle one
    #[arg(long, default_value_t = 5000)]
    idle: usize,
    /// Workloads that are captured for the memory of one
    #[arg(long, default_value_t = 500)]
    workloads: usize,
    /// Policies that are compared with one
    #[arg(long, default_value_t = 1000)]
    policies: usize,
    /// Only this load, and nothing of the agents
    #[arg(long)]
    load: Option<Load>,
    /// Only this side
    #[arg(long)]
    side: Option<Side>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Part {
    /// The server, in its pod (started by the bench itself)
    Server { directory: PathBuf },
    /// One measurement, in the client's pod (started by the bench itself)
    Client {
        load: Load,
        server: std::net::IpAddr,
        seconds: u64,
        /// Where the certificate of the bench is: speaks TLS itself
        #[arg(long)]
        tls: Option<PathBuf>,
    },
    /// What open connections cost while another namespace changes a route ten times a second
    Churn {
        #[arg(long, default_value_t = 50_000)]
        connections: usize,
        /// For each measurement
        #[arg(long, default_value_t = 10)]
        time: u64,
    },
    /// How much longer one client's requests take while another one takes what it can of the waypoint
    Abuse {
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Idle connections, in the client's pod (started by the bench itself)
    Hold { server: std::net::IpAddr, count: usize },
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.part {
        None => bench(&options),
        Some(Part::Churn { connections, time }) => churn(*connections, *time),
        Some(Part::Abuse { rounds }) => abuse(*rounds),
        Some(Part::Server { directory }) => server::run(directory),
        Some(Part::Client { load, server, seconds, tls }) => {
            measure_here(*load, *server, *seconds, tls.as_deref())
        }
        Some(Part::Hold { server, count }) => {
            client::hold(&Target { server: *server, tls: None }, *count)
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

fn measure_here(
    load: Load,
    server: std::net::IpAddr,
    seconds: u64,
    tls: Option<&Path>,
) -> Result<()> {
    let tls = tls.map(wire::client_config).transpose()?;
    let figure = client::run(load, &Target { server, tls }, Duration::from_secs(seconds))?;
    println!("{figure}");
    Ok(())
}

/// The lab and what runs in it.
pub struct Bench {
    lab: Lab,
    own: PathBuf,
    /// Where the certificate for rustls by itself is.
    directory: PathBuf,
    seconds: u64,
    _servers: Vec<Process>,
}

fn bench(options: &Options) -> Result<()> {
    let mut bench = Bench::start(options.seconds)?;
    let mut report = Report::default();
    for round in 0..options.rounds {
        for side in Side::ALL.into_iter().filter(|it| options.side.is_none_or(|only| only == *it)) {
            bench.enrol(side.is_meshed())?;
            let wanted = |load: &Load| {
                options.load.is_none_or(|only| only == *load) && load.sides().contains(&side)
            };
            for (place, load) in Place::loads().filter(|(_, load)| wanted(load)) {
                let figure = bench.measure(place, side, load)?;
                eprintln!("round {round}: {place} {side} {} {figure:.1}", load.name());
                report.add(place, side, load, figure);
            }
        }
    }
    if options.load.is_some() || options.side.is_some() {
        report.print(options.json);
        return Ok(());
    }
    bench.enrol(true)?;
    report.processor = agents::processor(&mut bench)?;
    report.policies = agents::policies(&mut bench, options.policies, options.rounds)?;
    report.memory = agents::memory(&mut bench, options.idle, options.workloads)?;
    report.print(options.json);
    Ok(())
}

fn churn(connections: usize, seconds: u64) -> Result<()> {
    churn::check(connections)?;
    churn::allow(connections)?;
    let mut bench = Bench::start_with(seconds, &churn::settings(connections))?;
    bench.enrol(true)?;
    churn::run(&mut bench, connections, seconds)
}

fn abuse(rounds: usize) -> Result<()> {
    siege::raise_descriptors()?;
    let mut bench = Bench::start_with(0, "[log]\nlevel = \"info,access=off\"\n")?;
    bench.enrol(true)?;
    abuse::run(&mut bench, rounds)
}

impl Bench {
    fn start(seconds: u64) -> Result<Self> {
        Self::start_with(seconds, "")
    }

    /// With `more` settings of the agents.
    fn start_with(seconds: u64, more: &str) -> Result<Self> {
        private::enter()?;
        let own = std::env::current_exe()?;
        let isthmus = own.parent().and_then(|it| it.parent()).context("a target directory")?;
        let programs = Programs::beside(&isthmus.join("isthmus"))?;
        let mut lab = Lab::build(&[MANIFESTS.to_owned()], &programs)?;
        free_ports(&lab)?;
        let directory = lab.logs().to_owned();
        wire::prepare(&directory)?;
        let servers = ["server", "neighbour"]
            .map(|pod| start_server(&lab, pod, &own, &directory))
            .into_iter()
            .collect::<Result<_>>()?;
        lab.start_agents(more)?;
        for agent in lab.agents() {
            agent.wait_until_ready()?;
        }
        Ok(Self { lab, own, directory, seconds, _servers: servers })
    }

    /// Labels the namespace, and waits until both nodes have followed.
    fn enrol(&mut self, meshed: bool) -> Result<()> {
        let label =
            if meshed { "istio.io/dataplane-mode=ambient" } else { "istio.io/dataplane-mode-" };
        self.lab.manifests.label(&Key::new("Namespace", "", "bench"), &[label])?;
        for pod in ["client", "server", "neighbour"] {
            wait::until(
                &format!("{pod} to {} the mesh", if meshed { "join" } else { "leave" }),
                || Ok((self.lab.rules(pod)?.contains("redirect") == meshed).then_some(())),
            )?;
        }
        // Connections that are still drained would share the processor with the measurement.
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    }

    fn measure(&self, place: Place, side: Side, load: Load) -> Result<f64> {
        let mut command = self.client()?;
        let server = match side {
            Side::Waypoint => self.lab.service("bench", place.server())?[0],
            _ => self.lab.address(place.server())?,
        };
        let server = server.to_string();
        command.args(["client", load.name(), &server, &self.seconds.to_string()]);
        if side == Side::Rustls {
            command.arg("--tls").arg(&self.directory);
        }
        let output = command.output().context("run the client")?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().with_context(|| {
            format!("the client said {text:?} and {}", String::from_utf8_lossy(&output.stderr))
        })
    }

    /// This program, in the client's pod.
    fn client(&self) -> Result<std::process::Command> {
        Ok(process::command(&self.lab.pod("client")?.attachment.namespace, &self.own))
    }
}

/// Thousands of connections a second between two addresses leave as many ports in TIME_WAIT; without this, the search
/// for a free one is what would be measured. The range begins above the ports that the agent listens on.
fn free_ports(lab: &Lab) -> Result<()> {
    for pod in ["client", "server", "neighbour"] {
        let namespace = &lab.pod(pod)?.attachment.namespace;
        namespace.set("ipv4/ip_local_port_range", "16000 65000")?;
        namespace.set("ipv4/tcp_tw_reuse", "1")?;
    }
    Ok(())
}

fn start_server(lab: &Lab, pod: &str, own: &Path, directory: &Path) -> Result<Process> {
    let namespace = &lab.pod(pod)?.attachment.namespace;
    let mut command = process::command(namespace, own);
    command.arg("server").arg(directory);
    let mut server = Process::start(&format!("bench-{pod}"), namespace, command, lab.logs())?;
    server.wait_for_port(server::ECHO)?;
    server.wait_for_port(http::HTTP)?;
    Ok(server)
}
