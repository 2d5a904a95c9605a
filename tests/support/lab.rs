//! A lab: nodes and pods as network namespaces on this machine, a live directory of manifests, an agent for
//! each node. It is built from Pod and Service manifests alone, as a cluster would be.
//!
//! Everything happens in a private network and mount namespace ([`private::enter`], first of all), processes
//! die with the thread that started them, and files are in a private `/run`: when the lab's process ends, in
//! whatever way, nothing of it remains, and nothing of the host was touched.
//!
//! A lab must stay on the thread that built it: that thread is in the private namespaces, and the kernel ends
//! the processes with it.

#![allow(dead_code, reason = "the demo and the tests use different parts")]

pub mod agents;
pub mod any_server;
pub mod capture;
pub mod command;
pub mod curl;
pub mod manifests;
pub mod many;
pub mod metrics;
pub mod netns;
pub mod network;
pub mod pods;
pub mod private;
pub mod process;
pub mod services;
pub mod vanish;
pub mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use agents::{Agent, Mark, Shared};
use capture::Capture;
use curl::Answer;
use manifests::{Key, Manifests};
use metrics::Metrics;
use netns::Namespace;
use network::{Attachment, Network, Node};
use process::Process;
use services::Service;

/// Bookinfo's port; what a pod with a program must listen on before the lab counts as built.
pub const PORT: u16 = 9080;

/// The programs that a lab runs.
#[derive(Clone, Debug)]
pub struct Programs {
    pub bookinfo: PathBuf,
    pub isthmus: PathBuf,
}

/// A running lab.
pub struct Lab {
    pub manifests: Manifests,
    /// Variables of the agents to be started.
    pub environment: Vec<(String, String)>,
    network: Network,
    pods: BTreeMap<String, Pod>,
    services: Vec<Service>,
    agents: Vec<Agent>,
    programs: Programs,
    logs: PathBuf,
}

/// A pod of the lab; its name is unique in it.
pub struct Pod {
    pub plan: pods::Plan,
    pub attachment: Attachment,
    /// `None` for a pod that is only a place to run clients in.
    process: Option<Process>,
}

/// What the agents had printed and counted at some moment.
pub struct Moment {
    marks: Vec<Mark>,
    pub metrics: Metrics,
}

impl Programs {
    /// Both as cargo leaves them, next to one another in a target directory.
    pub fn beside(isthmus: &Path) -> Result<Self> {
        let directory = isthmus.parent().unwrap_or(Path::new("."));
        let bookinfo = directory.join("examples/bookinfo");
        ensure!(
            bookinfo.exists(),
            "{} is not there: build it with `cargo build --examples`",
            bookinfo.display()
        );
        Ok(Self { bookinfo, isthmus: isthmus.to_owned() })
    }
}

impl Lab {
    /// Builds the lab that `documents` describe, each a text of manifests, and starts the pods' programs.
    /// The agents are started separately.
    pub fn build(documents: &[String], programs: &Programs) -> Result<Self> {
        let directory = Path::new(private::DIRECTORY);
        let logs = directory.join("logs");
        fs::create_dir(&logs)?;
        let mut manifests = Manifests::new(&directory.join("manifests"))?;
        for document in documents {
            manifests.apply(document)?;
        }
        let plans = pods::plans(&manifests)?;
        let nodes: BTreeSet<&String> = plans.iter().map(|plan| &plan.node).collect();
        let nodes: Vec<String> = nodes.into_iter().cloned().collect();
        let mut network = Network::build(&nodes)?;
        let mut pods = BTreeMap::new();
        for plan in plans {
            let attachment = network.attach(&plan.node, &plan.network_namespace)?;
            pods::set_addresses(&mut manifests, &plan, &attachment.addresses)?;
            let name = plan.key.name.clone();
            pods.insert(name, Pod { plan, attachment, process: None });
        }
        services::assign_addresses(&mut manifests)?;
        let services = services::collect(&manifests)?;
        for node in network.nodes() {
            services::install(node, &services)?;
        }
        private::set_hosts(&services::hosts(&services))?;
        let mut lab = Self {
            manifests,
            environment: Vec::new(),
            network,
            pods,
            services,
            agents: Vec::new(),
            programs: programs.clone(),
            logs,
        };
        lab.start_pods()?;
        Ok(lab)
    }

