//! The agents: `isthmus run`, one in each node's namespace, over the same manifests and the same CA.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::curl::{Answer, curl};
use super::metrics::Metrics;
use super::netns::Namespace;
use super::network::Node;
use super::process::{Process, command};

const METRICS: u16 = 15020;
const READINESS: u16 = 15021;

/// The directory of the agents' sockets, in the private `/run`.
const ADMINISTRATION: &str = "/run/isthmus/admin";

/// Where the agent of a node is administered.
pub fn socket(node: &str) -> String {
    format!("{ADMINISTRATION}/{node}.sock")
}

/// Asks the agent of a node over its socket, with more arguments for curl.
pub fn administer(node: &Node, arguments: &[&str], path: &str) -> Result<Answer> {
    let (socket, url) = (socket(&node.name), format!("http://agent{path}"));
    let more = ["--unix-socket", &socket, &url];
    curl(&node.namespace, &[arguments, &more].concat())
}

/// One running agent.
pub struct Agent {
    pub node: String,
    namespace: Namespace,
    process: Process,
}

/// What an agent had printed at some moment: where to look for what it prints afterwards.
#[derive(Clone, Debug)]
pub struct Mark(usize);

/// Where an agent finds what it shares with the others.
pub struct Shared<'a> {
    pub program: &'a Path,
    pub directory: &'a Path,
    pub manifests: &'a Path,
    pub environment: &'a [(String, String)],
}

impl Shared<'_> {
    /// The directory of the CA's certificate and key.
    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca")
    }

    /// A whole file of settings. `more` may begin with keys without a section; with a section `[identity]` or `[source]` it
    /// says all of that.
    fn settings(&self, node: &str, more: &str) -> String {
        let is_section = |line: &&str| line.starts_with('[');
        let (top, sections): (Vec<&str>, Vec<&str>) = match more
            .lines()
            .position(|it| is_section(&it))
        {
            Some(first) => (more.lines().take(first).collect(), more.lines().skip(first).collect()),
            None => (more.lines().collect(), Vec::new()),
        };
        let ca = self.ca();
        let identity = if sections.contains(&"[identity]") {
            String::new()
        } else {
            format!("[identity]\nissuer = \"local\"\nca_directory = \"{}\"\n", ca.display())
        };
        let source = if sections.contains(&"[source]") {
            String::new()
        } else {
            format!("[source]\ndirectory = \"{}\"\n", self.manifests.display())
        };
        format!(
            "{}\nnode = \"{node}\"\n{source}{identity}{}\n",
            top.join("\n"),
            sections.join("\n"),
        )
    }
}

impl Agent {
    /// Starts the agent of `node`, with `more` settings, and waits until it is ready.
    pub fn start(node: &Node, shared: &Shared<'_>, more: &str, logs: &Path) -> Result<Self> {
        let mut agent = Self::begin(node, shared, more, logs)?;
        agent.wait_until_ready()?;
        Ok(agent)
    }

    /// Like [`Agent::start`], without waiting.
    pub fn begin(node: &Node, shared: &Shared<'_>, more: &str, logs: &Path) -> Result<Self> {
        ensure!(
            shared.program.exists(),
            "{} is not there: build it with `cargo build --bin isthmus`",
            shared.program.display()
        );
        let config = shared.directory.join(format!("{}.toml", node.name));
        fs::write(&config, shared.settings(&node.name, more))?;
        let mut run = command(&node.namespace, shared.program);
        run.arg("run").arg("--config").arg(&config);
        run.envs(shared.environment.iter().map(|(name, value)| (name, value)));
        let process = Process::start(&format!("agent-{}", node.name), &node.namespace, run, logs)?;
        Ok(Self { node: node.name.clone(), namespace: node.namespace.clone(), process })
    }

    /// Waits for 200 from the readiness port.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        self.process.wait_for_port(READINESS)?;
        let url = format!("http://127.0.0.1:{READINESS}/healthz/ready");
        super::wait::until(&format!("the agent of {} to be ready", self.node), || {
            self.process.must_run()?;
            Ok((curl(&self.namespace, &[&url])?.status == 200).then_some(()))
        })
        .with_context(|| format!("it said last:\n{}", self.process.last_lines()))
    }

    pub fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics::parse(&self.exposition()?))
    }

    /// The metrics as Prometheus gets them.
    pub fn exposition(&self) -> Result<String> {
        let url = format!("http://127.0.0.1:{METRICS}/metrics");
        let answer = curl(&self.namespace, &[&url])?;
        ensure!(answer.status == 200, "the metrics of {}: {}", self.node, answer.summary());
        Ok(answer.body)
    }

    /// Everything that the agent knows.
    pub fn dump(&self) -> Result<Value> {
        let socket = socket(&self.node);
        let arguments = ["--unix-socket", &socket, "http://agent/config_dump"];
        let answer = curl(&self.namespace, &arguments)?;
        ensure!(answer.status == 200, "the dump of {}: {}", self.node, answer.summary());
        Ok(answer.json())
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The moment that [`Agent::lines_since`] counts from.
    pub fn mark(&self) -> Mark {
        Mark(self.process.log().len())
    }

    /// Whole lines that were printed after `mark`.
    pub fn lines_since(&self, mark: &Mark) -> Vec<String> {
        let log = self.process.log();
        let new = log.get(mark.0..).unwrap_or_default();
        let whole = new.rfind('\n').map_or("", |end| &new[..end]);
        whole.lines().map(str::to_owned).collect()
    }
}
