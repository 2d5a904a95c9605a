//! Prometheus scrapes an agent, and its linter has nothing to say.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::programs::{ask, start};
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, wait};
use crate::{WAYPOINT, meshed, settle};

/// What promtool says of names that are Istio's (https://istio.io/docs/reference/config/metrics/, ztunnel's README).
const OF_ISTIO: [&str; 3] = [
    "istio_request_duration_milliseconds use base unit \"seconds\" instead of \"milliseconds\"",
    "workload_manager_active_proxy_count non-histogram and non-summary metrics should not have \"_count\" suffix",
    "workload_manager_pending_proxy_count non-histogram and non-summary metrics should not have \"_count\" suffix",
];

const PAGE: &str = "http://productpage.bookinfo:9080/productpage";
const METRICS: u16 = 15020;
const PROMETHEUS: u16 = 9090;

/// Bookinfo with a waypoint, after a request that was counted.
fn counted() -> Result<Lab> {
    let mut lab = meshed()?;
    lab.manifests.apply(WAYPOINT)?;
    let label = ["istio.io/use-waypoint=waypoint"];
    lab.manifests.label(&Key::new("Namespace", "", "bookinfo"), &label)?;
    wait::until("a request through the waypoint", || {
        settle(&lab, "curl", &[PAGE], 200)?;
        Ok((lab.metrics()?.sum("istio_requests_total", &[]) > 0.0).then_some(()))
    })?;
    Ok(lab)
}

/// Runs promtool over `input`; an error if it finds a fault.
pub fn promtool(arguments: &[&str], input: &str) -> Result<()> {
    let mut linter = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start promtool: scripts/integrations installs it")?;
    linter.stdin.take().context("its input")?.write_all(input.as_bytes())?;
    let output = linter.wait_with_output()?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    // It checks metrics by its words alone: those of Istio are faults to it.
    let is_fault = |line: &&str| match arguments {
        ["check", "metrics"] => !OF_ISTIO.contains(line),
        _ => !output.status.success(),
    };
    let faults: Vec<&str> = said.lines().filter(is_fault).collect();
    ensure!(faults.is_empty(), "{arguments:?}: {faults:?}");
    Ok(())
}

#[test]
fn promtool_finds_no_fault() -> Result<()> {
    let mut lab = counted()?;
    for agent in lab.agents() {
        let text = agent.exposition()?;
        promtool(&["check", "metrics"], &text).with_context(|| agent.node.clone())?;
    }
    Ok(())
}

#[test]
fn prometheus_scrapes_it() -> Result<()> {
    let lab = counted()?;
    let settings = lab.logs().join("prometheus.yaml");
    let scrape = format!(
        "scrape_configs: [{{job_name: isthmus, scrape_interval: 1s, static_configs: [{{targets: ['127.0.0.1:{METRICS}']}}]}}]"
    );
    std::fs::write(&settings, scrape)?;
    let config = format!("--config.file={}", settings.display());
    let data = format!("--storage.tsdb.path={}", lab.logs().join("prometheus").display());
    let _prometheus = start(&lab, Path::new("prometheus"), &[&config, &data], PROMETHEUS)?;
    for query in ["istio_requests_total", "istio_request_duration_milliseconds_bucket"] {
        wait::until(&format!("Prometheus to know {query}"), || {
            let url = format!("http://127.0.0.1:{PROMETHEUS}/api/v1/query?query={query}");
            let Some(answer) = ask(&lab, &url)? else { return Ok(None) };
            let found = answer["data"]["result"].as_array().is_some_and(|all| !all.is_empty());
            Ok(found.then_some(()))
        })?;
    }
    Ok(())
}
