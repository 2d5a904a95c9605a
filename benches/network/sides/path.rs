//! The path that the mesh replaces, of Envoys: a node proxy in the client's pod and one in the server's, where ztunnel has its
//! sockets too, and a waypoint in a pod of its own. Between them are CONNECT tunnels over mutual TLS and HTTP/2.

use std::net::IpAddr;

use anyhow::{Context, Result};

use super::{Start, envoy, identity};
use crate::http::HTTP;
use crate::support::lab::command::feed_command;
use crate::support::lab::process::{Process, command};

const NODE: &str = include_str!("configs/envoy-node.yaml");
const WAYPOINT: &str = include_str!("configs/envoy-waypoint.yaml");

/// Where tunnels arrive.
const HBONE: u16 = 15008;

/// Leads the pod's connections to the node proxy, as in the mesh. The proxy's own go to other ports.
const REDIRECT: &str = "table ip bench { chain output {\n\
    type nat hook output priority -100\ntcp dport 9000-9099 redirect to :15001\n}\n}\n";

pub fn start(start: &Start<'_>) -> Result<Vec<Process>> {
    let lab = start.lab;
    let authority = identity::authority(lab.logs())?;
    let waypoint = lab.address("path-waypoint")?;
    let mut processes = Vec::new();
    for (pod, account) in
        [("path-client", "client"), ("path-server", "server"), ("path-neighbour", "server")]
    {
        processes.push(node(start, &authority, pod, account, waypoint)?);
    }
    let identity = authority.issue("waypoint")?;
    let (roots, server) = (authority.roots(), format!("{}:{HTTP}", lab.address("path-server")?));
    let values = [
        ("IDENTITY", identity.to_str().context("a name")?),
        ("CA", roots.to_str().context("a name")?),
        ("SERVER", &server),
    ];
    let name = "envoy-waypoint.yaml";
    processes.push(envoy::run(start, "path-waypoint", name, WAYPOINT, &values, HBONE)?);
    let client = &lab.pod("path-client")?.attachment.namespace;
    feed_command(&mut command(client, "nft"), "nft", &["-f", "-"], REDIRECT)?;
    Ok(processes)
}

fn node(
    start: &Start<'_>,
    authority: &identity::Authority,
    pod: &str,
    account: &str,
    waypoint: IpAddr,
) -> Result<Process> {
    let (identity, roots) = (authority.issue(account)?, authority.roots());
    let waypoint = waypoint.to_string();
    let values = [
        ("IDENTITY", identity.to_str().context("a name")?),
        ("CA", roots.to_str().context("a name")?),
        ("WAYPOINT", &waypoint),
    ];
    envoy::run(start, pod, &format!("envoy-{pod}.yaml"), NODE, &values, HBONE)
}
