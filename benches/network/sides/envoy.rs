//! Envoy, from the wheel that `scripts/setup bench` unpacks.

use anyhow::{Result, ensure};

use super::{Start, configure};
use crate::http::HTTP;
use crate::support::lab::process::{Process, command};

pub const LISTEN: u16 = 9100;

const PLAIN: &str = include_str!("configs/envoy-plain.yaml");

/// As one plain reverse proxy.
pub fn plain(start: &Start<'_>) -> Result<Process> {
    let values = [
        ("LISTEN", &*LISTEN.to_string()),
        ("SERVER", &start.lab.address("plain-server")?.to_string()),
        ("PORT", &HTTP.to_string()),
    ];
    run(start, "gateway", "envoy-plain.yaml", PLAIN, &values, LISTEN)
}

/// Starts one in a pod and waits until it listens.
pub fn run(
    start: &Start<'_>,
    pod: &str,
    name: &str,
    template: &str,
    values: &[(&str, &str)],
    port: u16,
) -> Result<Process> {
    ensure!(
        start.envoy.exists(),
        "{} is not there: run `scripts/setup bench`, or name another with --envoy",
        start.envoy.display()
    );
    let lab = start.lab;
    let file = configure(lab, name, template, values)?;
    let namespace = &lab.pod(pod)?.attachment.namespace;
    let mut envoy = command(namespace, start.envoy);
    envoy.arg("-c").arg(file);
    // A hot restart's shared memory would be that of all of them.
    envoy.args(["--disable-hot-restart", "--log-level", "warning"]);
    envoy.args(["--concurrency", &start.threads.to_string()]);
    let mut process = Process::start(name, namespace, envoy, lab.logs())?;
    process.wait_for_port(port)?;
    Ok(process)
}
