//! HAProxy of the distribution, as one plain reverse proxy.

use anyhow::Result;

use super::{Start, of_distribution};
use crate::support::lab::process::Process;

/// For HTTP/1.1 and for HTTP/2.
pub const LISTEN: [u16; 2] = [9110, 9111];

const TEMPLATE: &str = include_str!("configs/haproxy.cfg");

pub fn start(start: &Start<'_>) -> Result<Process> {
    of_distribution(start, "haproxy", &["-db", "-f"], ("haproxy.cfg", TEMPLATE), LISTEN)
}
