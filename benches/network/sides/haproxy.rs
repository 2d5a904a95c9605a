//! HAProxy of the distribution, as one plain reverse proxy.

use anyhow::Result;

use super::{Start, configure};
use crate::http::HTTP;
use crate::support::lab::process::{Process, command};

/// For HTTP/1.1 and for HTTP/2.
pub const LISTEN: [u16; 2] = [9110, 9111];

const TEMPLATE: &str = include_str!("configs/haproxy.cfg");

pub fn start(start: &Start<'_>) -> Result<Process> {
    let lab = start.lab;
    let values = [
        ("THREADS", &*start.threads.to_string()),
        ("LISTEN", &LISTEN[0].to_string()),
        ("LISTENTWO", &LISTEN[1].to_string()),
        ("SERVER", &lab.address("plain-server")?.to_string()),
        ("PORT", &HTTP.to_string()),
    ];
    let file = configure(lab, "haproxy.cfg", TEMPLATE, &values)?;
    let namespace = &lab.pod("gateway")?.attachment.namespace;
    let mut haproxy = command(namespace, "haproxy");
    haproxy.arg("-db").arg("-f").arg(file);
    let mut process = Process::start("haproxy", namespace, haproxy, lab.logs())?;
    process.wait_for_port(LISTEN[0])?;
    Ok(process)
}
