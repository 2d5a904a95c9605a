//! What the steps do with the lab: change manifests as `kubectl` does, send requests, wait for effects, and
//! collect the agents' evidence. All of it is told to the reader.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::time::Instant;

use crate::report::Report;
use crate::steps::Step;
use crate::support::lab::curl::Answer;
use crate::support::lab::manifests::Key;
use crate::support::lab::metrics::Metrics;
use crate::support::lab::{Lab, Moment, Programs, wait};

/// The application's manifests: what runs before there is a mesh.
const APPLICATION: [&str; 4] =
    ["bookinfo.yaml", "bookinfo-versions.yaml", "clients.yaml", "foo.yaml"];

/// How many of an agent's last lines a failure prints.
const LAST_LINES: usize = 12;

/// How many access log lines a step prints.
const LOG_LINES: usize = 3;

/// The fields of the access log that a step prints, in this order.
const FIELDS: [&str; 13] = [
    "method",
    "path",
    "response_code",
    "src.identity",
    "waypoint.identity",
    "dst.addr",
    "dst.service",
    "dst.workload",
    "direction",
    "route_name",
    "response_flags",
    "response_code_details",
    "error",
];

/// The lab, and the reader.
pub struct Stage {
    pub lab: Lab,
    pub report: Report,
    directory: PathBuf,
    start: Instant,
}

/// The metric of a waypoint's requests.
pub const REQUESTS: &str = "istio_requests_total";
/// The metric of layer 4's connections.
pub const CONNECTIONS: &str = "istio_tcp_connections_opened_total";

impl Stage {
    /// Builds the lab with Bookinfo running and no agents.
    pub fn build(directory: &Path, programs: &Programs, report: Report) -> Result<Self> {
        let start = Instant::now();
        let read = |name: &&str| {
            let file = directory.join(name);
            fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
        };
        let documents = APPLICATION.iter().map(read).collect::<Result<Vec<_>>>()?;
        let lab = Lab::build(&documents, programs)?;
        let stage = Self { lab, report, directory: directory.to_owned(), start };
        for (name, pod) in stage.lab.pods() {
            let plan = &pod.plan;
            let [v4, v6] = pod.attachment.addresses;
            stage.report.say(&format!(
                "{name:<15} {}  {v4:<11} {v6:<13} {}/{}",
                plan.node, plan.key.namespace, plan.service_account
            ));
        }
        Ok(stage)
    }

    /// Runs the steps until one fails; returns whether none did.
    pub fn play(&mut self, steps: &[Step]) -> bool {
        for (step, number) in steps.iter().zip(1..) {
            self.report.step(number, step.title);
            let start = Instant::now();
            let outcome = (step.run)(self).map_err(|error| self.explain(&error));
            let ok = outcome.is_ok();
            self.report.done(step.field, start.elapsed(), outcome);
            if !ok {
                return false;
            }
        }
        true
    }

    pub fn finish(&mut self, ok: bool) {
        self.report.finish(ok, self.start.elapsed());
    }

    /// A failure with what the agents said last.
    fn explain(&mut self, error: &anyhow::Error) -> String {
        let mut text = format!("{error:#}");
        for agent in self.lab.agents() {
            text += &format!("\nthe agent of {} said last:\n", agent.node);
            let log = agent.process().log();
            let lines: Vec<&str> = log.lines().collect();
            text += &lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        }
        if let Ok(directory) = self.lab.save_logs() {
            text += &format!("\nall logs are in {}", directory.display());
        }
        text
    }

    /// `kubectl apply -f`, with a file of `config/bookinfo/mesh`.
    pub fn apply(&mut self, file: &str) -> Result<()> {
        self.apply_with(file, |text| text)
    }

    /// The same, once `complete` has put in what the file leaves open.
    pub fn apply_with(
        &mut self,
        file: &str,
        complete: impl FnOnce(String) -> String,
    ) -> Result<()> {
        let path = self.directory.join("mesh").join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let keys = self.lab.manifests.apply(&complete(text))?;
        let names: Vec<String> = keys.iter().map(Key::to_string).collect();
        self.report.command(&format!("apply mesh/{file}  ({})", names.join(", ")));
        Ok(())
    }

    /// `kubectl delete`.
    pub fn delete(&mut self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        self.report.command(&format!("delete -n {namespace} {kind} {name}"));
        self.lab.manifests.delete(&Key::new(kind, namespace, name))
    }

    /// `kubectl label namespace`.
    pub fn label_namespace(&mut self, name: &str, labels: &[&str]) -> Result<()> {
        self.report.command(&format!("label namespace {name} {}", labels.join(" ")));
        self.lab.manifests.label(&Key::new("Namespace", "", name), labels)
    }

    /// `kubectl label`, for an object in bookinfo.
    pub fn label(&mut self, kind: &str, name: &str, labels: &[&str]) -> Result<()> {
        self.report.command(&format!("label -n bookinfo {kind} {name} {}", labels.join(" ")));
        self.lab.manifests.label(&Key::new(kind, "bookinfo", name), labels)
    }