    fn start_pods(&mut self) -> Result<()> {
        for (name, pod) in &mut self.pods {
            pod.start(name, &self.programs, &self.logs)?;
        }
        for pod in self.pods.values_mut() {
            pod.wait_until_it_listens()?;
        }
        Ok(())
    }

    /// Ends a pod and recreates it under the same name, as a new namespace; with another address, its manifest and
    /// the Services change.
    pub fn recreate_pod(&mut self, name: &str, same_address: bool) -> Result<()> {
        let pod = self.pods.get_mut(name).ok_or_else(|| anyhow!("the lab has no pod {name}"))?;
        pod.process = None;
        let node = pod.plan.node.clone();
        pod.attachment = self.network.attach_anew(&node, pod.attachment.clone(), same_address)?;
        if !same_address {
            pods::set_addresses(&mut self.manifests, &pod.plan, &pod.attachment.addresses)?;
            self.services = services::collect(&self.manifests)?;
            for node in self.network.nodes() {
                services::install(node, &self.services)?;
            }
        }
        pod.start(name, &self.programs, &self.logs)?;
        pod.wait_until_it_listens()
    }

    /// Ends the program of a pod, which stays: connections to its port are refused.
    pub fn stop_program(&mut self, name: &str) -> Result<()> {
        let pod = self.pods.get_mut(name).ok_or_else(|| anyhow!("the lab has no pod {name}"))?;
        pod.process = None;
        Ok(())
    }

    /// Starts it again.
    pub fn start_program(&mut self, name: &str) -> Result<()> {
        let pod = self.pods.get_mut(name).ok_or_else(|| anyhow!("the lab has no pod {name}"))?;
        pod.start(name, &self.programs, &self.logs)?;
        pod.wait_until_it_listens()
    }

    /// Starts an agent on every node, with `more` at the end of its settings.
    pub fn start_agents(&mut self, more: &str) -> Result<()> {
        self.start_agents_each(|_| more.to_owned())
    }

    /// The same, with settings for each node.
    pub fn start_agents_each(&mut self, more: impl Fn(&str) -> String) -> Result<()> {
        for node in self.network.nodes() {
            let shared = Shared {
                program: &self.programs.isthmus,
                directory: Path::new(private::DIRECTORY),
                manifests: self.manifests.directory(),
                environment: &self.environment,
            };
            self.agents.push(Agent::start(node, &shared, &more(&node.name), &self.logs)?);
        }
        Ok(())
    }

    /// Starts another agent for a node, which takes over from the one that runs; returns that one.
    pub fn upgrade_agent(&mut self, node: &str) -> Result<Agent> {
        Ok(self.upgrade_agent_often(node, 1)?.remove(0))
    }

    /// Starts another agent for a node and tells it to end after so long: whether it took over before that.
    pub fn upgrade_agent_and_give_up(&mut self, node: &str, after: Duration) -> Result<bool> {
        let serving = self.agents.iter_mut().find(|agent| agent.node == node);
        let serving = serving.ok_or_else(|| anyhow!("no agent runs on {node}"))?;
        let shared = Shared {
            program: &self.programs.isthmus,
            directory: Path::new(private::DIRECTORY),
            manifests: self.manifests.directory(),
            environment: &self.environment,
        };
        let place = self.network.node(node).ok_or_else(|| anyhow!("the lab has no node {node}"))?;
        let mark = serving.mark();
        let mut other = Agent::begin(place, &shared, "", &self.logs)?;
        std::thread::sleep(after);
        other.process().signal(nix::sys::signal::Signal::SIGTERM)?;
        let code = other.process().wait_for_end()?;
        // Before it listens for signals it ends by one.
        ensure!(matches!(code, None | Some(0)), "it ended with {code:?}");
        let lines = serving.lines_since(&mark);
        let over = lines.iter().any(|line| line.contains("a successor serves now"));
        if !over {
            serving.process().must_run()?;
        }
        Ok(over)
    }

