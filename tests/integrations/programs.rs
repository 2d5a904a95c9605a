//! The programs, on a node of the lab.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::support::lab::Lab;
use crate::support::lab::curl::curl;
use crate::support::lab::network::Node;
use crate::support::lab::process::{Process, command};

/// Where `scripts/integrations` has put those that it built.
const DIRECTORY: &str = "INTEGRATION_PROGRAMS";

/// One of them, by its name.
pub fn program(name: &str) -> Result<PathBuf> {
    let directory = std::env::var_os(DIRECTORY)
        .with_context(|| format!("{DIRECTORY} is not set: run scripts/integrations"))?;
    let path = Path::new(&directory).join(name);
    ensure!(path.exists(), "{} is missing: run scripts/integrations", path.display());
    Ok(path)
}

/// The node that the programs run on.
pub fn node(lab: &Lab) -> Result<&Node> {
    lab.network().nodes().first().context("no node")
}

/// Starts one there, and waits until it listens.
pub fn start(lab: &Lab, path: &Path, arguments: &[&str], port: u16) -> Result<Process> {
    let (node, name) = (node(lab)?, path.file_name().unwrap_or_default().to_string_lossy());
    let mut command = command(&node.namespace, path);
    command.args(arguments);
    let mut process = Process::start(&name, &node.namespace, command, lab.logs())?;
    process.wait_for_port(port)?;
    Ok(process)
}

/// The JSON that a program of the node answers with, when it answers.
pub fn ask(lab: &Lab, url: &str) -> Result<Option<Value>> {
    let answer = curl(&node(lab)?.namespace, &[url])?;
    Ok((answer.status == 200).then(|| answer.json()))
}
