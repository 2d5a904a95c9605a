//! The end: Isthmus is removed from a cluster that uses it. Named so that it runs last, since nothing is left after it.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cluster::{answers, get, kubectl, on_node, root, within};
use crate::guide::{captured, meshed};

const PAGE: &str = "http://productpage.bookinfo:9080/productpage";
const CONFIGURATION: &str = "/etc/cni/net.d/10-lab.conflist";

#[test]
fn uninstalled_every_pod_keeps_a_working_network() -> Result<()> {
    meshed()?;
    for node in ["node1", "node2"] {
        let text = on_node(node, "cat", &[CONFIGURATION])?;
        ensure!(text.contains("\"isthmus\""), "the plugin is not in the chain of {node}: {text}");
    }
    let install = root().join("config/install.yaml").display().to_string();
    kubectl(&["delete", "-f", &install, "--wait", "--timeout=90s"])?;
    for node in ["node1", "node2"] {
        within(Duration::from_secs(30), "the node's CNI configuration to be put back", || {
            Ok((on_node(node, "cat", &[CONFIGURATION])? == original(node)?).then_some(()))
        })?;
        let plugins = on_node(node, "ls", &["/opt/cni/bin"])?;
        ensure!(!plugins.lines().any(|name| name == "isthmus"), "the plugin is left on {node}");
        let tables = on_node(node, "nft", &["list", "tables"])?;
        ensure!(!tables.contains("isthmus"), "rules are left on {node}: {tables}");
    }
    for app in ["curl", "far", "stranger"] {
        captured("default", &format!("app={app}"), false)?;
    }
    answers("curl", &[PAGE], 200)?;
    // New pods come without it, though their namespace is labelled still.
    kubectl(&["delete", "pod", "-l", "app=far", "--wait"])?;
    kubectl(&["rollout", "status", "deployment/far", "--timeout=60s"])?;
    answers("far", &[PAGE], 200)?;
    ensure!(get(&["namespace", "isthmus-system"])?.is_null(), "the namespace is left");
    Ok(())
}

/// What scripts/cluster/inside/node wrote.
fn original(node: &str) -> Result<String> {
    let directory = crate::cluster::directory();
    Ok(std::fs::read_to_string(directory.join(node).join("10-lab.conflist.original"))?)
}
