//! nginx of the distribution, as one plain reverse proxy.

use anyhow::Result;

use super::{Start, of_distribution};
use crate::support::lab::process::Process;

/// For HTTP/1.1 and for HTTP/2.
pub const LISTEN: [u16; 2] = [9120, 9121];

const TEMPLATE: &str = include_str!("configs/nginx.conf");

pub fn start(start: &Start<'_>) -> Result<Process> {
    of_distribution(start, "nginx", &["-e", "stderr", "-c"], ("nginx.conf", TEMPLATE), LISTEN)
}