    /// Starts so many agents for a node at once. They take over one after the other; returns those that handed over.
    pub fn upgrade_agent_often(&mut self, node: &str, times: usize) -> Result<Vec<Agent>> {
        let index = self.agents.iter().position(|agent| agent.node == node);
        let index = index.ok_or_else(|| anyhow!("no agent runs on {node}"))?;
        let shared = Shared {
            program: &self.programs.isthmus,
            directory: Path::new(private::DIRECTORY),
            manifests: self.manifests.directory(),
            environment: &self.environment,
        };
        let node = self.network.node(node).ok_or_else(|| anyhow!("the lab has no node {node}"))?;
        let mark = self.agents[index].mark();
        let mut agents = vec![self.agents.remove(index)];
        for _ in 0..times {
            agents.push(Agent::begin(node, &shared, "", &self.logs)?);
        }
        // All of a node write to one log.
        wait::until("the successors to take over", || {
            let lines = agents[0].lines_since(&mark);
            let said = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
            let over = said("took over from the agent") == times
                && said("a successor serves now") == times;
            if !over && agents.iter_mut().skip(1).all(|it| it.process().must_run().is_err()) {
                bail!("all successors ended: {}", lines.join("\n"));
            }
            Ok(over.then_some(()))
        })?;
        // The agent that took over last holds the agent's own ports.
        let last = match times {
            1 => 1,
            _ => wait::until("those that handed over to end", || {
                let mut run =
                    (0..agents.len()).filter(|at| agents[*at].process().must_run().is_ok());
                let first = run.next();
                Ok(first.filter(|_| run.next().is_none()))
            })?,
        };
        let mut serving = agents.remove(last);
        serving.wait_until_ready()?;
        self.agents.insert(index, serving);
        Ok(agents)
    }

    /// Kills the agent of a node as the kernel would, and restarts it.
    pub fn kill_and_restart_agent(&mut self, node: &str, more: &str) -> Result<()> {
        let index = self.kill_agent(node)?;
        self.start_agent(index, node, more)
    }

    /// Kills the agent of a node as the kernel would; returns its place among the agents.
    pub fn kill_agent(&mut self, node: &str) -> Result<usize> {
        let index = self.agents.iter().position(|agent| agent.node == node);
        let index = index.ok_or_else(|| anyhow!("no agent runs on {node}"))?;
        // Dropping a process kills it.
        drop(self.agents.remove(index));
        Ok(index)
    }

    /// Starts the agent of a node at this place among the agents.
    pub fn start_agent(&mut self, index: usize, node: &str, more: &str) -> Result<()> {
        let shared = Shared {
            program: &self.programs.isthmus,
            directory: Path::new(private::DIRECTORY),
            manifests: self.manifests.directory(),
            environment: &self.environment,
        };
        let node = self.network.node(node).ok_or_else(|| anyhow!("the lab has no node {node}"))?;
        self.agents.insert(index, Agent::start(node, &shared, more, &self.logs)?);
        Ok(())
    }

    /// Asks all agents to end, one after another; returns their exit codes, `None` for a signal.
    pub fn stop_agents(&mut self) -> Result<Vec<Option<i32>>> {
        let mut agents = std::mem::take(&mut self.agents);
        agents.iter_mut().map(|agent| agent.process().terminate()).collect()
    }

    pub fn agents(&mut self) -> &mut [Agent] {
        &mut self.agents
    }

    /// The directory in which the agents keep their common CA.
    pub fn ca_directory(&self) -> PathBuf {
        Path::new(private::DIRECTORY).join("ca")
    }

    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Copies the logs to where they outlive the lab: a new directory in the host's temporary one.
    pub fn save_logs(&self) -> Result<PathBuf> {
        let name = format!("isthmus-lab-{}", std::process::id());
        let target = std::env::temp_dir().join(name);
        fs::create_dir(&target)?;
        for entry in fs::read_dir(&self.logs)? {
            let entry = entry?;
            fs::copy(entry.path(), target.join(entry.file_name()))?;
        }
        Ok(target)
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    pub fn node(&self, name: &str) -> Result<&Node> {
        self.network.node(name).ok_or_else(|| anyhow!("the lab has no node {name}"))
    }

    pub fn pods(&self) -> impl Iterator<Item = (&String, &Pod)> {
        self.pods.iter()
    }

    pub fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.get(name).ok_or_else(|| anyhow!("the lab has no pod {name}"))
    }