    /// One request, whatever comes back.
    pub fn send(&self, from: &str, arguments: &[&str]) -> Result<Answer> {
        let answer = self.lab.curl(from, arguments)?;
        self.tell(from, arguments, &answer);
        Ok(answer)
    }

    /// One request whose answer must have this status; 0 means that the connection must be refused.
    pub fn expect(&self, from: &str, arguments: &[&str], status: u16) -> Result<Answer> {
        let answer = self.send(from, arguments)?;
        ensure!(
            answer.status == status,
            "{from}: {}: wanted {}, but: {}",
            arguments.join(" "),
            describe(status),
            answer.summary()
        );
        Ok(answer)
    }

    /// The same request until its answer has this status: manifests take effect in a moment, not at once.
    pub fn settle(&self, from: &str, arguments: &[&str], status: u16) -> Result<Answer> {
        let what = format!("{from}: {} to bring {}", arguments.join(" "), describe(status));
        let mut last = Answer::default();
        let settled = wait::until(&what, || {
            last = self.lab.curl(from, arguments)?;
            Ok((last.status == status).then_some(()))
        });
        settled.with_context(|| format!("the last answer: {}", last.summary()))?;
        self.tell(from, arguments, &last);
        Ok(last)
    }

    fn tell(&self, from: &str, arguments: &[&str], answer: &Answer) {
        self.report.say(&format!("{from}: curl {}", arguments.join(" ")));
        self.report.evidence(&format!("<- {}", answer.summary()));
    }

    /// Repeats `round` until `enough` of what the agents counted during one; returns what was counted.
    pub fn settle_counts<const N: usize>(
        &self,
        what: &str,
        mut round: impl FnMut(&Self) -> Result<()>,
        count: impl Fn(&Metrics) -> [f64; N],
        enough: impl Fn(&[f64; N]) -> bool,
    ) -> Result<[f64; N]> {
        let mut last = [0.0; N];
        let settled = wait::until(what, || {
            let before = count(&self.lab.metrics()?);
            round(self)?;
            let after = count(&self.lab.metrics()?);
            for ((last, before), after) in last.iter_mut().zip(before).zip(after) {
                *last = after - before;
            }
            Ok(enough(&last).then_some(last))
        });
        settled.with_context(|| format!("counted in the last round: {last:?}"))
    }

    /// Prints the agents' lines since `moment` that contain all of `words`; there must be one.
    pub fn log_evidence(&self, moment: &Moment, words: &[&str]) -> Result<Vec<String>> {
        let what = format!("an agent's log line with {words:?}");
        let lines = wait::until(&what, || {
            let lines = self.lab.lines_since(moment).into_iter();
            let found: Vec<(String, String)> =
                lines.filter(|(_, line)| words.iter().all(|word| line.contains(word))).collect();
            Ok((!found.is_empty()).then_some(found))
        })?;
        for (node, line) in lines.iter().take(LOG_LINES) {
            self.report.evidence(&format!("{node}: {}", shorten(line)));
        }
        Ok(lines.into_iter().map(|(_, line)| line).collect())
    }

    /// A figure, told and kept.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        self.report.evidence(&format!("{name}: {value}"));
        self.report.figure(name, value);
    }

    /// Fails with the sentence when the condition does not hold.
    pub fn check(&self, holds: bool, otherwise: &str) -> Result<()> {
        if !holds {
            bail!("{otherwise}");
        }
        Ok(())
    }
}

/// The waypoint's requests to a service.
pub fn requests(metrics: &Metrics, service: &str) -> f64 {
    metrics.sum(REQUESTS, &[("reporter", "waypoint"), ("destination_service_name", service)])
}

/// The connections into a pod that came with mutual TLS, as its node counted them.
pub fn mutual_tls(metrics: &Metrics, workload: &str) -> f64 {
    let labels = [
        ("reporter", "destination"),
        ("connection_security_policy", "mutual_tls"),
        ("destination_workload", workload),
    ];
    metrics.sum(CONNECTIONS, &labels)
}

/// The parts of an access log line that tell who did what, and what came of it.
fn shorten(line: &str) -> String {
    let mut parts: Vec<&str> = line.split('\t').skip(1).collect();
    let fields = parts.pop().unwrap_or_default();
    let shown = FIELDS.iter().filter_map(|name| {
        let start = fields.find(&format!("{name}="))?;
        let value = &fields[start + name.len() + 1..];
        let end = match value.strip_prefix('"') {
            Some(quoted) => quoted.find('"')? + 2,
            None => value.find(' ').unwrap_or(value.len()),
        };
        Some(&fields[start..start + name.len() + 1 + end])
    });
    let shown: Vec<&str> = shown.collect();
    if shown.is_empty() {
        line.to_owned()
    } else {
        format!("{}: {}", parts.join(" "), shown.join(" "))
    }
}

fn describe(status: u16) -> String {
    if status == 0 { "a refused connection".to_owned() } else { format!("status {status}") }
}
