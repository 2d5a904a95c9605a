//! The lab and what runs in it: servers in all pods that are asked, the agents, and the proxies of the other sides.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::options::Options;
use super::record::case::Side;
use super::sides::{Sides, Start};
use super::support::lab::process::{self, Process};
use super::support::lab::{Lab, Programs, private, wait};
use super::{http, server, siege, wire};

const MANIFESTS: &str = include_str!("manifests.yaml");

/// Pods with a server.
const SERVERS: [&str; 8] = [
    "server",
    "judged",
    "neighbour",
    "plain-server",
    "plain-neighbour",
    "path-server",
    "path-neighbour",
    "noisy-server",
];
/// Pods of the mesh.
const MESHED: [&str; 6] =
    ["client", "server", "judged", "neighbour", "noisy-client", "noisy-server"];

/// Requests and connections are not logged: what a log costs depends on who reads it.
const QUIET: &str = "[log]\nlevel = \"info,access=off\"\n";

pub struct Bench {
    pub lab: Lab,
    pub sides: Sides,
    /// This program.
    pub own: PathBuf,
    /// Where the certificate for rustls by itself is.
    pub directory: PathBuf,
    pub servers: Vec<Process>,
}

impl Bench {
    pub fn start(options: &Options) -> Result<Self> {
        let mut bench = Self::of_agents(&options.settings)?;
        let start = Start { lab: &bench.lab, envoy: &options.envoy, threads: options.threads };
        bench.sides = Sides::start(&start, &options.all_sides())?;
        Ok(bench)
    }

    /// With these settings of the agents, and without proxies of other sides.
    pub fn of_agents(settings: &str) -> Result<Self> {
        siege::raise_descriptors()?;
        private::enter()?;
        let own = std::env::current_exe()?;
        let isthmus = own.parent().and_then(|it| it.parent()).context("a target directory")?;
        let programs = Programs::beside(&isthmus.join("isthmus"))?;
        let mut lab = Lab::build(&[MANIFESTS.to_owned()], &programs)?;
        free_ports(&lab)?;
        let directory = lab.logs().to_owned();
        wire::prepare(&directory)?;
        let servers = SERVERS
            .map(|pod| start_server(&lab, pod, &own, &directory))
            .into_iter()
            .collect::<Result<_>>()?;
        lab.start_agents(&format!("{QUIET}{settings}"))?;
        for agent in lab.agents() {
            agent.wait_until_ready()?;
        }
        for pod in MESHED {
            let captured = || Ok(lab.rules(pod)?.contains("redirect").then_some(()));
            wait::until(&format!("{pod} to join the mesh"), captured)?;
        }
        Ok(Self { lab, sides: Sides::default(), own, directory, servers })
    }

    /// This program, in a pod.
    pub fn client(&self, pod: &str) -> Result<Command> {
        Ok(process::command(&self.lab.pod(pod)?.attachment.namespace, &self.own))
    }

    /// An error that says where the logs of everything are kept.
    pub fn with_logs(&self, error: anyhow::Error) -> anyhow::Error {
        match self.lab.save_logs() {
            Ok(directory) => error.context(format!("logs are in {}", directory.display())),
            Err(_) => error,
        }
    }

    /// The processes that carry a side's load, without their children.
    pub fn processes(&mut self, side: Side) -> Vec<u32> {
        match side {
            Side::Isthmus | Side::IsthmusBare => self.agents(),
            _ => self.sides.processes(side),
        }
    }

    /// The agents' processes.
    pub fn agents(&mut self) -> Vec<u32> {
        self.lab.agents().iter_mut().map(|agent| agent.process().id()).collect()
    }
}

/// Thousands of connections a second between two addresses leave as many ports in TIME_WAIT; without this, the search
/// for a free one is what would be measured. The range begins above the ports that proxies listen on.
fn free_ports(lab: &Lab) -> Result<()> {
    for (_, pod) in lab.pods() {
        let namespace = &pod.attachment.namespace;
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