    /// The IPv4 address of a pod.
    pub fn address(&self, pod: &str) -> Result<IpAddr> {
        Ok(self.pod(pod)?.attachment.addresses[0])
    }

    /// The virtual addresses of a Service, IPv4 first.
    pub fn service(&self, namespace: &str, name: &str) -> Result<[IpAddr; 2]> {
        self.services
            .iter()
            .find(|service| service.key.namespace == namespace && service.key.name == name)
            .map(|service| service.addresses)
            .ok_or_else(|| anyhow!("the lab has no Service {namespace}/{name}"))
    }

    /// Applies a file of manifests.
    pub fn apply_file(&mut self, file: &Path) -> Result<Vec<Key>> {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        self.manifests.apply(&text).with_context(|| format!("apply {}", file.display()))
    }

    /// Runs curl in a pod.
    pub fn curl(&self, pod: &str, arguments: &[&str]) -> Result<Answer> {
        curl::curl(&self.pod(pod)?.attachment.namespace, arguments)
    }

    /// Records the packets on the link between the nodes, as `node` sees it.
    pub fn capture(&self, node: &str) -> Result<Capture> {
        Capture::start(self.node(node)?)
    }

    /// The packet rules in a pod's namespace; empty when there are none.
    pub fn rules(&self, pod: &str) -> Result<String> {
        rules(&self.pod(pod)?.attachment.namespace)
    }

    /// The packet rules in a node's namespace; those of the Services are always among them.
    pub fn node_rules(&self, node: &str) -> Result<String> {
        rules(&self.node(node)?.namespace)
    }

    /// The output of a pod's program.
    pub fn pod_log(&self, pod: &str) -> Result<String> {
        let process = &self.pod(pod)?.process;
        Ok(process.as_ref().map(Process::log).unwrap_or_default())
    }

    /// Remembers what the agents have printed and counted so far.
    pub fn moment(&self) -> Result<Moment> {
        Ok(Moment {
            marks: self.agents.iter().map(Agent::mark).collect(),
            metrics: self.metrics()?,
        })
    }

    /// The metrics of all agents together.
    pub fn metrics(&self) -> Result<Metrics> {
        let all: Result<Vec<Metrics>> = self.agents.iter().map(Agent::metrics).collect();
        Ok(Metrics::merge(all?))
    }

    /// What the agents have printed since, node and line.
    pub fn lines_since(&self, moment: &Moment) -> Vec<(String, String)> {
        let agents = self.agents.iter().zip(&moment.marks);
        agents
            .flat_map(|(agent, mark)| {
                agent.lines_since(mark).into_iter().map(|line| (agent.node.clone(), line))
            })
            .collect()
    }
}

impl Pod {
    /// At once, if it has no program.
    fn wait_until_it_listens(&mut self) -> Result<()> {
        let port = self.plan.port.unwrap_or(PORT);
        self.process.as_mut().map_or(Ok(()), |process| process.wait_for_port(port))
    }

    /// Starts its program, if it has one.
    fn start(&mut self, name: &str, programs: &Programs, logs: &Path) -> Result<()> {
        if let Some("bookinfo") = self.plan.command.first().map(String::as_str) {
            let namespace = &self.attachment.namespace;
            let mut command = process::command(namespace, &programs.bookinfo);
            command.args(&self.plan.command[1..]).env("HOSTNAME", name);
            self.process = Some(Process::start(name, namespace, command, logs)?);
        }
        Ok(())
    }
}

fn rules(namespace: &Namespace) -> Result<String> {
    let mut nft = process::command(namespace, "nft");
    command::feed_command(&mut nft, "nft", &["list", "ruleset"], "")
}
