//! nginx of the distribution, as one plain reverse proxy.

use anyhow::{Context, Result};

use super::{Start, configure};
use crate::http::HTTP;
use crate::support::lab::process::{Process, command};

/// For HTTP/1.1 and for HTTP/2.
pub const LISTEN: [u16; 2] = [9120, 9121];

const TEMPLATE: &str = include_str!("configs/nginx.conf");

pub fn start(start: &Start<'_>) -> Result<Process> {
    let lab = start.lab;
    let values = [
        ("THREADS", &*start.threads.to_string()),
        ("LISTEN", &LISTEN[0].to_string()),
        ("LISTENTWO", &LISTEN[1].to_string()),
        ("SERVER", &lab.address("plain-server")?.to_string()),
        ("PORT", &HTTP.to_string()),
        ("DIRECTORY", lab.logs().to_str().context("a directory's name")?),
    ];
    let file = configure(lab, "nginx.conf", TEMPLATE, &values)?;
    let namespace = &lab.pod("gateway")?.attachment.namespace;
    let mut nginx = command(namespace, "nginx");
    nginx.args(["-e", "stderr", "-c"]).arg(file);
    let mut process = Process::start("nginx", namespace, nginx, lab.logs())?;
    process.wait_for_port(LISTEN[0])?;
    Ok(process)
}
