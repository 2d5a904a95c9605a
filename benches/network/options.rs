//! The command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use clap::{Parser, Subcommand};

use super::record::case::{ALONE, CASES, Case, Side};

/// Isthmus against what it replaces, plain proxies, rustls and plain TCP
#[derive(Parser)]
pub struct Options {
    #[command(subcommand)]
    pub part: Option<Part>,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 3)]
    pub seconds: u64,
    /// How often the sides take turns
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Only this case; several times for several. `list` names all
    #[arg(long = "case")]
    pub cases: Vec<String>,
    /// Only this side; several times for several
    #[arg(long = "side")]
    pub sides: Vec<Side>,
    /// Threads of each proxy that is not Isthmus; one for each processor unless given
    #[arg(long, default_value_t = processors())]
    pub threads: usize,
    /// Also counts system calls with perf, in a round of its own: each is slower then
    #[arg(long)]
    pub calls: bool,
    /// Also samples the stacks of each side's proxies with perf, into files of this directory
    #[arg(long)]
    pub profile: Option<PathBuf>,
    /// Settings of the agents, as TOML
    #[arg(long, default_value = "")]
    pub settings: String,
    /// What else is to be known of this run, for the documentation
    #[arg(long, default_value = "")]
    pub note: String,
    /// Where the figures are kept; cases that are not measured now stay
    #[arg(long, default_value_os_t = target("bench/figures.json"))]
    pub output: PathBuf,
    /// Envoy's program
    #[arg(long, default_value_os_t = target("tools/envoy/envoy/_bin/envoy"))]
    pub envoy: PathBuf,
    /// Prints the figures of this run as JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// Puts the kept figures into docs/performance.md and its charts
    #[arg(long)]
    pub document: bool,
}

#[derive(Subcommand)]
pub enum Part {
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
    /// Puts kept figures into docs/performance.md and its charts, and prints the tables
    Render {
        #[arg(default_value_os_t = target("bench/figures.json"))]
        from: PathBuf,
    },
    /// The server, in its pod (started by the bench itself)
    #[command(hide = true)]
    Server { directory: PathBuf },
    /// One measurement, in the client's pod (started by the bench itself)
    #[command(hide = true)]
    Client {
        case: String,
        server: SocketAddr,
        /// None: until its input ends
        seconds: u64,
        /// Where the certificate of the bench is: speaks TLS itself
        #[arg(long)]
        tls: Option<PathBuf>,
    },
    /// Idle connections, in the client's pod (started by the bench itself)
    #[command(hide = true)]
    Hold {
        server: SocketAddr,
        count: usize,
        #[arg(long)]
        http: bool,
    },
}

impl Options {
    pub fn check(&self) -> Result<()> {
        let known = |name: &String| {
            Case::named(name).is_some() || ALONE.iter().any(|(alone, _)| alone == name)
        };
        if let Some(unknown) = self.cases.iter().find(|name| !known(name)) {
            bail!("there is no case {unknown}; there are:\n{}", names());
        }
        ensure!(self.seconds > 0 && self.rounds > 0, "nothing to measure");
        Ok(())
    }

    /// Whether only the names of the cases are asked for.
    pub fn lists(&self) -> bool {
        self.cases == ["list"]
    }

    pub fn wants(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|name| name == case)
    }

    /// Cases of Isthmus alone are not measured for another side.
    pub fn wants_alone(&self, case: &str) -> bool {
        self.wants(case) && (self.sides.is_empty() || self.sides.contains(&Side::Isthmus))
    }

    pub fn wants_side(&self, side: Side) -> bool {
        self.sides.is_empty() || self.sides.contains(&side)
    }

    /// The sides of all cases that are wanted.
    pub fn all_sides(&self) -> Vec<Side> {
        let cases = || CASES.iter().filter(|case| self.wants(case.name));
        let of_cases = |side: &Side| cases().any(|case| case.sides().contains(side));
        Side::ALL.into_iter().filter(|side| self.wants_side(*side) && of_cases(side)).collect()
    }
}

/// All cases with what they measure, one a line.
pub fn names() -> String {
    let compared = CASES.iter().map(|case| (case.name, case.whole_title()));
    let alone = ALONE.into_iter().map(|(name, title)| (name, title.to_owned()));
    let lines: Vec<String> =
        compared.chain(alone).map(|(name, title)| format!("  {name:<20} {title}")).collect();
    lines.join("\n")
}

/// A file of the target directory that this program is in.
fn target(file: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(3).unwrap_or(Path::new("target")).join(file)
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
