//! What the agents themselves use: processor time and memory, as the kernel counts them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::json;

use super::Bench;
use super::client::Load;
use super::report::{Place, Side, median};
use super::support::lab::many;

/// Connections that were opened and closed before the idle ones are counted: buffers and pools are made once.
const WARM: usize = 500;

/// Processor seconds of both agents for each gibibyte that they carry across nodes.
pub fn processor(bench: &mut Bench) -> Result<serde_json::Value> {
    let before = times(bench)?;
    let rate = bench.measure(Place::Across, Side::Mesh, Load::Throughput)?;
    let used = times(bench)? - before;
    let gibibytes = rate * bench.seconds as f64 / 1024.0;
    Ok(json!({ "agents_seconds_per_gibibyte": used / gibibytes }))
}

/// Connections a second with one policy that admits the client, and with many of which the last one does.
pub fn policies(bench: &mut Bench, count: usize, rounds: usize) -> Result<serde_json::Value> {
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (figures, others) in [(&mut one, 0), (&mut many, count - 1)] {
            let text = (0..others).map(|number| policy(number, "nobody")).collect::<String>();
            bench.lab.manifests.write("policies.yaml", &(text + &policy(count, "client")))?;
            // The directory's watch takes a moment; a first measurement is thrown away besides.
            std::thread::sleep(std::time::Duration::from_secs(2));
            bench.measure(Place::Across, Side::Mesh, Load::LatencyP50)?;
            figures.push(bench.measure(Place::Across, Side::Mesh, Load::Connections)?);
        }
    }
    bench.lab.manifests.remove("policies.yaml")?;
    let (one, many) = (median(&one), median(&many));
    Ok(json!({
        "policies": count, "one": one, "many": many, "unit": Load::Connections.unit(),
        "cost_many_to_one": one / many,
    }))
}

fn policy(number: usize, client: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: policy-{number}, namespace: bench}}\n\
         spec: {{action: ALLOW, rules: [{{from: [{{source: \
         {{principals: [cluster.local/ns/bench/sa/{client}]}}}}]}}]}}\n---\n"
    )
}

/// Resident bytes of each agent for an idle connection across nodes, those of the first for a captured workload, and
/// the most that both ever had.
pub fn memory(bench: &mut Bench, idle: usize, workloads: usize) -> Result<serde_json::Value> {
    held(bench, WARM)?;
    let before = resident(bench, "VmRSS:")?;
    let with = held(bench, idle)?;
    let each = |index: usize| with[index].saturating_sub(before[index]) as f64 / idle as f64;
    Ok(json!({
        "idle_connections": idle,
        "bytes_per_idle_connection": { "client_node": each(0), "server_node": each(1) },
        "workloads": workloads,
        "bytes_per_workload": per_workload(bench, workloads)?,
        "peak_bytes": resident(bench, "VmHWM:")?,
    }))
}

/// What a captured workload costs its agent: listeners, rules, its place in the world. Of one service account, so
/// without a certificate each.
fn per_workload(bench: &mut Bench, count: usize) -> Result<f64> {
    many::prepare(count)?;
    let before = resident(bench, "VmRSS:")?;
    many::join(&mut bench.lab, count)?;
    let after = resident(bench, "VmRSS:")?;
    many::leave(&mut bench.lab, count)?;
    Ok(after[0].saturating_sub(before[0]) as f64 / count as f64)
}

/// Resident bytes of both agents while this many connections stand idle.
fn held(bench: &mut Bench, count: usize) -> Result<Vec<u64>> {
    let mut command = bench.client()?;
    let server = bench.lab.address(Place::Across.server())?.to_string();
    command.args(["hold", &server, &count.to_string()]);
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let output = client.stdout.take().context("the client's output")?;
    let mut said = String::new();
    BufReader::new(output).read_line(&mut said)?;
    anyhow::ensure!(said.trim() == "held", "the client holds nothing: {said:?}");
    std::thread::sleep(std::time::Duration::from_secs(2));
    let resident = resident(bench, "VmRSS:");
    drop(client.stdin.take());
    client.wait()?;
    resident
}

/// A line of `/proc/<pid>/status` of each agent, in bytes.
fn resident(bench: &mut Bench, key: &str) -> Result<Vec<u64>> {
    (bench.lab.agents().iter_mut())
        .map(|agent| {
            let status = fs::read_to_string(format!("/proc/{}/status", agent.process().id()))?;
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let number = line.and_then(|line| line.split_whitespace().next());
            Ok(number.context("a size")?.parse::<u64>()? * 1024)
        })
        .collect()
}

/// How often threads of both agents were woken, as far as they waited by themselves.
pub fn wakes(bench: &mut Bench) -> Result<u64> {
    const KEY: &str = "voluntary_ctxt_switches:";
    let mut total = 0;
    for agent in bench.lab.agents() {
        for thread in fs::read_dir(format!("/proc/{}/task", agent.process().id()))? {
            // A thread may end meanwhile.
            let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
            let line = status.lines().find_map(|line| line.strip_prefix(KEY));
            total += line.context(KEY)?.trim().parse::<u64>()?;
        }
    }
    Ok(total)
}

/// User and system time of both agents, in seconds (proc(5), fields 14 and 15 of `stat`).
pub fn times(bench: &mut Bench) -> Result<f64> {
    /// USER_HZ, which Linux shows to programs whatever its own clock is.
    const TICKS: f64 = 100.0;
    let mut total = 0;
    for agent in bench.lab.agents() {
        let stat = fs::read_to_string(format!("/proc/{}/stat", agent.process().id()))?;
        // The name in parentheses may hold spaces.
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        for field in [11, 12] {
            total += fields.get(field).context("a time")?.parse::<u64>()?;
        }
    }
    Ok(total as f64 / TICKS)
}
