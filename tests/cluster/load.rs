//! Requests in numbers from a pod, what became of them, and what of them came to the pods behind the service. With `UPDATE_DOCS`
//! in the environment tests send more of them and put what they measured into docs/measured.md.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;

use crate::cluster::{answers, apply_file, delete, exec_in, get, inside, kubectl, pod, root};
use crate::guide::meshed;

/// The page with what was measured.
const PAGE: &str = "docs/measured.md";
/// Answers when nothing is in the way any more.
const SETTLED: &str = "http://reviews.bookinfo:9080/headers";
/// After so many seconds a request has failed.
const MAX_TIME: &str = "10";

/// What became of the requests of one client.
#[derive(Debug)]
pub struct Outcomes {
    /// Status, 0 without an answer, and time of each.
    answers: Vec<(u16, Duration)>,
    /// How long all of them took.
    pub took: Duration,
}

impl Outcomes {
    pub fn count(&self) -> usize {
        self.answers.len()
    }

    pub fn with_status(&self, status: u16) -> usize {
        self.answers.iter().filter(|(it, _)| *it == status).count()
    }

    /// The part that was answered 200, in percent.
    pub fn success(&self) -> f64 {
        100.0 * self.with_status(200) as f64 / self.count() as f64
    }

    /// How many took at least so long.
    pub fn as_long_as(&self, least: Duration) -> usize {
        self.answers.iter().filter(|(_, time)| *time >= least).count()
    }

    /// The time that so many percent of the requests took at most.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut times: Vec<Duration> = self.answers.iter().map(|(_, time)| *time).collect();
        times.sort();
        times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
    }
}

/// Does it with Bookinfo in the mesh, behind a waypoint, and takes the documents away.
pub fn with_waypoint(documents: &str, judge: impl FnOnce() -> Result<()>) -> Result<()> {
    meshed()?;
    apply_file("config/bookinfo/mesh/waypoint.yaml")?;
    kubectl(&["label", "namespace", "bookinfo", "istio.io/use-waypoint=waypoint", "--overwrite"])?;
    let outcome = answers("curl", &[SETTLED], 200).and_then(|_| judge());
    let ended = delete(documents).and_then(|()| answers("curl", &[SETTLED], 200));
    kubectl(&["label", "namespace", "bookinfo", "istio.io/use-waypoint-"])?;
    kubectl(&["delete", "-n", "bookinfo", "gateway", "waypoint"])?;
    outcome.and(ended.map(drop))
}

/// Whether what is measured is for the documentation.
pub fn documents() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some()
}

/// So many requests from a Deployment of `default`, a given number at a time, the next one as soon as one is answered.
pub fn send(from: &str, url: &str, count: usize, at_once: usize) -> Result<Outcomes> {
    let (from, at_once) = (format!("deployment/{from}"), at_once.to_string());
    let join = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{join}number=[1-{count}]");
    let arguments = ["exec", &from, "--", "/curl", "--silent", "--max-time", MAX_TIME];
    let format = ["-o", "/dev/null", "--write-out", "%{http_code} %{time_total}\n"];
    let parallel = ["--parallel", "--parallel-immediate", "--parallel-max", &at_once, &url];
    let begun = Instant::now();
    let output = inside("kubectl", &[&arguments[..], &format, &parallel].concat()).output()?;
    let took = begun.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    let answers: Option<Vec<_>> = text.lines().map(answer).collect();
    let answers = answers.with_context(|| format!("curl wrote {text}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(answers.len() == count, "{} of {count} requests: {error}", answers.len());
    Ok(Outcomes { answers, took })
}

fn answer(line: &str) -> Option<(u16, Duration)> {
    let (status, seconds) = line.split_once(' ')?;
    Some((status.parse().ok()?, Duration::from_secs_f64(seconds.parse().ok()?)))
}

/// How many requests with this text in their target came to the pods of `bookinfo` with this label.
pub fn came_to(selector: &str, text: &str) -> Result<usize> {
    let pods = get(&["pods", "-n", "bookinfo", "-l", selector])?;
    let mut came = 0;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let name = pod["metadata"]["name"].as_str().context("a name")?;
        let log = kubectl(&["logs", "-n", "bookinfo", name])?;
        came += log.lines().filter(|line| line.contains(text)).count();
    }
    Ok(came)
}

/// From now on a pod of `bookinfo` is in trouble, such as `delay=100&status=503`, or, with nothing, in none.
pub fn trouble(selector: &str, what: &str) -> Result<()> {
    let pod = pod("bookinfo", selector)?;
    let node = pod["spec"]["nodeName"].as_str().context("a node")?;
    let address = pod["status"]["podIP"].as_str().context("an address")?;
    let url = match what {
        "" => "http://127.0.0.1:9080/trouble".to_owned(),
        what => format!("http://127.0.0.1:9080/trouble?{what}"),
    };
    let command = ["curl", "--silent", "--fail", "-X", "POST", &url];
    let output = exec_in(node, address, &command)?.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{selector}: {what}: {}: {error}", output.status);
    Ok(())
}

/// Puts a table into the page, with where and when it was measured; prints it in any case.
pub fn publish(name: &str, table: &str) -> Result<()> {
    println!("{table}");
    if !documents() {
        return Ok(());
    }
    let path = root().join(PAGE);
    let page = std::fs::read_to_string(&path)?;
    let start = format!("<!-- measured: {name} -->\n");
    let (before, rest) = page.split_once(&start).with_context(|| format!("no {start}"))?;
    let (_, after) = rest.split_once("<!-- end -->").context("no end")?;
    let by = format!("{}, by `UPDATE_DOCS=1 scripts/cluster-tests {name}`", machine()?);
    let text =
        format!("{before}{start}\n{}\n\nMeasured {by}.\n\n<!-- end -->{after}", table.trim());
    std::fs::write(&path, text).context(PAGE)
}

/// The date, what this machine is, and, from `MEASURED_NOTE`, what else is to be known of the run.
fn machine() -> Result<String> {
    let date = std::process::Command::new("date").arg("+%F").output()?;
    let mut text = format!("on {}", String::from_utf8_lossy(&date.stdout).trim());
    let processors = std::fs::read_to_string("/proc/cpuinfo")?;
    let lines = || processors.lines().filter_map(|line| line.split_once(':'));
    let count = lines().filter(|(name, _)| name.trim() == "processor").count();
    let model = lines().find(|(name, _)| name.trim() == "model name");
    let model = model.map_or("an unknown processor", |(_, model)| model.trim());
    write!(text, " on {count} processors ({model}), which carried the whole cluster")?;
    if let Ok(note) = std::env::var("MEASURED_NOTE") {
        write!(text, ", {note}")?;
    }
    Ok(text)
}
